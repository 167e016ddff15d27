--? verify: SELECT convalidated FROM pg_constraint WHERE conname = 'amount_is_positive'
ALTER TABLE ledger.entries ADD CONSTRAINT amount_is_positive CHECK (amount > 0) NOT VALID;
ALTER TABLE ledger.entries VALIDATE CONSTRAINT amount_is_positive;
