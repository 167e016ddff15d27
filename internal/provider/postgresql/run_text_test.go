package postgresql

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rows of a last statement are the caller's; all before it is run as one text.
func TestLastQuery(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"SELECT 1":                             {"", "SELECT 1"},
		"  SELECT 1 ; -- done":                 {"", "SELECT 1"},
		"UPDATE t SET a = 1; SELECT a FROM t;": {"UPDATE t SET a = 1; ", "SELECT a FROM t"},
		"(SELECT 1) UNION (SELECT 2)":          {"", "(SELECT 1) UNION (SELECT 2)"},
		"VALUES (1)":                           {"", "VALUES (1)"},
		"TABLE t":                              {"", "TABLE t"},
		"SHOW work_mem":                        {"", "SHOW work_mem"},
		"UPDATE t SET a = 1 RETURNING a":       {"", "UPDATE t SET a = 1 RETURNING a"},
		"INSERT INTO t SELECT 1 RETURNING *":   {"", "INSERT INTO t SELECT 1 RETURNING *"},
		"WITH a AS (SELECT 1) SELECT * FROM a": {"", "WITH a AS (SELECT 1) SELECT * FROM a"},
		"WITH RECURSIVE a(n) AS (SELECT 1 UNION SELECT n FROM a) TABLE a": {"",
			"WITH RECURSIVE a(n) AS (SELECT 1 UNION SELECT n FROM a) TABLE a"},
		"WITH a AS (DELETE FROM t RETURNING *) SELECT count(*) FROM a": {"",
			"WITH a AS (DELETE FROM t RETURNING *) SELECT count(*) FROM a"},
		"WITH select AS (SELECT 1) UPDATE t SET a = 1":                        {},
		"WITH a AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM a": {},
		"WITH a AS (SELECT 1) DELETE FROM t USING a RETURNING t.id": {"",
			"WITH a AS (SELECT 1) DELETE FROM t USING a RETURNING t.id"},
		"INSERT INTO t (SELECT 1)": {},
		"UPDATE t SET a = (WITH x AS (UPDATE u SET b = 1 RETURNING b) SELECT b FROM x)": {},
		"DO $$ BEGIN PERFORM 1; END $$": {},
		"SELECT 1; UPDATE t SET a = 1":  {},
		"CREATE TABLE t AS SELECT 1":    {},
		"SELECT 'a":                     {},
		"":                              {},
	} {
		if before, last := lastQuery(text); before != want[0] || last != want[1] {
			t.Errorf("%s: %q and %q", text, before, last)
		}
	}
}

