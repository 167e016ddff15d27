--? warns: a migration tool fills that in
--? verify: SELECT obj_description('ledger.accounts'::regclass) = 'owned by ${TEAM}'
-- +goose ENVSUB ON
-- +goose Up
COMMENT ON TABLE ledger.accounts IS 'owned by ${TEAM}';
