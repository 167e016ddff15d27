package postgresql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What the engine says of a statement in a command, and the server of the same inside
// a procedure that runs as another role.
const (
	runsBoth     = "both take it"
	refusedBoth  = "neither takes it"
	engineAlone  = "the server would run it: it is refused for what it would mean"
	serverLater  = "only the server can tell, when it is run"
	ownProcedure = "ledger.trying"
)

// commandStatements are statements of each kind that PostgreSQL 15 has.
// https://www.postgresql.org/docs/15/sql-commands.html
var commandStatements = map[string][]string{
	runsBoth: {
		"SELECT 1", "VALUES (1)", "TABLE ledger.entries", "WITH a AS (SELECT 1) SELECT * FROM a", "(SELECT 1) UNION SELECT 2", "SHOW work_mem", "EXPLAIN SELECT 1",
		"INSERT INTO ledger.accounts VALUES (1, 'a')", "UPDATE ledger.accounts SET owner = 'a'", "DELETE FROM ledger.accounts",
		"MERGE INTO ledger.accounts a USING (VALUES (1)) v (i) ON a.id = v.i WHEN MATCHED THEN DO NOTHING",
		"WITH gone AS (DELETE FROM ledger.accounts RETURNING id, owner) INSERT INTO ledger.accounts SELECT id, owner FROM gone",
		"TRUNCATE ledger.accounts", "TRUNCATE ledger.events RESTART IDENTITY", "LOCK TABLE ledger.entries", "COPY ledger.entries TO '/dev/null'", "COPY ledger.entries TO PROGRAM 'cat > /dev/null'",
		"DO $q$ BEGIN PERFORM 1; END $q$", "CALL ledger.close_month()", "NOTIFY c", "SET CONSTRAINTS ALL DEFERRED", "SET LOCAL work_mem = '4MB'", "SET work_mem = '4MB'", "CHECKPOINT",
		"ANALYZE ledger.entries", "CLUSTER ledger.entries USING entries_pkey", "REINDEX TABLE ledger.entries", "REINDEX INDEX ledger.entries_pkey",
		"CREATE MATERIALIZED VIEW ledger.fresh AS SELECT 1 AS id; CREATE UNIQUE INDEX ON ledger.fresh (id); REFRESH MATERIALIZED VIEW CONCURRENTLY ledger.fresh",
		"ALTER DATABASE {database} SET work_mem = '4MB'", "ALTER TABLE ledger.accounts ADD COLUMN c int; UPDATE ledger.accounts SET c = 1", "ALTER TABLE ledger.parts DETACH PARTITION ledger.parts_low",
		"CREATE TABLE ledger.t9 (a int)", "CREATE TABLE ledger.t9 AS SELECT 1 AS a", "CREATE TEMP TABLE t9 (a int)", "CREATE INDEX ON ledger.entries (note)", "CREATE VIEW ledger.v9 AS SELECT 1",
		"CREATE SCHEMA s9 CREATE TABLE s9.t (a int)", "CREATE TYPE ledger.e9 AS ENUM ('a')", "ALTER TYPE ledger.colour ADD VALUE 'green'", "CREATE SEQUENCE ledger.s9",
		"CREATE FUNCTION ledger.f9() RETURNS int LANGUAGE sql RETURN 1", "CREATE FUNCTION ledger.f9() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT ledger.f9()",
		"CREATE ROLE r9", "GRANT SELECT ON ledger.entries TO shop_app", "REVOKE SELECT ON ledger.entries FROM shop_app", "CREATE PUBLICATION p9", "COMMENT ON TABLE ledger.entries IS 'a'",
		"CREATE SUBSCRIPTION s9 CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)", "DROP TABLE ledger.entries CASCADE", "REASSIGN OWNED BY shop_app TO shop_owner", "DROP OWNED BY shop_app",
		"CREATE RULE r9 AS ON INSERT TO ledger.accounts DO ALSO (SELECT 1; SELECT 2)",
	},
	refusedBoth: {
		"VACUUM ledger.entries", "VACUUM FULL ledger.entries", "CREATE DATABASE d9", "DROP DATABASE IF EXISTS d9", "ALTER DATABASE postgres SET TABLESPACE pg_default", "CREATE TABLESPACE t9 LOCATION '/tmp'",
		"DROP TABLESPACE IF EXISTS t9", "ALTER SYSTEM SET work_mem = '4MB'", "CREATE INDEX CONCURRENTLY ON ledger.entries (note)", "CREATE UNIQUE INDEX CONCURRENTLY ON ledger.entries (id)",
		"DROP INDEX CONCURRENTLY IF EXISTS ledger.i9", "REINDEX TABLE CONCURRENTLY ledger.entries", "REINDEX (CONCURRENTLY) INDEX ledger.entries_pkey", "REINDEX SCHEMA ledger", "REINDEX DATABASE {database}", "REINDEX (VERBOSE) SYSTEM {database}",
		"CLUSTER", "CLUSTER VERBOSE", "ALTER TABLE ledger.parts DETACH PARTITION ledger.parts_low CONCURRENTLY",
		"BEGIN", "START TRANSACTION", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
		"SET ROLE shop_app", "SET LOCAL ROLE shop_app", "SET \"role\" TO shop_app", "RESET ROLE", "SET SESSION AUTHORIZATION shop_app", "SET LOCAL SESSION AUTHORIZATION shop_app", "SET SESSION SESSION AUTHORIZATION shop_app",
		"DO $q$ BEGIN COMMIT; END $q$", "DO $q$ BEGIN UPDATE ledger.accounts SET owner = 'a'; ROLLBACK; END $q$", "ALTER TYPE ledger.colour ADD VALUE 'grey'; SELECT 'grey'::ledger.colour",
		"DISCARD ALL", "COPY ledger.accounts FROM STDIN", "COPY ledger.accounts TO STDOUT", "COPY (SELECT 1) TO STDOUT", "SELECT 1 INTO TEMP t9", "WITH a AS (SELECT 1 AS x) SELECT x INTO ledger.t9 FROM a", "(SELECT 1 INTO ledger.t9)",
		"CREATE SUBSCRIPTION s9 CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p", "FETCH c", "MOVE c", "EXECUTE p9", "SELECT $1", "UPDATE ledger.accounts SETT owner = 1", "\\i other.sql",
	},
	engineAlone: {
		"SET search_path = hidden", "SET LOCAL search_path TO hidden", "SET SCHEMA 'hidden'", "SELECT set_config('search_path', 'hidden', false)", "RESET ALL", "RESET DateStyle", "SET DateStyle TO DEFAULT", "SET TIME ZONE LOCAL", "SET TIME ZONE DEFAULT",
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "DISCARD TEMP", "DISCARD PLANS", "LISTEN c", "UNLISTEN c", "DECLARE c CURSOR FOR SELECT 1", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE ALL", "PREPARE p9 AS SELECT 1", "DEALLOCATE ALL", "LOAD 'plpgsql'",
	},
	serverLater: {
		"DO $q$ BEGIN EXECUTE 'VACUUM'; END $q$", "DO $q$ BEGIN EXECUTE 'COMMIT'; END $q$", "SELECT no_such_function()", "SELECT 1 FROM no_such_table", "SECURITY LABEL ON TABLE ledger.entries IS 'a'",
	},
}

