-- Takes from PUBLIC what would otherwise be every login's, and so every minted
-- login's as well. Run it as a superuser, with psql, in each database that is to be
-- a target, and give to named roles what they had through PUBLIC and still need.
--
--   psql -d shop -v schema=ledger -f public.sql
\set ON_ERROR_STOP on
\set QUIET on

-- Databases: everybody may connect to each and make temporary tables there.
SELECT format('REVOKE CONNECT, TEMPORARY, CREATE ON DATABASE %I FROM PUBLIC', datname) FROM pg_database \gexec

-- Schema public: until PostgreSQL 15, everybody may make objects in it.
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- Functions: everybody may execute each that is made, unless its owner says
-- otherwise beforehand. That has to be said for each role that makes functions.
REVOKE ALL ON ALL TABLES IN SCHEMA :"schema" FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA :"schema" FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA :"schema" FROM PUBLIC;
\if :{?owner}
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
\endif
