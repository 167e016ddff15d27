package postgresql

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testTarget(t *testing.T) *postgres {
	t.Helper()
	target, err := open(provider.Settings{fieldURL: "postgresql://{{username}}:{{password}}@db.example.com/shop", fieldUsername: "precision", fieldPassword: "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// asked is a role.
type asked struct {
	action, resource string
	companions       []string
	options          provider.Settings
	facts            provider.Facts
}

func (a asked) compile(t *testing.T, target *postgres) (provider.Policy, error) {
	t.Helper()
	definition, err := scope.Define(scope.Texts{Action: a.action, Resource: a.resource, Companions: a.companions})
	if err != nil {
		t.Fatal(err)
	}
	granted, err := definition.Fill(scope.Values{Task: "entries"})
	if err != nil {
		t.Fatal(err)
	}
	return target.Compile(granted, provider.Bounds{Options: a.options, Facts: a.facts, ExpiresAt: time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)})
}

var examples = map[string]asked{
	"select":         {action: "SELECT", resource: "ledger.entries"},
	"select-columns": {action: "SELECT", resource: `Ledger."Odd ""Table"(b, "A")`, options: provider.Settings{fieldLimit: 1}},
	"insert":         {action: "INSERT", resource: "ledger.entries", companions: []string{"ledger.entries_id_seq"}, options: provider.Settings{fieldKey: "id"}},
	"update":         {action: "UPDATE", resource: "ledger.entries(note)", options: provider.Settings{fieldKey: "id,account", provider.TolerateAmbient: []string{"b", "a", "b"}}},
	"delete":         {action: "DELETE", resource: "ledger.entries", options: provider.Settings{fieldWholeTable: true}},
	"execute":        {action: "EXECUTE", resource: "ledger.add(int, text)", facts: provider.Facts{factSignature: "ledger.add(integer,text)"}},
	"usage":          {action: "USAGE", resource: "ledger.numbers"},
	"run": {action: "RUN", resource: "shop", options: provider.Settings{fieldCommand: "DELETE FROM ledger.entries WHERE id < 10;\n", fieldRunAs: "shop_owner", fieldRunOnce: true},
		facts: provider.Facts{factSettings: `{"DateStyle":"ISO, MDY"}`}},
	"run-rows": {action: "RUN", resource: "shop/0042_count.sql", options: provider.Settings{
		fieldCommands: map[string]any{"0042_count.sql": "UPDATE ledger.entries SET note = ''; SELECT count(*) FROM ledger.entries;\n", "0043": "SELECT 2"},
		fieldRunAs:    "shop_owner", fieldSettings: map[string]string{"app.who": "it's the engine"},
	}, facts: provider.Facts{factSettings: `{"DateStyle":"ISO, MDY"}`}},
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for name, example := range examples {
		got, err := example.compile(t, testTarget(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(golden, []byte(got+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
		if _, err := readPolicy(got); err != nil {
			t.Errorf("%s: read back: %v", name, err)
		}
	}
}

// What Mint and Install are given is what Compile has written, or nothing is done.
func TestPoliciesThatAreNotOurs(t *testing.T) {
	t.Parallel()
	policy, err := examples["update"].compile(t, testTarget(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`GRANT UPDATE`, `GRANT DELETE`},
		{`"action": "UPDATE"`, `"action": "DELETE"`},
		{`"action": "UPDATE"`, `"action": "TRUNCATE"`},
		{`"ledger.entries(note)"`, `"ledger.entries"`},
		{`"ledger.entries(note)"`, `"ledger.entries(note); x"`},
		{`LOGIN CONNECTION`, `LOGIN SUPERUSER CONNECTION`},
		{`"connection_limit": 5`, `"connection_limit": 6`},
		{`"database": "shop"`, `"database": "other"`},
		{`"action"`, `"actions"`},
	} {
		changed := strings.Replace(string(policy), change[0], change[1], 1)
		if changed == string(policy) {
			t.Fatalf("nothing to change: %v", change)
		}
		if _, err := readPolicy(provider.Policy(changed)); err == nil {
			t.Errorf("read with %s", change[1])
		}
	}
}

// Logins share a holder where they have the same privileges, and only there.
func TestHolders(t *testing.T) {
	t.Parallel()
	const mount, ledger = "11111111-2222-3333-4444-555555555555", "ledger"
	target := testTarget(t)
	plan := func(a asked, mount, ledger string) string {
		t.Helper()
		policy, err := a.compile(t, target)
		if err != nil {
			t.Fatal(err)
		}
		holder := target.Plan(policy, mount, ledger)[handleHolder]
		if len(holder+textSuffix) > maxName || !strings.HasPrefix(holder, "precision_111111112222_h_") && mount == "11111111-2222-3333-4444-555555555555" {
			t.Errorf("the holder is named %s", holder)
		}
		return holder
	}
	changed := func(name, field string, value any) asked {
		a := examples[name]
		options := provider.Settings{field: value}
		for other, has := range a.options {
			if other != field {
				options[other] = has
			}
		}
		a.options = options
		return a
	}
	update := plan(examples["update"], mount, ledger)
	for name, other := range map[string]asked{
		"what is tolerated":       changed("update", provider.TolerateAmbient, []string(nil)),
		"the number of sessions":  changed("update", fieldLimit, 7),
		"the order of the key":    changed("update", fieldKey, "account, id"),
		"how the name is written": {action: "UPDATE", resource: `"ledger".Entries( note )`, options: examples["update"].options},
	} {
		if got := plan(other, mount, ledger); got != update {
			t.Errorf("%s makes another holder", name)
		}
	}
	run := plan(examples["run"], mount, ledger)
	seen := map[string]string{update: "itself", run: "the command"}
	for name, got := range map[string]string{
		"the key":       plan(changed("update", fieldKey, "id"), mount, ledger),
		"the columns":   plan(asked{action: "UPDATE", resource: "ledger.entries", options: examples["update"].options}, mount, ledger),
		"the mount":     plan(examples["update"], "99999999-2222-3333-4444-555555555555", ledger),
		"the ledger":    plan(examples["update"], mount, "other"),
		"the text":      plan(changed("run", fieldCommand, "DELETE FROM ledger.entries"), mount, ledger),
		"run_as":        plan(changed("run", fieldRunAs, "other_owner"), mount, ledger),
		"run_once":      plan(changed("run", fieldRunOnce, false), mount, ledger),
		"the path":      plan(changed("run", fieldSearchPath, []string{"ledger"}), mount, ledger),
		"the settings":  plan(asked{action: "RUN", resource: "shop", options: examples["run"].options, facts: provider.Facts{factSettings: `{"DateStyle":"ISO, DMY"}`}}, mount, ledger),
		"another table": plan(asked{action: "UPDATE", resource: "ledger.accounts(note)", options: examples["update"].options}, mount, ledger),
	} {
		if same, taken := seen[got]; taken {
			t.Errorf("%s makes the same holder as %s", name, same)
		}
		seen[got] = name
	}
}

func TestRolesThatAreRefused(t *testing.T) {
	t.Parallel()
	target := testTarget(t)
	run := func(field string, value any) provider.Settings {
		options := provider.Settings{fieldCommand: "SELECT 1", fieldRunAs: "shop_owner"}
		options[field] = value
		return options
	}
	for name, test := range map[string]struct {
		asked asked
		field string
	}{
		"an unknown action":         {asked{action: "TRUNCATE", resource: "ledger.entries"}, "action"},
		"all actions":               {asked{action: "ALL", resource: "ledger.entries"}, "action"},
		"a small action":            {asked{action: "select", resource: "ledger.entries"}, "action"},
		"a parameter":               {asked{action: "SELECT", resource: "ledger.{{task}}"}, "resource"},
		"no schema":                 {asked{action: "SELECT", resource: "entries"}, "resource"},
		"columns to delete":         {asked{action: "DELETE", resource: "ledger.entries(id)", options: provider.Settings{fieldKey: "id"}}, "resource"},
		"UPDATE without a key":      {asked{action: "UPDATE", resource: "ledger.entries"}, fieldKey},
		"UPDATE with both":          {asked{action: "UPDATE", resource: "ledger.entries", options: provider.Settings{fieldKey: "id", fieldWholeTable: true}}, fieldWholeTable},
		"SELECT with a key":         {asked{action: "SELECT", resource: "ledger.entries", options: provider.Settings{fieldKey: "id"}}, fieldKey},
		"a key that is none":        {asked{action: "DELETE", resource: "ledger.entries", options: provider.Settings{fieldKey: "id;"}}, fieldKey},
		"a companion of SELECT":     {asked{action: "SELECT", resource: "ledger.entries", companions: []string{"ledger.numbers"}}, "companion_resources"},
		"a companion with columns":  {asked{action: "INSERT", resource: "ledger.entries", companions: []string{"ledger.numbers(a)"}}, "companion_resources"},
		"EXECUTE without types":     {asked{action: "EXECUTE", resource: "ledger.add"}, "resource"},
		"no connections":            {asked{action: "SELECT", resource: "ledger.entries", options: provider.Settings{fieldLimit: 0}}, fieldLimit},
		"many connections":          {asked{action: "SELECT", resource: "ledger.entries", options: provider.Settings{fieldLimit: mostLimit + 1}}, fieldLimit},
		"another database":          {asked{action: "RUN", resource: "other", options: run(fieldRunOnce, true)}, "resource"},
		"no command":                {asked{action: "RUN", resource: "shop", options: run(fieldCommand, " \n")}, fieldCommand},
		"a long command":            {asked{action: "RUN", resource: "shop", options: run(fieldCommand, "SELECT 1"+strings.Repeat(" ", maxCommand))}, fieldCommand},
		"a command that ends early": {asked{action: "RUN", resource: "shop", options: run(fieldCommand, "COMMIT")}, fieldCommand},
		"no run_as":                 {asked{action: "RUN", resource: "shop", options: run(fieldRunAs, "")}, fieldRunAs},
		"a role of the server's":    {asked{action: "RUN", resource: "shop", options: run(fieldRunAs, "pg_write_all_data")}, fieldRunAs},
		"a command for SELECT":      {asked{action: "SELECT", resource: "ledger.entries", options: run(fieldRunOnce, true)}, fieldCommand},
	} {
		_, err := test.asked.compile(t, target)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != test.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, facts := range map[string]provider.Facts{"none": nil, "of another": {factSignature: "ledger.wipe()"}, "of a longer name": {factSignature: "ledger.addx(integer,text)"}} {
		unasked := examples["execute"]
		unasked.facts = facts
		if policy, err := unasked.compile(t, target); err == nil {
			t.Errorf("facts %s: compiled to %s", name, policy)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	target := testTarget(t)
	for _, test := range []struct {
		role, action, resource string
		allowed                bool
	}{
		{"select", "SELECT", "ledger.entries", true},
		{"select", "SELECT", "ledger.entries(card)", true},
		{"select", "SELECT", "ledger.accounts", false},
		{"select", "INSERT", "ledger.entries", false},
		{"select", "RUN", "shop", false},
		{"update", "UPDATE", "ledger.entries(note)", true},
		{"update", "UPDATE", "ledger.entries(id)", false},
		{"update", "UPDATE", "ledger.entries", false},
		{"update", "SELECT", "ledger.entries(id,account)", true},
		{"update", "SELECT", "ledger.entries(id,note)", false},
		{"update", "SELECT", "ledger.entries", false},
		{"delete", "DELETE", "ledger.entries", true},
		{"delete", "SELECT", "ledger.entries(id)", false},
		{"insert", "USAGE", "ledger.entries_id_seq", true},
		{"insert", "USAGE", "ledger.numbers", false},
		{"execute", "EXECUTE", "ledger.add(integer, text)", true},
		{"execute", "EXECUTE", "ledger.wipe()", false},
		{"usage", "EXECUTE", "ledger.numbers()", false},
		{"run", "RUN", "shop", true},
		{"run", "RUN", "other", false},
		{"run", "DELETE", "ledger.entries", false},
	} {
		policy, err := examples[test.role].compile(t, target)
		if err != nil {
			t.Fatal(err)
		}
		got, err := target.Check(policy, provider.Question{Action: test.action, Resource: test.resource})
		if err != nil || got.Allowed != test.allowed || (got.Clause != "") != test.allowed || got.Reason == "" {
			t.Errorf("%s: %s on %s: %+v %v", test.role, test.action, test.resource, got, err)
		}
	}
	policy, err := examples["execute"].compile(t, target)
	if err != nil {
		t.Fatal(err)
	}
	for _, question := range []provider.Question{
		{Action: "EXECUTE", Resource: "ledger.add(int, text)"}, // may be the same
		{Action: "TRUNCATE", Resource: "ledger.entries"},
		{Action: "SELECT", Resource: "entries"},
		{Action: "SELECT", Resource: "ledger.entries", ResourcePolicy: "{}"},
		{Action: "SELECT", Resource: "ledger.entries", Context: map[string][]string{"a": {"b"}}},
	} {
		if verdict, err := target.Check(policy, question); !errors.As(err, new(*invalid.Error)) {
			t.Errorf("%v: %+v %v", question, verdict, err)
		}
	}
}
