--? verify: SELECT count(*) = 20 FROM ledger.recent_notes
-- Flyway, repeatable
CREATE OR REPLACE VIEW ledger.recent_notes AS
SELECT e.id, e.note, e.amount FROM ledger.entries e;
COMMENT ON VIEW ledger.recent_notes IS 'it''s "recent"; by amount';
