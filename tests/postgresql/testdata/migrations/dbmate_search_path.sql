--? search_path: ledger
--? verify: SELECT count(*) = 3 FROM ledger.customers
-- migrate:up
create table customers (
  id integer primary key,
  name varchar(255) not null
);
insert into customers (id, name) select id, owner from accounts;
