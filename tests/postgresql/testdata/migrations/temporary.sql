--? setup: GRANT TEMPORARY ON DATABASE {database} TO shop_owner
--? teardown: REVOKE TEMPORARY ON DATABASE {database} FROM shop_owner
--? warns: in a session that has none of the caller's own
--? verify: SELECT count(*) = 1 FROM ledger.accounts WHERE owner = 'staged'
CREATE TEMP TABLE stage (id int, owner text) ON COMMIT DROP;
INSERT INTO stage VALUES (7400002, 'staged');
UPDATE ledger.accounts a SET owner = s.owner FROM stage s WHERE s.id = a.id;
