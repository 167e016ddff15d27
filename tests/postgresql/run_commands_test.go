package postgresql

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// directory is a role's commands, as CI would write them from a folder of files.
var directory = map[string]any{
	"0001_run.sql":    "UPDATE ledger.accounts SET owner = 'run'",
	"0002_count.sql":  "SELECT count(*) FROM ledger.accounts",
	"0003_events.sql": "UPDATE ledger.events SET what = 'run'",
}

// A role has commands by name. A credential is for the one that its reader has named: it
// runs that, and no other.
func TestCommandsByName(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		role := map[string]any{"action": "RUN", "resource": s.name, "commands": directory, "run_as": owner}
		says(t, strings.Join(m.role("migrate", role), "\n"),
			"0002_count.sql: the rows of its last statement go to the caller")
		first, second := m.mint("migrate/CHG-1", "command=0001_run.sql"), m.mint("migrate/CHG-1",
			"command=0003_events.sql")
		for of, other := range map[*credential]*credential{&first: &second, &second: &first} {
			session := s.connect(of.login)
			for _, suffix := range []string{"", "_text"} {
				_, err := session.Exec(t.Context(),
					"CALL "+quotedSuffix(strings.TrimSuffix(strings.TrimPrefix(other.command, "CALL "), "()"),
						suffix)+"()")
				denied(t, "another command", err)
			}
			if s.ran() || s.text("SELECT count(*) FROM ledger.events WHERE what = 'run'") != "0" {
				t.Error("a command has run that the credential is not for")
			}
		}
		if _, err := s.connect(first.login).Exec(t.Context(), first.command); err != nil || !s.ran() {
			t.Errorf("its own command does not run: %v", err)
		}
		m.namedEverywhere(s, first)
		// A role with another text leaves a credential what it was minted for.
		m.patch("roles/migrate",
			map[string]any{"commands": map[string]any{"0001_run.sql": "UPDATE ledger.events SET what = 'run'",
				"0002_count.sql": nil, "0004.sql": "SELECT 4"}})
		if _, err := s.connect(first.login).Exec(t.Context(), first.command); err != nil || !s.ran() {
			t.Errorf("after the role was written, its command does not run: %v", err)
		}
		for name, works := range map[string]bool{"0001_run.sql": true, "0002_count.sql": false, "0003_events.sql": true,
			"0004.sql": true} {
			minted, err := m.tryMint("migrate/CHG-2", "command="+name)
			if (err == nil) != works {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil {
				m.revoke(minted)
			}
		}
		m.revoke(first)
		m.revoke(second)
	})
}

func (m *mount) patch(path string, fields map[string]any) {
	m.t.Helper()
	if _, err := m.Logical().JSONMergePatch(m.t.Context(), m.path+"/"+path, fields); err != nil {
		m.t.Fatal(err)
	}
}