// Each statement is run by the server inside of a procedure, and written into a role:
// the two agree, but where the engine has a reason of its own.
func TestCommandStatements(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	s.exec("GRANT CREATE, TEMPORARY ON DATABASE " + s.name + " TO shop_owner") // as the server is asked as a superuser
	counts, all := map[string]int{}, 0
	for verdict, statements := range commandStatements {
		for _, statement := range statements {
			statement = strings.ReplaceAll(statement, "{database}", s.name)
			_, err := m.tryRole("trying", map[string]any{"action": "RUN", "resource": s.name, "command": statement, "run_as": owner})
			if taken := verdict == runsBoth || verdict == serverLater; taken != (err == nil) {
				t.Errorf("%s (%s): the engine says %v", statement, verdict, err)
			}
			err = s.insideProcedure(statement)
			if runs := verdict == runsBoth || verdict == engineAlone; runs != (err == nil) {
				t.Errorf("%s (%s): the server says %v", statement, verdict, err)
			}
			// For which statements it never will, the server has five codes; the others
			// are of texts, and of what is not there yet.
			if codes := []string{"25001", "0A000", "42501", "2D000", "55P04", "42601", "42P02", "34000", "26000"}; verdict == refusedBoth && !slices.Contains(codes, code(err)) {
				t.Errorf("%s: the server refuses it for another reason: %v", statement, err)
			}
			counts[verdict]++
			all++
		}
	}
	figures.Log(t, "%d statements in a command: %d run, %d never do, %d are refused for what they would mean, %d fail when they are run",
		all, counts[runsBoth], counts[refusedBoth], counts[engineAlone], counts[serverLater])
}

