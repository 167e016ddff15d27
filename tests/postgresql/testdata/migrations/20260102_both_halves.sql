--? refused: both halves of a migration
-- // First migration.
-- Migration SQL that makes the change goes here.
CREATE TABLE ledger.bills (id int PRIMARY KEY);

-- //@UNDO
-- SQL to undo the change goes here.
DROP TABLE ledger.bills;
