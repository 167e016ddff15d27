--? verify: SELECT name = 'shipped' FROM ledger.states WHERE code = 2
CREATE TABLE ledger.states (code int PRIMARY KEY, name text NOT NULL);
INSERT INTO ledger.states (code, name) VALUES (1, 'open'), (2, 'sent')
ON CONFLICT (code) DO NOTHING;
INSERT INTO ledger.states (code, name) VALUES (2, 'shipped')
ON CONFLICT (code) DO UPDATE SET name = EXCLUDED.name;
