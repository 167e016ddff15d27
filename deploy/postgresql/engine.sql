-- The least that the engine's own login needs of a PostgreSQL server. It is no
-- superuser. Run it as one, with psql, in each database that is to be a target; it
-- may be run again.
--
--   psql -d shop -v engine=precision -v schema=ledger -v owner=shop_owner -f engine.sql
--   psql -d shop -c '\password precision'
--
-- engine  the login that the target is configured with
-- schema  whose tables, views, sequences and functions roles may be about; run the
--         file once for each such schema
-- owner   a role that RUN may run as (run_as); leave it out where no role is a RUN
\set ON_ERROR_STOP on
\set QUIET on
BEGIN;

-- A login that makes logins. It has no password yet, so that nobody can use it.
SELECT format('CREATE ROLE %I LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS', :'engine')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'engine') \gexec

-- What a minted login holds, the engine has to be able to give.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I WITH GRANT OPTION', current_database(), :'engine') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"engine" WITH GRANT OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA :"schema" TO :"engine" WITH GRANT OPTION;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA :"schema" TO :"engine" WITH GRANT OPTION;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA :"schema" TO :"engine" WITH GRANT OPTION;

-- A schema of its own, for the procedures of RUN.
SELECT format('CREATE SCHEMA precision AUTHORIZATION %I', :'engine')
 WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'precision') \gexec
\if :{?owner}
GRANT :"owner" TO :"engine";
\endif

-- To end sessions of a login that is gone already, on standbys too, and of those who
-- lock a login's row.
GRANT pg_signal_backend TO :"engine";

-- To get in, and so to revoke, where sessions have taken all connections. The server has
-- to set reserved_connections to something. PostgreSQL 15 has no such right: there the
-- engine has the one connection that it keeps open.
SELECT format('GRANT pg_use_reserved_connections TO %I', :'engine')
 WHERE current_setting('server_version_num')::integer >= 160000 \gexec

-- To see whether the server lets anybody in without a password.
GRANT SELECT ON pg_catalog.pg_hba_file_rules TO :"engine";
GRANT EXECUTE ON FUNCTION pg_catalog.pg_hba_file_rules() TO :"engine";

COMMIT;