// A migration and what takes it back are one file, and the engine would run both.
func TestBothHalves(t *testing.T) {
	t.Parallel()
	const up, down = "ALTER TABLE app.t ADD COLUMN b int;\n", "\nALTER TABLE app.t DROP COLUMN b;\n"
	for _, line := range []string{
		"-- +goose Down", "--+goose down", "  -- +goose  Down", "-- +migrate Down", "-- +migrate Down notransaction", "-- migrate:down", "--migrate:down transaction:false",
		"--//@UNDO", "-- //@UNDO", "-- //@undo", "---- create above / drop below ----", "-- Down Migration", "-- rambler down", "-- !Downs", "--- !Downs",
		"--\t+GOOSE\tDOWN", "\t--+goose Down\t", "\f-- +goose Down", "--\u00a0+goose\u00a0Down", "-- @UNDO", "-----create above / drop below ----", "--MIGRATE:DOWN",
	} {
		err := checkCommand("command", "-- +goose Up\n"+up+line+down)
		if err == nil || !strings.Contains(err.Error(), "both halves") || !strings.Contains(err.Error(),
			strconv.Quote(strings.TrimSpace(line))) {
			t.Errorf("%s: %v", line, err)
		}
		for _, end := range []string{"\r", "\r\n"} {
			if err := checkCommand("command", strings.ReplaceAll("-- +goose Up\n"+up+line+down, "\n", end)); err == nil {
				t.Errorf("%q with lines that end with %q is not refused", line, end)
			}
		}
		for _, text := range []string{up + line, up + line + "\n-- nothing\n", up + line + "\n;\n"} {
			if err := checkCommand("command", text); err != nil {
				t.Errorf("%q takes nothing back: %v", text, err)
			}
		}
		if err := checkCommand("command", line+down); err == nil {
			t.Errorf("%s: the other half alone is not refused", line)
		}
	}
	for _, text := range []string{"-- migrate:up\n" + up,
		"-- +goose Up\n-- +goose StatementBegin\n" + up + "-- +goose StatementEnd\n", "-- scale it down\n" + up, "-- +goosedown\n" + up, "COMMENT ON TABLE app.t IS '-- migrate:down'"} {
		if err := checkCommand("command", text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A transaction command in a DO block fails when it is run; other words do not.
func TestCommitsInBlocks(t *testing.T) {
	t.Parallel()
	for body, refused := range map[string]bool{
		"BEGIN COMMIT; END": true, "BEGIN UPDATE app.t SET a = 1; COMMIT; END": true, "BEGIN IF true THEN ROLLBACK; END IF; END": true,
		"BEGIN FOR i IN 1..2 LOOP COMMIT AND CHAIN; END LOOP; END": true, "BEGIN <<l>> COMMIT; END": true, "BEGIN PERFORM 1; EXCEPTION WHEN OTHERS THEN ROLLBACK; END": true,
		"BEGIN PERFORM 'commit;'; END": false, "DECLARE commit int; BEGIN commit := 1; END": false, "BEGIN /* COMMIT; */ END": false, "BEGIN PERFORM commit FROM app.t; END": false,
	} {
		if err := checkCommand("command", "DO $do$ "+body+" $do$"); (err != nil) != refused {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// names reads the one statement of a text.
func one(t *testing.T, text string) statement {
	t.Helper()
	tokens, err := lex(text)
	if err != nil {
		t.Fatal(err)
	}
	return split(tokens)[0]
}

func TestUnqualifiedNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		creates string
		targets []string
		reads   []string
	}{
		"CREATE TABLE t (a int)":                           {creates: "t"},
		"CREATE TABLE IF NOT EXISTS s.t (a int)":           {},
		"CREATE UNLOGGED TABLE IF NOT EXISTS \"T\" ()":     {creates: "T"},
		"CREATE TEMP TABLE t (a int)":                      {},
		"CREATE OR REPLACE FUNCTION f() RETURNS int":       {creates: "f"},
		"CREATE MATERIALIZED VIEW v AS SELECT 1":           {creates: "v"},
		"CREATE TYPE s.mood AS ENUM ('a')":                 {},
		"CREATE UNIQUE INDEX i ON t (a)":                   {targets: []string{"t"}},
		"CREATE INDEX ON ONLY s.t (a)":                     {},
		"ALTER TABLE IF EXISTS ONLY t ADD COLUMN a int":    {targets: []string{"t"}},
		"DROP TABLE IF EXISTS a, s.b, c":                   {targets: []string{"a", "c"}},
		"UPDATE t SET a = 1 FROM u, s.v WHERE t.a = u.a":   {targets: []string{"t"}, reads: []string{"u"}},
		"INSERT INTO t SELECT 1 FROM u JOIN v USING (a)":   {targets: []string{"t"}, reads: []string{"u", "v"}},
		"SELECT 1 FROM generate_series(1, 2), s.t":         {},
		"SELECT a IS DISTINCT FROM b FROM s.t":             {},
		"ALTER TABLE s.t ADD FOREIGN KEY (a) REFERENCES u": {reads: []string{"u"}},
	} {
		got := one(t, text)
		if creates, targets, reads := got.creates(), got.targets(), got.reads(); creates != want.creates || !slices.Equal(targets,
			want.targets) || !slices.Equal(reads, want.reads) {
			t.Errorf("%s: creates %q, changes %q, reads %q", text, creates, targets, reads)
		}
	}
	if made := one(t,
		"WITH a AS (SELECT 1), b (x) AS MATERIALIZED (SELECT 2) SELECT 1 FROM users AS u, a, b").makes(); !slices.Equal(made, []string{"a",
		"b"}) {
		t.Errorf("its own queries are %q", made)
	}
}

func TestSettingsThatAreRead(t *testing.T) {
	t.Parallel()
	text := `SELECT current_setting('app.who'::text, true), CURRENT_SETTING ( E'App.Role' ), current_setting('work_mem'); SHOW app.x; SELECT set_config('app.y', 'a', true); SET LOCAL app.z TO 1`
	if got := settingsIn(settingRead, text); !slices.Equal(got, []string{"app.who", "app.role", "app.x"}) {
		t.Errorf("read: %q", got)
	}
	if got := settingsIn(settingSet, text); !slices.Equal(got, []string{"app.y", "app.z"}) {
		t.Errorf("set: %q", got)
	}
}

func TestCustomSettings(t *testing.T) {
	t.Parallel()
	got, err := customSettings(map[string]string{"App.Who": "it's"})
	if err != nil || got["app.who"] != "it's" || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	for _, wrong := range []map[string]string{{"work_mem": "1"}, {"app.": "1"}, {"app.a b": "1"}, {".a": "1"},
		{"app.a": "x\ny"}, {"app.a": strings.Repeat("x", 1025)}, {"app.a": "1", "APP.a": "2"}} {
		if got, err := customSettings(wrong); err == nil {
			t.Errorf("%v has become %v", wrong, got)
		}
	}
}

func TestCommandsByName(t *testing.T) {
	t.Parallel()
	run := asked{action: "RUN", resource: "shop/0042_add.sql", facts: examples["run"].facts,
		options: map[string]any{"run_as": "shop_owner",
			"commands": map[string]any{"0042_add.sql": "SELECT 1", "0043": "SELECT 2"}}}
	first, err := run.compile(t, testTarget(t))
	if err != nil || !strings.Contains(string(first),
		`"resource": "shop/0042_add.sql"`) || strings.Contains(string(first), "SELECT 2") {
		t.Errorf("%v: %s", err, first)
	}
	run.resource = "shop/0043"
	if second, err := run.compile(t, testTarget(t)); err != nil || first == second {
		t.Errorf("%v: %s", err, second)
	}
	for _, resource := range []string{"shop/0044", "shop", "shop/", "shop/0042_add.sql/0043", "shop/../0043"} {
		run.resource = resource
		if policy, err := run.compile(t, testTarget(t)); err == nil {
			t.Errorf("%s has become %s", resource, policy)
		}
	}
	run.resource = "shop/a"
	for _, commands := range []map[string]any{{"a": ""}, {"a": "SELECT 1", "b c": "SELECT 1"},
		{"a": "SELECT 1", "b": 7}, {"a": "SELECT 1", "b..c": "SELECT 1"}, {"a": "VACUUM"}} {
		run.options["commands"] = commands
		if policy, err := run.compile(t, testTarget(t)); err == nil {
			t.Errorf("%v has become %s", commands, policy)
		}
	}
}
