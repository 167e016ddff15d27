--? setup: SET ROLE shop_owner; CREATE PROCEDURE ledger.batches() LANGUAGE plpgsql AS $$ BEGIN UPDATE ledger.events SET what = what; COMMIT; END $$; RESET ROLE
--? warns: commits by itself
--? fails: 2D000
CALL ledger.batches();
