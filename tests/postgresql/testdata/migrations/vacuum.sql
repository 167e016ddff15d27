--? refused: can't run in a transaction
DELETE FROM ledger.events WHERE id > 1000000;
VACUUM ANALYZE ledger.events;
