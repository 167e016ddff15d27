package postgresql

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Who holds a credential keeps nobody else from getting one, and nobody from writing
// a role: what he can give to everybody is his own, and no lock of his is in the way.
func TestHolderOfACredentialSpoilsNoOther(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		s.exec("ALTER SCHEMA precision OWNER TO " + engine.Name)
		opened := open(t, settings(s, engine))
		d := newDirect(t, s, opened, "77777777-2222-3333-4444-555555555555")
		d.install()
		hostile := d.mint(time.Hour)
		session := s.connect(loginOf(hostile))
		for _, statement := range []string{
			"SELECT lo_from_bytea(7900001, 'everybody is to see it')",
			"GRANT ALL ON LARGE OBJECT 7900001 TO PUBLIC",
			"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
			"SELECT pg_advisory_lock(hashtextextended('precision run precision', 0))",
		} {
			if _, err := session.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		deleter, err := scope.New("DELETE", "ledger.entries")
		if err != nil {
			t.Fatal(err)
		}
		empties := &direct{t: t, shop: s, opened: opened, granted: deleter, bounds: provider.Bounds{Options: provider.Settings{"whole_table": true}}, mount: d.mount}
		empties.install()
		locking := empties.mint(time.Hour)
		locks := s.connect(loginOf(locking))
		for _, statement := range []string{
			"BEGIN",
			"LOCK TABLE ledger.entries IN ACCESS EXCLUSIVE MODE",
			"LOCK TABLE pg_settings IN ACCESS EXCLUSIVE MODE", // everybody may UPDATE it
		} {
			if _, err := locks.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		if minted, err := d.tryMint(time.Hour); err != nil {
			t.Errorf("another mint: %v", err)
		} else {
			d.revoke(minted)
		}
		granted, err := scope.New("RUN", `"`+s.name+`"`)
		if err != nil {
			t.Fatal(err)
		}
		bounds := provider.Bounds{Options: provider.Settings{"command": month, "run_as": owner, "settings": map[string]any{"app.who": "the engine"}}}
		findings, err := opened.(provider.Examiner).Examine(t.Context(), granted, bounds)
		if err != nil {
			t.Fatalf("another role: %v", err)
		}
		bounds.Facts = findings.Facts
		run := &direct{t: t, shop: s, opened: opened, granted: granted, bounds: bounds, mount: d.mount}
		run.install()
		run.revoke(run.mint(time.Hour))
		run.uninstall()
		// What somebody who is no credential gives to everybody counts as ever.
		s.exec("GRANT SELECT ON LARGE OBJECT 7800001 TO PUBLIC")
		if minted, err := d.tryMint(time.Hour); err == nil {
			t.Error("a large object of the shop's is everybody's, and a login is minted")
			d.revoke(minted)
		}
		d.revoke(hostile)
		empties.revoke(locking)
		empties.uninstall()
		d.uninstall()
	})
}

// What was taken from a role of the engine's at the server, or has come in the place of
// what it was on, is not given again by a mint: only by who writes the role. That holds
// after a restart of the plugin, too.
func TestMintPutsNothingRight(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		for name, test := range map[string]struct {
			role   map[string]any
			change string
		}{
			"taken": {map[string]any{"action": "SELECT", "resource": "ledger.entries"},
				`SET ROLE {engine}; DO $do$ BEGIN EXECUTE 'REVOKE SELECT ON ledger.entries FROM ' || (SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname LIKE 'precision\_%\_h\_%' AND has_table_privilege(oid, 'ledger.entries', 'SELECT')) || ' CASCADE'; END $do$; RESET ROLE`},
			"table": {map[string]any{"action": "SELECT", "resource": "ledger.events"},
				"DROP TABLE ledger.events; CREATE TABLE ledger.events (id int, secret text); GRANT ALL ON ledger.events TO precision WITH GRANT OPTION"},
			"function": {map[string]any{"action": "EXECUTE", "resource": "ledger.add(integer,integer)"},
				`DROP FUNCTION ledger.add(int, int); CREATE FUNCTION ledger.add(a int, b int) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT secret FROM hidden.safe';
REVOKE ALL ON FUNCTION ledger.add(int, int) FROM PUBLIC; GRANT ALL ON FUNCTION ledger.add(int, int) TO precision WITH GRANT OPTION`},
			"text": {map[string]any{"action": "RUN", "command": month, "run_as": owner}, `DO $do$ DECLARE p record; BEGIN
FOR p IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'precision'::regnamespace LOOP
	EXECUTE replace(pg_get_functiondef(p.name::oid), 'ledger.accounts', 'ledger.events');
END LOOP; END $do$`},
			"anew": {map[string]any{"action": "RUN", "command": month, "run_as": owner}, `DO $do$ DECLARE p record; BEGIN
FOR p IN SELECT oid::regprocedure::text AS name, pg_get_functiondef(oid) AS text FROM pg_proc WHERE pronamespace = 'precision'::regnamespace LOOP
	EXECUTE 'DROP PROCEDURE ' || p.name;
	EXECUTE replace(p.text, 'ledger.accounts', 'ledger.events');
	EXECUTE 'REVOKE ALL ON PROCEDURE ' || p.name || ' FROM PUBLIC';
END LOOP; END $do$`},
		} {
			t.Run(name, func(t *testing.T) {
				s := newShop(t)
				m := newMount(t)
				m.configure(s, engine)
				role := test.role
				if role["resource"] == nil {
					role = with(role, "resource", s.name)
				}
				m.role("changed", role)
				m.revoke(m.mint("changed/JIRA-1"))
				s.exec(strings.ReplaceAll(test.change, "{engine}", engine.Name))
				for _, restarted := range []bool{false, true} {
					if restarted {
						if _, err := m.Sys().ReloadPluginWithContext(t.Context(), &api.ReloadPluginInput{Mounts: []string{m.path}}); err != nil {
							t.Fatal(err)
						}
					}
					minted, err := m.tryMint("changed/JIRA-2")
					if err == nil {
						t.Errorf("restarted %t: a credential is minted", restarted)
						m.revoke(minted)
						continue
					}
					says(t, refusal(t, err), "write the role again")
				}
			})
		}
	})
}

// Where a command's names are looked up nobody else may create: not everybody, and not
// some role either.
func TestRunPathThatOthersCreateIn(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	role := map[string]any{"action": "RUN", "resource": s.name, "command": "UPDATE accounts SET owner = 'run'", "run_as": owner, "search_path": []string{"pg_catalog", "ledger"}}
	for _, who := range []string{app.Name, "PUBLIC"} {
		s.exec("GRANT CREATE ON SCHEMA ledger TO " + who)
		says(t, refusal(t, second(m.tryRole("run", role))), who, "REVOKE CREATE ON SCHEMA ledger FROM "+who)
		s.exec("REVOKE CREATE ON SCHEMA ledger FROM " + who)
	}
	m.role("run", role)
	minted := m.mint("run/JIRA-1")
	if _, err := s.connect(minted.login).Exec(t.Context(), minted.command); err != nil || !s.ran() {
		t.Errorf("the command does not run: %v", err)
	}
	m.revoke(minted)
}
