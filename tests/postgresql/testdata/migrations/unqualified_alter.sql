--? refused: that is in ledger, where the command does not look
ALTER TABLE accounts ADD COLUMN mail text;
