--? verify: SELECT what = E'it''s\n$$ "a" \\ ; -- /*' FROM ledger.odd
/* a comment; /* in a comment */ with a ; */
CREATE TABLE ledger.odd (what text); -- not DROP TABLE;
INSERT INTO ledger.odd VALUES (E'it\'s\n$$ "a" \\ ; -- /*');