// insideProcedure runs a statement as the engine's procedures do, and takes it back.
func (s *shop) insideProcedure(statement string) error {
	s.t.Helper()
	connection := s.connect(servers.PostgreSQL.Superuser)
	defer connection.Close(s.t.Context()) //nolint:errcheck // what was done in it is to go
	_, err := connection.PgConn().Exec(s.t.Context(), fmt.Sprintf(`BEGIN;
CREATE PROCEDURE %[1]s() LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$ BEGIN EXECUTE $text$%[2]s$text$; END $body$;
CALL %[1]s();
ROLLBACK`, ownProcedure, statement)).ReadAll()
	return err
}

// A caller may change very many settings. While a command runs, those that decide what
// a text means are what they were when its role was written.
func TestRunPinsSettings(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		forEngines(t, func(t *testing.T, engine lab.Login) {
			s := newShop(t)
			m := newMount(t)
			m.configure(s, engine)
			s.exec("SET ROLE shop_owner; CREATE TABLE ledger.settings (name text, value text); RESET ROLE")
			m.role("look", map[string]any{"action": "RUN", "resource": s.name, "run_as": owner,
				"command": "DELETE FROM ledger.settings; INSERT INTO ledger.settings SELECT name, current_setting(name) FROM pg_settings WHERE context = 'user'"})
			look := func(before ...string) map[string]string {
				minted := m.mint("look/JIRA-1")
				defer m.revoke(minted)
				session := s.connect(minted.login).PgConn()
				for _, setting := range before {
					if _, err := session.Exec(t.Context(), setting).ReadAll(); err != nil {
						t.Errorf("%s: %v", setting, err)
					}
				}
				if _, err := session.Exec(t.Context(), minted.command).ReadAll(); err != nil {
					t.Fatal(err)
				}
				return s.pairs("SELECT name, value FROM ledger.settings")
			}
			plain := look()
			var changes []string
			for name, value := range s.pairs(otherValues) {
				if value == "" { // it can have one value only
					continue
				}
				changes = append(changes, fmt.Sprintf("SET %s = '%s'", name, strings.ReplaceAll(value, "'", "''")))
			}
			slices.Sort(changes)
			var free []string
			for name, value := range look(changes...) {
				if plain[name] != value {
					free = append(free, name)
				}
			}
			slices.Sort(free)
			for _, name := range free {
				if category := s.text("SELECT category FROM pg_settings WHERE name = $1", name); !slices.ContainsFunc(unpinned, func(start string) bool { return strings.HasPrefix(category+"/"+name, start) }) {
					t.Errorf("%s (%s) is the caller's", name, category)
				}
			}
			if len(changes) < 100 || len(free) > len(changes)-25 {
				t.Errorf("%d settings were changed, and %d of them are the caller's", len(changes), len(free))
			}
			figures.Log(t, "%d settings changed by a caller: a command keeps %d of its own; the others decide how fast it is, what is logged and when it gives up", len(changes), len(changes)-len(free))
		})
	})
}

