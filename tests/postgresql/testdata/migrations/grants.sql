--? verify: SELECT has_table_privilege('shop_app', 'ledger.events', 'SELECT')
GRANT USAGE ON SCHEMA ledger TO shop_app;
GRANT SELECT ON ledger.events TO shop_app;
