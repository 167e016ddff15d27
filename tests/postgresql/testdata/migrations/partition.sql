--? verify: SELECT count(*) = 1 FROM ledger.parts_high
CREATE TABLE ledger.parts_high PARTITION OF ledger.parts FOR VALUES FROM (99999999) TO (199999999);
INSERT INTO ledger.parts VALUES (150000000, 'high');
