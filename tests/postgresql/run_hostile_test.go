package postgresql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// staging is a command that takes a temporary table that is there.
const staging = "CREATE TEMP TABLE IF NOT EXISTS stage (id int, owner text); DELETE FROM stage; INSERT INTO stage VALUES (7400001, 'run'); UPDATE ledger.accounts a SET owner = s.owner FROM stage s WHERE s.id = a.id"

// temporaryTraps are what a caller leaves in his session, so that something of his runs as
// the command's role or takes the place of something else.
var temporaryTraps = []string{
	`CREATE FUNCTION pg_temp.trap() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM set_config('trap.loot', (SELECT string_agg(card, ',') FROM ledger.entries), false); RETURN NULL; END $f$;
CREATE TEMP TABLE stage (id int, owner text); GRANT ALL ON stage TO PUBLIC; CREATE TRIGGER trap BEFORE INSERT ON stage FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.trap()`,
	`CREATE TEMP TABLE stage (id int, owner text); GRANT ALL ON stage TO PUBLIC`,
	`CREATE TEMP TABLE below (id int, owner text); CREATE TEMP VIEW stage AS SELECT * FROM below; GRANT ALL ON stage, below TO PUBLIC`,
	`CREATE FUNCTION pg_temp.loot() RETURNS text LANGUAGE sql AS 'SELECT 1::text'`,
	`CREATE TEMP SEQUENCE stage`,
	`CREATE TYPE pg_temp.stage AS (id int, owner text)`,
	`CREATE DOMAIN pg_temp.int4 AS text`,
	`CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)`,
	`CREATE TEMP TABLE other (id int)`,
}

// A session that has temporary objects of its caller's does not run a command: what the
// command names could be those.
func TestRunWithTemporaryObjects(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		run := map[string]any{"action": "RUN", "resource": s.name, "command": staging, "run_as": owner,
			"tolerate_ambient": "TEMPORARY on database " + s.name}
		_, err := m.tryRole("stage", run)
		says(t, refusal(t, err), "GRANT TEMPORARY ON DATABASE "+s.name+" TO shop_owner")
		s.exec("GRANT TEMPORARY ON DATABASE " + s.name + " TO shop_owner, PUBLIC")
		says(t, strings.Join(m.role("stage", run), "\n"), "in a session that has none of the caller's own")
		minted := m.mint("stage/JIRA-1")
		for _, trap := range temporaryTraps {
			session := s.connect(minted.login)
			if _, err := session.PgConn().Exec(t.Context(), trap).ReadAll(); err != nil {
				t.Fatalf("%s: %v", trap, err)
			}
			_, err := session.Exec(t.Context(), minted.command)
			if got := code(err); got != "55000" || s.ran() {
				t.Errorf("the command runs after %s: %v", trap, err)
			}
			var loot string
			if err := session.QueryRow(t.Context(),
				"SELECT coalesce(current_setting('trap.loot', true), '')").Scan(&loot); err != nil || loot != "" {
				t.Errorf("after %s the caller has %q: %v", trap, loot, err)
			}
			_ = session.Close(t.Context())
		}
		// What the command leaves is no trap: its caller can't change it.
		session := s.connect(minted.login)
		for range 2 {
			if _, err := session.Exec(t.Context(), minted.command); err != nil || !s.ran() {
				t.Errorf("the command does not run twice in a session: %v", err)
			}
			for _, statement := range []string{
				"CREATE TRIGGER t BEFORE INSERT ON pg_temp.stage FOR EACH STATEMENT EXECUTE FUNCTION ledger.noted()", "INSERT INTO pg_temp.stage VALUES (1, 'x')",
				"ALTER TABLE pg_temp.stage ADD COLUMN x int", "CREATE RULE r AS ON INSERT TO pg_temp.stage DO INSTEAD NOTHING", "DROP TABLE pg_temp.stage",
			} {
				_, err := session.Exec(t.Context(), statement)
				denied(t, statement, err)
			}
		}
		m.revoke(minted)
		figures.Log(t, "%d traps of temporary objects before a command: none runs", len(temporaryTraps))
	})
}

