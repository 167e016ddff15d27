--? refused: the whole command is one transaction
BEGIN;
ALTER TABLE ledger.accounts ADD COLUMN closed date;
COMMIT;
