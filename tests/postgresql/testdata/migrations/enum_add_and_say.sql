--? warns: no statement can use the value before it is committed
--? verify: SELECT obj_description('ledger.colour'::regtype) = 'violet'
ALTER TYPE ledger.colour ADD VALUE 'violet';
COMMENT ON TYPE ledger.colour IS 'violet';