// unpinned are the settings that a caller may give a command other values of: by
// category, and one by one.
var unpinned = []string{
	"Query Tuning", "Resource Usage", "Reporting and Logging", "Developer Options", "Statistics", "Write-Ahead Log", "Replication", "Error Handling",
	"Connections and Authentication / Connection Settings", "Connections and Authentication / TCP Settings", "Vacuuming", "Client Connection Defaults / Shared Library Preloading",
	"Client Connection Defaults / Locale and Formatting/client_encoding",
	"Client Connection Defaults / Statement Behavior/client_min_messages", "Client Connection Defaults / Statement Behavior/statement_timeout",
	"Client Connection Defaults / Statement Behavior/lock_timeout", "Client Connection Defaults / Statement Behavior/idle_",
	"Client Connection Defaults / Statement Behavior/vacuum_", "Client Connection Defaults / Statement Behavior/gin_pending_list_limit",
	"Client Connection Defaults / Statement Behavior/temp_tablespaces", "Client Connection Defaults / Statement Behavior/default_transaction_",
}

// otherValues has for each setting that anybody may change a value that it has not.
const otherValues = `SELECT name, coalesce(CASE vartype
  WHEN 'bool' THEN CASE setting WHEN 'on' THEN 'off' ELSE 'on' END
  WHEN 'enum' THEN (SELECT v FROM unnest(enumvals) v WHERE v <> setting AND v NOT LIKE 'debug%' ORDER BY v LIMIT 1)
  WHEN 'string' THEN CASE name
    WHEN 'DateStyle' THEN 'German, DMY' WHEN 'TimeZone' THEN 'Pacific/Kiritimati' WHEN 'timezone_abbreviations' THEN 'India' WHEN 'default_text_search_config' THEN 'pg_catalog.german'
    WHEN 'client_encoding' THEN 'LATIN1' WHEN 'application_name' THEN 'other' WHEN 'search_path' THEN 'hidden' WHEN 'restrict_nonsystem_relation_kind' THEN 'view'
    WHEN 'temp_tablespaces' THEN 'pg_default' WHEN 'default_tablespace' THEN 'pg_default' WHEN 'plpgsql.extra_errors' THEN 'all' WHEN 'plpgsql.extra_warnings' THEN 'all'
    ELSE CASE WHEN name LIKE 'lc\_%' THEN 'POSIX' END END
  WHEN 'integer' THEN (CASE WHEN name LIKE '%timeout' THEN 3600000 WHEN name LIKE '%interval' THEN 60000 WHEN setting::numeric = min_val::numeric THEN min_val::numeric + 1 ELSE min_val::numeric END)::bigint::text
  ELSE (CASE WHEN setting::numeric = min_val::numeric THEN min_val::numeric + 1 ELSE min_val::numeric END)::text END, '') AS value
FROM pg_settings WHERE context = 'user' AND name NOT LIKE 'transaction\_%' AND name NOT IN ('debug_discard_caches', 'exit_on_error', 'local_preload_libraries', 'default_table_access_method')
  AND (vartype <> 'string' OR name ~ '^(lc_|DateStyle|TimeZone|timezone_abbreviations|default_text_search_config|client_encoding|application_name|search_path|restrict_|temp_tablespaces|default_tablespace|plpgsql)')`

// pairs are the rows of a query for two texts, as the superuser.
func (s *shop) pairs(query string) map[string]string {
	s.t.Helper()
	rows, err := s.super.Query(s.t.Context(), query)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	pairs := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			s.t.Fatal(err)
		}
		pairs[name] = value
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return pairs
}
