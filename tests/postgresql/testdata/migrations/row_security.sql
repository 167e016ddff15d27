--? verify: SELECT relrowsecurity FROM pg_class WHERE oid = 'ledger.notes'::regclass
CREATE TABLE ledger.notes (tenant int NOT NULL, note text);
ALTER TABLE ledger.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON ledger.notes USING (tenant = 1);
