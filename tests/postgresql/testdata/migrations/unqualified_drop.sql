--? refused: that is in ledger, where the command does not look
DROP TABLE IF EXISTS accounts;
