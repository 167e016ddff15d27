--? verify: SELECT count(*) = 1 FROM ledger.changes WHERE was = 'event-marker-1'
-- +goose Up
-- +goose StatementBegin
CREATE TABLE ledger.changes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, was text, at timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION ledger.record_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ledger.changes (was) VALUES (OLD.what);
  RETURN NEW;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER record_change AFTER UPDATE ON ledger.events FOR EACH ROW EXECUTE FUNCTION ledger.record_change();
UPDATE ledger.events SET what = 'changed' WHERE id = 1;
