--? verify: SELECT bool_and(shout = upper(item)) FROM ledger.orders
ALTER TABLE ledger.orders ADD COLUMN shout text GENERATED ALWAYS AS (upper(item)) STORED;
