--? warns: a function of that name is in ledger
--? fails: 42883
UPDATE ledger.accounts SET owner = add('a', owner);
