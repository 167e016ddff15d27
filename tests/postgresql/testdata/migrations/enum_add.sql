--? verify: SELECT 'green' = ANY (enum_range(NULL::ledger.colour)::text[])
ALTER TYPE ledger.colour ADD VALUE IF NOT EXISTS 'green' BEFORE 'blue';
