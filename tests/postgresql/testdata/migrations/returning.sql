--? rows: [{"id":7400003}]
WITH gone AS (
  SELECT max(id) AS id FROM ledger.accounts
)
UPDATE ledger.accounts a SET owner = 'last' FROM gone WHERE a.id = gone.id RETURNING a.id;
