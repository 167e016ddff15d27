package postgresql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// cleaning is a command whose meaning hangs on settings: how a date is read, in which
// zone, what a comparison with NULL is, and which tables its names are.
const cleaning = `CREATE TABLE ledger.report (what text);
ALTER TABLE ledger.report ADD COLUMN day date;
INSERT INTO ledger.report SELECT 'left', '01/02/2026'::date FROM generate_series(1, 2);
DELETE FROM ledger.log WHERE at < '01/02/2026' OR at = NULL OR note = 'it''s $$ "over" \';
UPDATE ledger.log SET note = 'seen at ' || at::text || ' ' || (at AT TIME ZONE 'UTC')::text;`

const cleaningTables = `SET ROLE shop_owner; DROP TABLE IF EXISTS ledger.log, ledger.report;
CREATE TABLE ledger.log (id int PRIMARY KEY, at timestamptz, note text);
INSERT INTO ledger.log VALUES (1, '2026-01-01 12:00+00', 'a'), (2, '2026-01-15 12:00+00', 'b'), (3, '2026-02-01 00:30+00', 'c'), (4, NULL, 'd'), (5, '2026-03-01 00:00+00', 'it''s $$ "over" \'), (6, '2026-03-02 00:00+00', 'f');
RESET ROLE;`

const cleaned = `SELECT (SELECT string_agg(l::text, '|' ORDER BY id) FROM ledger.log l) || (SELECT string_agg(r::text, '|') FROM ledger.report r)`

// hostile are settings that a caller might have, so that a command would mean another.
var hostile = []string{
	"SET DateStyle = 'German, DMY'", "SET DateStyle = 'SQL, DMY'", "SET TimeZone = 'Pacific/Kiritimati'", "SET TimeZone = 'America/Los_Angeles'",
	"SET transform_null_equals = on", "SET IntervalStyle = 'iso_8601'", "SET search_path = hidden, ledger, public", "SET search_path = pg_temp",
	"SET standard_conforming_strings = off", "SET escape_string_warning = off; SET backslash_quote = on", "SET bytea_output = 'escape'", "SET extra_float_digits = -15",
	"SET default_transaction_isolation = 'serializable'", "SET default_transaction_read_only = on", "SET default_transaction_deferrable = on",
	"SET constraint_exclusion = on", "SET plan_cache_mode = force_generic_plan", "SET row_security = off", "SET xmloption = document", "SET default_table_access_method = heap",
	"SET default_toast_compression = pglz", "SET synchronous_commit = off", "SET check_function_bodies = off", "SET array_nulls = off", "SET quote_all_identifiers = on",
	"SET lc_numeric = 'C'; SET lc_time = 'C'; SET lc_monetary = 'C'", "SET statement_timeout = 0; SET lock_timeout = 0", "SET client_encoding = 'LATIN1'", "SET session_replication_role = replica",
	"SET plpgsql.variable_conflict = use_column", "SET plpgsql.extra_errors = 'all'", "SET lo_compat_privileges = on", "SET default_tablespace = pg_global", "SET local_preload_libraries = ''",
}

// A predefined command means what it meant when its role was written, whatever its
// caller has set before.
func TestRunUnderHostileSettings(t *testing.T) {
	asEngine(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, engine)
		m.role("clean", map[string]any{"action": "RUN", "resource": s.name, "command": cleaning, "run_as": owner})
		run := func(settings string) string {
			s.exec(cleaningTables)
			minted := m.mint("clean/JIRA-1")
			defer m.revoke(minted)
			session := s.connect(minted.login).PgConn()
			for setting := range strings.SplitSeq(settings, "; ") {
				_, _ = session.Exec(t.Context(), setting).ReadAll() // not all may be set
			}
			if _, err := session.Exec(t.Context(), minted.command).ReadAll(); err != nil {
				t.Fatalf("after %q: %v", settings, err)
			}
			return s.text(cleaned)
		}
		s.exec(cleaningTables + "SET ROLE shop_owner; " + cleaning + " RESET ROLE")
		want := s.text(cleaned)
		if got := run(""); got != want {
			t.Fatalf("it has left %s, want %s", got, want)
		}
		for _, settings := range append(hostile, strings.Join(hostile, "; ")) {
			if got := run(settings); got != want {
				t.Errorf("after %q it has left %s, want %s", settings, got, want)
			}
		}
		figures.Log(t, "a command under %d hostile settings, and under all of them: the same rows", len(hostile))
	})
}

// runs is a shop with a role that closes the month.
func runs(t *testing.T, engine lab.Login, more ...any) (*shop, *mount) {
	t.Helper()
	s := newShop(t)
	m := newMount(t)
	m.configure(s, engine)
	fields := map[string]any{"action": "RUN", "resource": s.name, "command": month, "run_as": owner}
	for i := 0; i < len(more); i += 2 {
		fields[more[i].(string)] = more[i+1]
	}
	m.role("run", fields)
	return s, m
}

