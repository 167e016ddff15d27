--? verify: SELECT ledger.vat(100) = 119
-- +migrate Up
-- +migrate StatementBegin
CREATE OR REPLACE FUNCTION ledger.vat(net numeric) RETURNS numeric AS $body$
BEGIN
  RETURN round(net * 1.19, 2);
END;
$body$ LANGUAGE plpgsql IMMUTABLE;
-- +migrate StatementEnd
