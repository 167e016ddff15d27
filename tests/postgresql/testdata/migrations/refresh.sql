--? verify: SELECT count(*) = 1 FROM ledger.totals
REFRESH MATERIALIZED VIEW ledger.totals;