// ran says whether the command has run since it was last asked.
func (s *shop) ran() bool {
	s.t.Helper()
	defer s.exec("UPDATE ledger.accounts SET owner = 'nobody'")
	return s.text("SELECT count(*) FROM ledger.accounts WHERE owner = 'run'") != "0"
}

// What has been called can't be taken back by its caller, nor held open, nor be made
// part of something else: where it can't end by itself, it does not begin.
func TestRunInsideOfSomething(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s, m := runs(t, engine)
		minted := m.mint("run/JIRA-1")
		name := strings.TrimSuffix(strings.TrimPrefix(minted.command, "CALL "), "()")
		inside := []string{
			"BEGIN; %s; ROLLBACK", "BEGIN; %s; COMMIT", "BEGIN; SAVEPOINT s; %s; ROLLBACK TO s; COMMIT", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE; %s; COMMIT",
			"DO $do$ BEGIN EXECUTE '%s'; RAISE EXCEPTION 'undone'; END $do$", "DO $do$ BEGIN %s; EXCEPTION WHEN OTHERS THEN NULL; END $do$",
			"SELECT 1; %s; SELECT 1 / 0", "PREPARE TRANSACTION 'x'; %s",
			"SET LOCAL statement_timeout = 1; %s; SELECT 1 / 0",
		}
		for _, text := range inside {
			session := s.connect(minted.login).PgConn()
			_, err := session.Exec(t.Context(), fmt.Sprintf(text, minted.command)).ReadAll()
			_ = session.Close(t.Context())
			if s.ran() && err == nil {
				t.Errorf("%q has run, and nothing says that it was not its caller's to decide", text)
			}
		}
		for _, suffix := range []string{"_text", "_once", ""} {
			for _, text := range []string{"BEGIN; CALL %s()", "SELECT %s()", "DO $do$ BEGIN CALL %s(); END $do$"} {
				session := s.connect(minted.login).PgConn()
				_, _ = session.Exec(t.Context(), fmt.Sprintf(text, quotedSuffix(name, suffix))+"; ROLLBACK").ReadAll()
				_ = session.Close(t.Context())
				if s.ran() {
					t.Errorf("%q of %q has run", text, suffix)
				}
			}
		}
		// Rolled back by its caller, it must not have gone: it has not run, or it stays.
		open := s.connect(minted.login)
		if _, err := open.Exec(t.Context(), minted.command); err != nil || !s.ran() {
			t.Errorf("by itself it does not run: %v", err)
		}
		m.revoke(minted)
		figures.Log(t, "a command inside of %d transactions and blocks", len(inside)+9)
	})
}

// quotedSuffix adds to the last part of a qualified name.
func quotedSuffix(name, suffix string) string {
	if rest, quoted := strings.CutSuffix(name, `"`); quoted {
		return rest + suffix + `"`
	}
	return name + suffix
}

// With run_once a credential runs its command once, and without as often as it likes.
func TestRunOnce(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s, m := runs(t, engine, "run_once", true)
		for range 2 {
			minted := m.mint("run/JIRA-1")
			for at, session := range []int{0, 0, 1} {
				connection := s.connect(minted.login)
				_, err := connection.Exec(t.Context(), minted.command)
				if ran := s.ran(); ran != (at == 0) || (err == nil) != ran {
					t.Errorf("call %d, in session %d: ran is %v, the answer %v", at, session, ran, err)
				}
			}
			m.revoke(minted)
		}
		// Two sessions at once are one too many.
		minted := m.mint("run/JIRA-2")
		s.exec("BEGIN; LOCK TABLE ledger.accounts")
		answers := make(chan error)
		for range 2 {
			connection := s.connect(minted.login)
			go func() {
				_, err := connection.Exec(t.Context(), minted.command)
				answers <- err
			}()
		}
		time.Sleep(200 * time.Millisecond)
		s.exec("COMMIT")
		first, second := <-answers, <-answers
		if (first == nil) == (second == nil) || !s.ran() {
			t.Errorf("two at once: %v and %v", first, second)
		}
		m.revoke(minted)
	})
}

func TestRunTwiceWhereItMay(t *testing.T) {
	s, m := runs(t, servers.PostgreSQL.Engine)
	minted := m.mint("run/JIRA-1")
	connection := s.connect(minted.login)
	for range 2 {
		if _, err := connection.Exec(t.Context(), minted.command); err != nil || !s.ran() {
			t.Errorf("it does not run: %v", err)
		}
	}
	m.revoke(minted)
}

