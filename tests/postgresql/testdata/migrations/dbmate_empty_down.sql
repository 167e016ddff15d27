--? verify: SELECT EXISTS (SELECT FROM pg_indexes WHERE indexname = 'orders_by_item')
-- migrate:up
CREATE INDEX orders_by_item ON ledger.orders (item);

-- migrate:down

