--? rows: [{"accounts":3,"first":7400001}]
UPDATE ledger.accounts SET owner = trim(owner);
SELECT count(*) AS accounts, min(id) AS first FROM ledger.accounts;
