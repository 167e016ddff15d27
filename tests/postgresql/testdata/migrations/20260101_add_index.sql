--? verify: SELECT EXISTS (SELECT FROM pg_indexes WHERE indexname = 'events_by_what')
-- // add an index (MyBatis)
-- Migration SQL that makes the change goes here.

CREATE INDEX events_by_what ON ledger.events (what);
