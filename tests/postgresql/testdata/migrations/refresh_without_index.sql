--? setup: GRANT TEMPORARY ON DATABASE {database} TO shop_owner
--? teardown: REVOKE TEMPORARY ON DATABASE {database} FROM shop_owner
--? refused: needs a unique index
REFRESH MATERIALIZED VIEW CONCURRENTLY ledger.totals;
