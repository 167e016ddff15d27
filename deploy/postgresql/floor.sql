-- Takes from PUBLIC what every login has in a fresh database and hardly needs: large
-- objects, advisory locks, sleeping, messages in the log of changes, DO blocks. What is
-- left to a minted login then, docs/postgresql.md lists. Run it as a superuser, with
-- psql, in each database that is to be a target, and give to named roles what they had
-- through PUBLIC and still need; engine.sql first.
--
--   psql -d shop -v engine=precision -f floor.sql
\set ON_ERROR_STOP on
\set QUIET on
BEGIN;

SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)
  FROM pg_proc
 WHERE pronamespace = 'pg_catalog'::regnamespace
   AND (proname ~ '^(lo_.*|loread|lowrite|pg_sleep.*|pg_logical_emit_message|pg_export_snapshot)$' OR proname ~ '^pg_(try_)?advisory_') \gexec
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;

-- The engine's watchdog is such a block, and sleeps; commands are installed one at a time.
GRANT USAGE ON LANGUAGE plpgsql TO :"engine";
GRANT EXECUTE ON FUNCTION pg_sleep(double precision), pg_advisory_xact_lock(bigint), pg_advisory_xact_lock(integer, integer) TO :"engine";

COMMIT;