// namedEverywhere looks for the name of a credential's command wherever people look.
func (m *mount) namedEverywhere(s *shop, of credential) {
	t := m.t
	t.Helper()
	want := s.name + "/0001_run.sql"
	grant, err := m.Logical().ReadWithContext(t.Context(), m.path+"/grants/"+of.Data["grant_id"].(string))
	if err != nil || grant.Data["resource"] != want || of.Data["resource"] != want {
		t.Errorf("the grant is on %v, the answer on %v: %v", grant.Data["resource"], of.Data["resource"], err)
	}
	read := func(path string, query map[string][]string) *api.Secret {
		answer, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/"+path, query)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	preview := read("preview/migrate/CHG-1", map[string][]string{"command": {"0001_run.sql"}})
	if preview.Data["policy"] != of.Data["policy"] || !strings.Contains(fmt.Sprint(preview.Data["policy"]),
		`"name": "0001_run.sql"`) {
		t.Errorf("the preview is %v, and minted was %v", preview.Data["policy"], of.Data["policy"])
	}
	for resource, allowed := range map[string]bool{want: true, s.name: false, s.name + "/0003_events.sql": false,
		"other/0001_run.sql": false} {
		answer := read("check/migrate",
			map[string][]string{"action": {"RUN"}, "resource": {resource},
				"parameters": {`{"command": "0001_run.sql"}`}})
		if answer.Data["allowed"] != allowed {
			t.Errorf("%s: %v", resource, answer.Data)
		}
	}
}

// What is no command of the role, or would not be one, is refused.
func TestCommandsThatAreRefused(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	role := map[string]any{"action": "RUN", "resource": s.name, "commands": directory, "run_as": owner}
	m.role("migrate", role)
	for _, parameters := range [][]string{nil, {"command=0004.sql"}, {"command="}, {"command=../0001_run.sql"},
		{"command=0001_run.sql/"}, {"command=0001_run.sql",
			"command=0003_events.sql"}, {"commands=0001_run.sql"}, {"command=0001_RUN.sql"}, {"command=SELECT 1"}} {
		minted, err := m.tryMint("migrate/CHG-1", parameters...)
		if err == nil {
			t.Errorf("%q has minted a credential on %v", parameters, minted.Data["resource"])
			continue
		}
		refusal(t, err)
	}
	many := map[string]any{}
	for i := range 101 {
		many[fmt.Sprintf("%04d.sql", i)] = "SELECT 1"
	}
	for name, one := range map[string]struct {
		commands any
		part     string
	}{
		"a command that can't run":  {with(directory, "0004.sql", "VACUUM"), `commands[\"0004.sql\"]`},
		"one that the server reads": {with(directory, "0004.sql", "SELEC 1"), `commands[\"0004.sql\"]`},
		"one of two halves": {with(directory, "0004.sql", "SELECT 1;\n-- migrate:down\nSELECT 2"),
			"both halves"},
		"one that is not found":  {with(directory, "0004.sql", "DROP TABLE accounts"), "search_path"},
		"a name with a folder":   {with(directory, "a/b.sql", "SELECT 1"), "a name that a command can have"},
		"a name that goes up":    {with(directory, "a..b", "SELECT 1"), "a name that a command can have"},
		"one without a text":     {with(directory, "0004.sql", " "), "has no text"},
		"a number":               {with(directory, "0004.sql", 4), "not every command is a text"},
		"more than there can be": {many, "a role can have 100"},
		"more text than there can be": {map[string]any{"a": strings.Repeat(" ", 60<<10) + "SELECT 1",
			"b": strings.Repeat(" ", 60<<10) + "SELECT 1", "c": strings.Repeat(" ",
				60<<10) + "SELECT 1", "d": strings.Repeat(" ", 60<<10) + "SELECT 1", "e": strings.Repeat(" ", 60<<10) + "SELECT 1"}, "bytes in all"},
	} {
		_, err := m.tryRole("migrate", with(role, "commands", one.commands))
		if text := refusal(t, err); !strings.Contains(text, one.part) && !strings.Contains(text,
			strings.ReplaceAll(one.part, `\"`, `"`)) {
			t.Errorf("%s: %s", name, text)
		}
	}
	_, err := m.tryRole("migrate", with(role, "parameters", map[string]any{"command": "[a-z]+"}))
	says(t, refusal(t, err), "the name stands for one of commands")
	_, err = m.tryRole("other",
		map[string]any{"action": "RUN", "resource": s.name + "/0001_run.sql", "command": month, "run_as": owner})
	says(t, refusal(t, err), "more than the name of a database")
	_, err = m.tryRole("other", map[string]any{"action": "SELECT", "resource": "ledger.entries", "commands": directory})
	says(t, refusal(t, err), "SELECT does not take it")
}

// Fifty files are one role, and each of them is run by a credential of its own.
func TestADirectoryOfMigrations(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	const files = 50
	commands := map[string]string{}
	for i := range files {
		commands[fmt.Sprintf("%04d_add_t%d.sql", i,
			i)] = fmt.Sprintf("CREATE TABLE ledger.t%d (id int PRIMARY KEY); INSERT INTO ledger.t%[1]d VALUES (%[1]d)", i)
	}
	text, err := json.Marshal(commands)
	if err != nil {
		t.Fatal(err)
	}
	m.role("migrate",
		map[string]any{"action": "RUN", "resource": s.name, "commands": string(text), "run_as": owner,
			"run_once": true})
	for _, i := range []int{0, 7, 49} {
		minted := m.mint("migrate/CHG-1", fmt.Sprintf("command=%04d_add_t%d.sql", i, i))
		session := s.connect(minted.login)
		if _, err := session.Exec(t.Context(),
			minted.command); err != nil || s.text(fmt.Sprintf("SELECT id FROM ledger.t%d", i)) != fmt.Sprint(i) {
			t.Errorf("%d: %v", i, err)
		}
		if _, err := session.Exec(t.Context(), minted.command); err == nil {
			t.Errorf("%d has run twice", i)
		}
		m.revoke(minted)
	}
	figures.Log(t, "%d migrations in one role: each credential runs the one that was named", files)
}

// An approval is for one command, with the text that it had.
func TestApprovalOfACommand(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	alice, bob := m.person("alice"), m.person("bob")
	role := map[string]any{"action": "RUN", "resource": s.name, "commands": directory, "run_as": owner, "approvals": 1}
	m.role("migrate", role)
	ask := func(command string) string {
		t.Helper()
		answer, err := alice.Logical().WriteWithContext(t.Context(), m.path+"/requests",
			map[string]any{"role": "migrate", "task": "CHG-1", "command": command, "reason": "CHG-1: migrate"})
		if err != nil {
			t.Fatal(err)
		}
		id := answer.Data["id"].(string)
		shown, err := bob.Logical().ReadWithContext(t.Context(), m.path+"/requests/"+id)
		if err != nil || shown.Data["resource"] != s.name+"/"+command {
			t.Errorf("shown is %v: %v", shown, err)
		}
		if _, err := bob.Logical().WriteWithContext(t.Context(), m.path+"/requests/"+id+"/approve", nil); err != nil {
			t.Fatal(err)
		}
		return id
	}
	read := func(command string) error {
		_, err := alice.Logical().ReadWithDataWithContext(t.Context(), m.path+"/creds/migrate/CHG-1",
			map[string][]string{"command": {command}})
		return err
	}
	ask("0001_run.sql")
	if err := read("0003_events.sql"); err == nil {
		t.Error("an approval of one command is good for another")
	}
	if err := read("0001_run.sql"); err != nil {
		t.Error(err)
	}
	if err := read("0001_run.sql"); err == nil {
		t.Error("an approval is good for two credentials")
	}
	ask("0003_events.sql")
	m.patch("roles/migrate", map[string]any{"commands": map[string]any{"0003_events.sql": "DELETE FROM ledger.events"}})
	if err := read("0003_events.sql"); err == nil {
		t.Error("an approval is good for another text")
	}
}

// person is somebody with an entity, who may do everything on the mount but change roles.
func (m *mount) person(name string) *api.Client {
	t := m.t
	t.Helper()
	method := m.path + "-users"
	if methods, err := m.Sys().ListAuthWithContext(t.Context()); err != nil {
		t.Fatal(err)
	} else if methods[method+"/"] == nil {
		if err := m.Sys().EnableAuthWithOptionsWithContext(t.Context(), method,
			&api.EnableAuthOptions{Type: "userpass"}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = servers.Vault.Client.Sys().DisableAuth(method) }) // with the lab, else
		policy := fmt.Sprintf("path \"%[1]s/requests*\" { capabilities = [\"create\", \"read\", \"update\", \"list\"] }\npath \"%[1]s/creds/*\" { capabilities = [\"read\", \"update\"] }",
			m.path)
		if err := m.Sys().PutPolicyWithContext(t.Context(), method, policy); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Logical().WriteWithContext(t.Context(), "auth/"+method+"/users/"+name,
		map[string]any{"password": "hunter2", "token_policies": method}); err != nil {
		t.Fatal(err)
	}
	token, err := m.Logical().WriteWithContext(t.Context(), "auth/"+method+"/login/"+name,
		map[string]any{"password": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := m.CloneWithHeaders()
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(token.Auth.ClientToken)
	return client
}

// The approver and the ledger see what a role's own fields grant: the command, and whose rights it has. A grant shows
// both after its role has changed, and after it has gone.
func TestACommandIsShownAsItWasGranted(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	alice, bob := m.person("alice"), m.person("bob")
	const command = "UPDATE ledger.accounts SET owner = 'run'"
	role := map[string]any{"action": "RUN", "resource": s.name, "command": command, "run_as": owner, "approvals": 1}
	m.role("shown", role)
	asked, err := alice.Logical().WriteWithContext(t.Context(), m.path+"/requests",
		map[string]any{"role": "shown", "task": "CHG-1", "reason": "CHG-1"})
	if err != nil {
		t.Fatal(err)
	}
	request := m.path + "/requests/" + asked.Data["id"].(string)
	shown, err := bob.Logical().ReadWithContext(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	options := shown.Data["options"].(map[string]any)
	if options["command"] != command || options["run_as"] != owner ||
		!strings.Contains(fmt.Sprint(shown.Data["policy"]), command) {
		t.Errorf("the approver sees %v", shown.Data)
	}
	if _, err := bob.Logical().WriteWithContext(t.Context(), request+"/approve", nil); err != nil {
		t.Fatal(err)
	}
	minted, err := alice.Logical().ReadWithContext(t.Context(), m.path+"/creds/shown/CHG-1")
	if err != nil {
		t.Fatal(err)
	}
	m.showsTheCommand("as it was", minted.Data["grant_id"].(string), command, shown.Data)
	m.patch("roles/shown", map[string]any{"command": "SELECT 1", "approvals": nil})
	m.showsTheCommand("changed", minted.Data["grant_id"].(string), command, shown.Data)
	if _, err := m.Logical().DeleteWithContext(t.Context(), m.path+"/roles/shown"); err != nil {
		t.Fatal(err)
	}
	m.showsTheCommand("gone", minted.Data["grant_id"].(string), command, shown.Data)
	if err := m.Sys().RevokeWithContext(t.Context(), minted.LeaseID); err != nil {
		t.Error(err)
	}
}

// showsTheCommand holds a grant's answer to what was approved for it.
func (m *mount) showsTheCommand(role, grant, command string, approved map[string]any) {
	t := m.t
	t.Helper()
	read, err := m.Logical().ReadWithContext(t.Context(), m.path+"/grants/"+grant)
	if err != nil {
		t.Fatal(err)
	}
	options, _ := read.Data["options"].(map[string]any)
	definition, _ := read.Data["role_definition"].(map[string]any)
	for _, shown := range []map[string]any{options, definition} {
		if shown["command"] != command || shown["run_as"] != owner {
			t.Errorf("with its role %s, the grant shows %v", role, read.Data)
		}
	}
	if read.Data["policy"] != approved["policy"] || read.Data["policy_sha256"] != approved["policy_sha256"] {
		t.Errorf("with its role %s, the grant has policy %v, and %v was approved",
			role, read.Data["policy"], approved["policy"])
	}
}

// What is installed for a command is put right when the role is written again.
func TestACommandThatWasChanged(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	role := map[string]any{"action": "RUN", "resource": s.name, "commands": directory, "run_as": owner}
	m.role("migrate", role)
	minted := m.mint("migrate/CHG-1", "command=0001_run.sql")
	s.exec(`DO $do$ DECLARE p record; BEGIN FOR p IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'precision'::regnamespace AND proname LIKE '%\_text' LOOP
		EXECUTE replace(pg_get_functiondef(p.name::oid), 'ledger.accounts', 'ledger.events'); END LOOP; END $do$`)
	_, err := m.tryMint("migrate/CHG-1", "command=0001_run.sql")
	says(t, refusal(t, err), "is not the role's command any more", "write the role again")
	m.role("migrate", role)
	again := m.mint("migrate/CHG-1", "command=0001_run.sql")
	if _, err := s.connect(again.login).Exec(t.Context(), again.command); err != nil || !s.ran() {
		t.Errorf("it does not run: %v", err)
	}
	m.revoke(minted)
	m.revoke(again)
}
