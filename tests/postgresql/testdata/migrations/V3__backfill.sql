--? verify: SELECT count(*) = 20 FROM ledger.entries WHERE year = 2026
-- Flyway: a new column, filled from a query
ALTER TABLE ledger.entries ADD COLUMN year int;
WITH years AS (
  SELECT id, 2026 AS year FROM ledger.entries
)
UPDATE ledger.entries e SET year = years.year FROM years WHERE years.id = e.id;
ALTER TABLE ledger.entries ALTER COLUMN year SET NOT NULL;
