--? refused: can't run in a transaction
-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX CONCURRENTLY entries_by_account ON ledger.entries (account);