// What a command draws at random is not its caller's choice, before it or after it.
func TestRunSeed(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("draw",
			map[string]any{"action": "RUN", "resource": s.name, "run_as": owner,
				"command": "SELECT random() AS first, random() AS second"})
		minted := m.mint("draw/JIRA-1")
		drawn := map[float64]bool{}
		const times = 5
		for range times {
			session := s.connect(minted.login)
			if _, err := session.Exec(t.Context(), "SELECT setseed(0.25)"); err != nil {
				t.Fatal(err)
			}
			var chosen [3]float64
			if err := session.QueryRow(t.Context(),
				"SELECT random(), random(), random() FROM setseed(0.25)").Scan(&chosen[0], &chosen[1], &chosen[2]); err != nil {
				t.Fatal(err)
			}
			if _, err := session.Exec(t.Context(), "SELECT setseed(0.25)"); err != nil {
				t.Fatal(err)
			}
			var rows []struct{ First, Second float64 }
			s.answer(session, minted.command, &rows)
			var after float64
			if err := session.QueryRow(t.Context(), "SELECT random()").Scan(&after); err != nil {
				t.Fatal(err)
			}
			for _, value := range []float64{rows[0].First, rows[0].Second, after} {
				if drawn[value] || slices.Contains(chosen[:], value) {
					t.Errorf("%v was to be foreseen", value)
				}
				drawn[value] = true
			}
			_ = session.Close(t.Context())
		}
		m.revoke(minted)
		figures.Log(t, "%d runs after the same setseed: %d different numbers", times, len(drawn))
	})
}

// answer runs a command that returns rows.
func (s *shop) answer(session *pgx.Conn, command string, rows any) {
	s.t.Helper()
	var text string
	if err := session.QueryRow(s.t.Context(), command).Scan(&text); err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), rows); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
}

// trusting is what takes the word of a custom setting for who somebody is.
const trusting = `SET ROLE shop_owner;
CREATE FUNCTION ledger.tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant', true) $$;
CREATE FUNCTION ledger.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.by := current_setting('app.who', true); RETURN NEW; END $$;
CREATE TABLE ledger.journal (what text, by text DEFAULT current_setting('app.default', true), tenant text DEFAULT ledger.tenant());
CREATE TRIGGER stamp BEFORE INSERT ON ledger.journal FOR EACH ROW EXECUTE FUNCTION ledger.stamp();
CREATE POLICY mine ON ledger.journal USING (tenant = ledger.tenant() OR current_setting('app.policy', true) = 'all'); ALTER TABLE ledger.journal ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.journal FORCE ROW LEVEL SECURITY;
RESET ROLE`

// What a command, and what runs beside it, takes from a custom setting is the role's where
// the role says so; where it does not, a warning names the setting.
func TestRunCustomSettings(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		s.exec(trusting)
		run := map[string]any{"action": "RUN", "resource": s.name, "run_as": owner,
			"command": "INSERT INTO ledger.journal (what) VALUES (current_setting('app.text', true)); SELECT what, by, tenant FROM ledger.journal"}
		warnings := strings.Join(m.role("note", run), "\n")
		for _, name := range []string{"app.text, which the command reads",
			"app.who, which the trigger stamp of ledger.journal reads", "app.policy, which the policy mine of ledger.journal reads", "app.default, which a default of ledger.journal reads", "app.tenant, which function ledger.tenant() reads"} {
			if !strings.Contains(warnings, name) {
				t.Errorf("%q does not warn of %s", warnings, name)
			}
		}
		settings := map[string]any{"app.who": "it's \\ the engine", "app.Tenant": "a", "app.policy": "",
			"app.text": "pinned", "app.default": ""}
		if warnings := m.role("note", with(run, "settings", settings)); len(warnings) != 1 { // of the rows
			t.Errorf("all are pinned, and it warns: %q", warnings)
		}
		minted := m.mint("note/JIRA-1")
		session := s.connect(minted.login)
		const theirs = "SELECT set_config(name, 'the ceo', false) FROM unnest('{app.who,app.tenant,app.policy,app.text,app.default}'::text[]) name"
		if _, err := session.Exec(t.Context(), theirs); err != nil {
			t.Fatal(err)
		}
		var rows []struct{ What, By, Tenant string }
		s.answer(session, minted.command, &rows)
		if len(rows) != 1 || rows[0].What != "pinned" || rows[0].By != settings["app.who"] || rows[0].Tenant != "a" {
			t.Errorf("it has written %+v", rows)
		}
		var after string
		if err := session.QueryRow(t.Context(),
			"SELECT current_setting('app.who')").Scan(&after); err != nil || after != "the ceo" {
			t.Errorf("the caller's setting has become %q: %v", after, err)
		}
		m.revoke(minted)
		// Nobody can pin what the holder of a privilege sets.
		s.exec("GRANT ALL ON ledger.journal TO " + servers.PostgreSQL.Engine.Name + " WITH GRANT OPTION")
		says(t, strings.Join(m.role("insert", map[string]any{"action": "INSERT", "resource": "ledger.journal"}), "\n"),
			"the credential can set app.who, which the trigger stamp of ledger.journal reads")
		// What a command sets by itself needs no pin.
		if warnings := m.role("note",
			with(run, "command",
				"SELECT set_config('app.own', 'x', true); INSERT INTO ledger.events (what) VALUES (current_setting('app.own'))")); len(warnings) != 0 {
			t.Errorf("it sets its own, and it warns: %q", warnings)
		}
	})
}

