--? refused: both halves of a migration
create table ledger.t1 (id serial primary key);
---- create above / drop below ----
drop table ledger.t1;
