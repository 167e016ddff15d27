--? refused: name the schemas in the role's search_path
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET search_path = ledger;
CREATE TABLE dumped (id int);
