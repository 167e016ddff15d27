--? refused: both halves of a migration
-- +goose Up
ALTER TABLE ledger.entries ADD COLUMN archived boolean;

-- +goose Down
ALTER TABLE ledger.entries DROP COLUMN archived;
