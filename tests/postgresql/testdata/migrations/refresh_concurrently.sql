--? refused: REFRESH … CONCURRENTLY makes a temporary table
REFRESH MATERIALIZED VIEW CONCURRENTLY ledger.totals;
