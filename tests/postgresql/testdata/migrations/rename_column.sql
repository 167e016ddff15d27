--? verify: SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'ledger' AND table_name = 'papers' AND column_name = 'title')
CREATE TABLE ledger.papers (id int PRIMARY KEY, name text);
CREATE VIEW ledger.paper_names AS SELECT name FROM ledger.papers;
DROP VIEW ledger.paper_names;
ALTER TABLE ledger.papers RENAME COLUMN name TO title;
CREATE VIEW ledger.paper_names AS SELECT title AS name FROM ledger.papers;
