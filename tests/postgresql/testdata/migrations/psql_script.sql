--? refused: commands of psql are not SQL
\set ON_ERROR_STOP on
ALTER TABLE ledger.accounts ADD COLUMN phone text;
