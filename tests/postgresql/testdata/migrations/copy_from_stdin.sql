--? refused: has nobody to speak to
COPY ledger.accounts (id, owner) FROM stdin;
