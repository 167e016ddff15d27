--? verify: SELECT count(*) FILTER (WHERE reviewed) = 10 FROM ledger.entries
-- +goose Up
ALTER TABLE ledger.entries ADD COLUMN reviewed boolean NOT NULL DEFAULT false;
UPDATE ledger.entries SET reviewed = true WHERE id <= 7100010;
