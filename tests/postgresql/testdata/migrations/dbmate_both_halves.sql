--? refused: both halves of a migration
-- migrate:up
CREATE TABLE ledger.coupons (code text PRIMARY KEY, percent int NOT NULL CHECK (percent BETWEEN 1 AND 90));

-- migrate:down
DROP TABLE ledger.coupons;