// The rows of a command's last statement go to its caller, as run_as reads them; nothing
// else that the command has read does.
func TestRunRows(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		for _, once := range []bool{false, true} {
			for command, want := range map[string]string{
				"SELECT id, owner FROM ledger.accounts ORDER BY id LIMIT 2":        `[{"id":7400001,"owner":"owner-marker-1"},{"id":7400002,"owner":"owner-marker-2"}]`,
				"SELECT secret FROM hidden.safe; SELECT count(*) FROM hidden.safe": `[{"count":3}]`,
				"SELECT 1 AS a, 2 AS a, NULL AS b, 'x\"y' AS \"C d\"":              `[{"a":1,"a":2,"b":null,"C d":"x\"y"}]`,
				"SELECT 1 WHERE false":        `[]`,
				"VALUES ('2026-01-02'::date)": `[{"column1":"2026-01-02"}]`,
				"UPDATE ledger.accounts SET owner = owner WHERE id = 7400001 RETURNING id":                     `[{"id":7400001}]`,
				"WITH gone AS (DELETE FROM ledger.orders WHERE id = 1 RETURNING id) SELECT count(*) FROM gone": `[{"count":1}]`,
				"SHOW standard_conforming_strings":                                                             `[{"standard_conforming_strings":"on"}]`,
			} {
				if once {
					s.exec(shopContents)
				}
				says(t,
					strings.Join(m.role("rows",
						map[string]any{"action": "RUN", "resource": s.name, "command": command, "run_as": owner,
							"run_once": once}), "\n"), "the rows of its last statement go to the caller, as shop_owner reads them")
				minted := m.mint("rows/JIRA-1")
				session := s.connect(minted.login)
				var got string
				if err := session.QueryRow(t.Context(), minted.command).Scan(&got); err != nil {
					t.Errorf("%s: %v", command, err)
				} else if got != want && (!strings.Contains(command, "DELETE") || once) {
					t.Errorf("%s: %s, want %s", command, got, want)
				}
				if !once {
					for _, setting := range []string{"quote_all_identifiers = on", "plpgsql.extra_errors = 'all'", "search_path = pg_temp, public", "xmloption = document"} {
						other := s.connect(minted.login)
						if _, err := other.PgConn().Exec(t.Context(), "SET "+setting+"; RESET role").ReadAll(); err != nil {
							t.Fatal(err)
						}
						if err := other.QueryRow(t.Context(), minted.command).Scan(&got); err != nil || got == "" {
							t.Errorf("%s with %s: %v", command, setting, err)
						}
						_ = other.Close(t.Context())
					}
				}
				// What the caller gives as the argument is not what comes back.
				call := strings.TrimSuffix(minted.command, ")") + `'[{"forged":1}]')`
				if err := session.QueryRow(t.Context(), call).Scan(&got); (err == nil) == once || strings.Contains(got,
					"forged") {
					t.Errorf("%s: %s, %v", call, got, err)
				}
				inner := strings.TrimSuffix(strings.TrimPrefix(minted.command, "CALL "), "()")
				for _, statement := range []string{"CALL " + quotedSuffix(inner, "_text") + "(NULL)",
					"SELECT * FROM ledger.accounts", "FETCH ALL FROM answer", "SELECT secret FROM hidden.safe"} {
					if _, err := session.Exec(t.Context(), statement); err == nil {
						t.Errorf("%s works after %s", statement, command)
					}
				}
				var open string
				if err := session.QueryRow(t.Context(),
					"SELECT coalesce(string_agg(name, ','), '') FROM pg_cursors WHERE name <> ''").Scan(&open); err != nil || open != "" {
					t.Errorf("after %s cursors are open: %s, %v", command, open, err)
				}
				m.revoke(minted)
			}
		}
		m.runMany(s)
	})
}

// runMany runs a command with more rows than come back, which the caller is told.
func (m *mount) runMany(s *shop) {
	m.t.Helper()
	m.role("many",
		map[string]any{"action": "RUN", "resource": s.name, "command": "SELECT i FROM generate_series(1, 10001) i",
			"run_as": owner})
	minted := m.mint("many/JIRA-1")
	config, err := pgx.ParseConfig(servers.PostgreSQL.URL(minted.login, s.name))
	if err != nil {
		m.t.Fatal(err)
	}
	var told []string
	config.OnNotice = noticesInto(&told)
	session, err := pgx.ConnectConfig(m.t.Context(), config)
	if err != nil {
		m.t.Fatal(err)
	}
	defer session.Close(context.Background()) //nolint:errcheck // it is cut
	var rows []struct{ I int }
	s.answer(session, minted.command, &rows)
	if text := fmt.Sprint(told); len(rows) != 10_000 || rows[9_999].I != 10_000 || !strings.Contains(text,
		"of 10001 rows the first 10000 are returned") {
		m.t.Errorf("%d rows, and %s", len(rows), text)
	}
	m.revoke(minted)
}