// A session that outlives its credential's time can't run the command any more.
func TestRunAfterExpiry(t *testing.T) {
	asEngine(t, func(t *testing.T, engine lab.Login) {
		s, m := runs(t, engine)
		minted := m.mint("run/JIRA-1")
		connection := s.connect(minted.login)
		if _, err := connection.Exec(t.Context(), minted.command); err != nil || !s.ran() {
			t.Fatalf("it does not run: %v", err)
		}
		s.exec(fmt.Sprintf("ALTER ROLE %s VALID UNTIL '%s'", minted.login.Name, time.Now().Add(-time.Second).UTC().Format(time.RFC3339)))
		if _, err := connection.Exec(t.Context(), minted.command); err == nil || s.ran() {
			t.Errorf("it runs after its time: %v", err)
		}
		m.revoke(minted)
	})
}

// tampering is what somebody with rights over the database might do to a command.
var tampering = map[string]string{
	"another text":               "EXECUTE replace(pg_get_functiondef(p.name::oid), 'ledger.accounts', 'ledger.events')",
	"another owner":              "EXECUTE format('ALTER PROCEDURE %s OWNER TO postgres', p.name)",
	"the caller's rights":        "EXECUTE format('ALTER PROCEDURE %s SECURITY INVOKER', p.name)",
	"its owner's rights":         "EXECUTE format('ALTER PROCEDURE %s SECURITY DEFINER', p.name)",
	"another search_path":        "EXECUTE format('ALTER PROCEDURE %s SET search_path = hidden', p.name)",
	"a setting":                  "EXECUTE format('ALTER PROCEDURE %s SET transform_null_equals = on', p.name)",
	"no settings":                "EXECUTE format('ALTER PROCEDURE %s RESET ALL', p.name)",
	"everybody's":                "EXECUTE format('GRANT EXECUTE ON PROCEDURE %s TO PUBLIC', p.name)",
	"somebody's":                 "EXECUTE format('GRANT EXECUTE ON PROCEDURE %s TO shop_app', p.name)",
	"gone":                       "EXECUTE format('DROP PROCEDURE %s', p.name)",
	"a schema to put more in":    "GRANT CREATE ON SCHEMA precision TO PUBLIC",
	"a superuser to run it as":   "ALTER ROLE shop_owner SUPERUSER",
	"a holder that can do more":  "EXECUTE format('GRANT SELECT ON ledger.entries TO %I', p.holder)",
	"a holder of more than that": "EXECUTE format('GRANT shop_owner TO %I', p.holder)",
}

// What is installed is what the role says, or nothing is minted until the role is
// written again: somebody who changes it does not change what a credential runs. What
// is missing, and what a holder has too much, a mint puts right.
func TestRunOfWhatWasChanged(t *testing.T) {
	s, m := runs(t, servers.PostgreSQL.Engine)
	again := map[string]any{"action": "RUN", "resource": s.name, "command": month, "run_as": owner}
	for what, statement := range tampering {
		s.exec(`DO $do$ DECLARE p record; BEGIN
			FOR p IN SELECT f.oid::regprocedure AS name, h.rolname AS holder FROM pg_proc f JOIN pg_roles h ON starts_with(f.proname, h.rolname) AND NOT h.rolcanlogin WHERE f.pronamespace = 'precision'::regnamespace LOOP
				` + statement + `;
			END LOOP; END $do$`)
		minted, err := m.tryMint("run/JIRA-1")
		switch {
		case err == nil && (what == "gone" || strings.HasPrefix(what, "a holder")): // which is put right
			_, err := s.connect(minted.login).Exec(t.Context(), "SELECT card FROM ledger.entries")
			denied(t, "what somebody has given its holder", err)
			if _, err := s.connect(minted.login).Exec(t.Context(), minted.command); err != nil || !s.ran() {
				t.Errorf("%s: the command does not run: %v", what, err)
			}
			m.revoke(minted)
		case err == nil:
			t.Errorf("%s: a credential is minted", what)
			m.revoke(minted)
		default:
			refusal(t, err)
		}
		s.exec("ALTER ROLE shop_owner NOSUPERUSER; REVOKE CREATE ON SCHEMA precision FROM PUBLIC; REVOKE ALL ON ALL PROCEDURES IN SCHEMA precision FROM PUBLIC")
		m.role("run", again)
		minted = m.mint("run/JIRA-2")
		if _, err := s.connect(minted.login).Exec(t.Context(), minted.command); err != nil || !s.ran() {
			t.Errorf("%s: once the role is written again it does not run: %v", what, err)
		}
		m.revoke(minted)
		if rows := s.text("SELECT count(*) FROM ledger.events WHERE what LIKE 'event-marker%'"); rows != "3" {
			t.Errorf("%s: the changed command has run: %s rows are as they were", what, rows)
		}
	}
	figures.Log(t, "a command changed in %d ways: nothing minted for what is not the role's", len(tampering))
}

