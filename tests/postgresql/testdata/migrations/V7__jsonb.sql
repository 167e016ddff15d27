--? verify: SELECT bool_and(extra @> '{"source": "import"}') FROM ledger.orders
ALTER TABLE ledger.orders ADD COLUMN extra jsonb NOT NULL DEFAULT '{}';
UPDATE ledger.orders SET extra = jsonb_build_object('source', 'import', 'item', item);
CREATE INDEX orders_extra ON ledger.orders USING gin (extra jsonb_path_ops);
