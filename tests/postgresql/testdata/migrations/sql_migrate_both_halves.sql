--? refused: both halves of a migration
-- +migrate Up
CREATE TABLE ledger.people (id int);

-- +migrate Down
DROP TABLE ledger.people;
