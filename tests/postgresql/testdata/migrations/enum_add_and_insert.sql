--? warns: no statement can use the value before it is committed
--? setup: SET ROLE shop_owner; CREATE TABLE ledger.inks (colour ledger.colour); RESET ROLE
--? fails: 55P04
ALTER TYPE ledger.colour ADD VALUE 'pink';
INSERT INTO ledger.inks VALUES ('pink');