// What can't be run as one predefined command is refused when the role is written.
func TestRunRefuses(t *testing.T) {
	s, m := runs(t, servers.PostgreSQL.Engine)
	s.exec(`DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'a_superuser') THEN CREATE ROLE a_superuser SUPERUSER; END IF; END $$`)
	run := map[string]any{"action": "RUN", "resource": s.name, "command": month, "run_as": owner}
	refused := 0
	for _, c := range []struct {
		field string
		value any
		parts []string
	}{
		{"command", "VACUUM ledger.entries", []string{"VACUUM"}},
		{"command", "CREATE INDEX CONCURRENTLY i ON ledger.entries (note)", []string{"CONCURRENTLY"}},
		{"command", "DROP INDEX CONCURRENTLY ledger.i", []string{"CONCURRENTLY"}},
		{"command", "REINDEX DATABASE x", []string{"REINDEX"}},
		{"command", "CREATE DATABASE x", []string{"CREATE DATABASE"}},
		{"command", "ALTER SYSTEM SET work_mem = '1MB'", []string{"ALTER SYSTEM"}},
		{"command", "BEGIN; " + month + "; COMMIT", []string{"BEGIN"}},
		{"command", month + "; COMMIT", []string{"COMMIT"}},
		{"command", month + "; ROLLBACK; " + month, []string{"ROLLBACK"}},
		{"command", "/* c */ Vacuum -- x\n ledger.entries", []string{"VACUUM"}},
		{"command", "COPY ledger.entries FROM STDIN", []string{"COPY"}},
		{"command", "SET ROLE shop_owner", []string{"SET ROLE"}},
		{"command", "SELECT 1 INTO TEMP x", []string{"INTO"}},
		{"command", "UPDATE ledger.accounts SETT owner = 1", []string{"syntax error"}},
		{"command", "SELECT 'unfinished", []string{"unterminated"}},
		{"command", "CREATE EVENT TRIGGER e9 ON ddl_command_start EXECUTE FUNCTION ledger.noted()", []string{"only a superuser makes an event trigger"}},
		{"settings", map[string]any{"work_mem": "1GB"}, []string{"SET it in the command"}},
		{"settings", map[string]any{"plpgsql.variable_conflict": "use_column"}, []string{"a setting that the server knows"}},
		{"settings", map[string]any{"plpgsql.mine": "x"}, []string{"the server does not take it"}},
		{"settings", map[string]any{"app.user": "a\nb"}, []string{"control character"}},
		{"commands", map[string]any{"a.sql": month}, []string{"leave out one of the two"}},
		{"command", "", []string{"command"}},
		{"command", "   ", []string{"command"}},
		{"run_as", "nobody_at_all", []string{"no such role"}},
		{"run_as", "a_superuser", []string{"superuser", "allow_escalation"}},
		{"run_as", servers.PostgreSQL.Engine.Name, []string{"allow_escalation"}},
		{"run_as", "", []string{"run_as"}},
		{"resource", "postgres", []string{s.name}},
		{"resource", "ledger.entries", []string{"resource"}},
	} {
		_, err := m.tryRole("refused", with(run, c.field, c.value))
		if err == nil {
			t.Errorf("%s=%q is taken", c.field, c.value)
			continue
		}
		says(t, refusal(t, err), c.parts...)
		refused++
	}
	figures.Log(t, "%d roles that can't be one predefined command are refused", refused)
}

// With its role goes all that was installed for it.
func TestRoleDeleted(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s, m := runs(t, engine)
		m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
		left := func() string {
			return s.text(`SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'precision'::regnamespace) || ' procedures, ' ||
 (SELECT count(*) FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid OR d.classid = 'pg_database'::regclass AND d.objid = b.oid JOIN pg_roles r ON r.oid = d.refobjid AND d.refclassid = 'pg_authid'::regclass WHERE b.datname = current_database() AND r.rolname LIKE 'precision\_%' AND r.rolname <> ALL ($1)) || ' rights'`,
				[]string{servers.PostgreSQL.Engine.Name, servers.PostgreSQL.SuperEngine.Name})
		}
		minted := []credential{m.mint("run/JIRA-1"), m.mint("reads/JIRA-1")}
		for _, role := range []string{"run", "reads"} {
			if _, err := m.Logical().DeleteWithContext(t.Context(), m.path+"/roles/"+role); err != nil {
				t.Fatal(err)
			}
		}
		// What lives keeps what it hangs on.
		if _, err := s.connect(minted[0].login).Exec(t.Context(), minted[0].command); err != nil || !s.ran() {
			t.Errorf("a live credential lost its command with its role: %v", err)
		}
		for _, one := range minted {
			m.revoke(one)
		}
		m.write("tidy", nil)
		eventually(t, "what was installed is gone", 30*time.Second, func() bool { return left() == "0 procedures, 0 rights" })
	})
}
