package postgresql

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// A target whose connection does not work, or can't be trusted, is not stored.
func TestConfigRefuses(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	p := servers.PostgreSQL
	whole := config(s, p.Engine)
	url := whole["connection_url"].(string)
	verified := strings.Replace(url, "sslmode=disable", "sslmode=verify-full", 1)
	refused := 0
	for _, c := range []struct {
		fields map[string]any
		parts  []string
	}{
		{with(whole, "password", "wrong"), []string{"password"}},
		{with(whole, "password", ""), []string{"password"}},
		{with(whole, "username", "nobody_at_all"), []string{"nobody_at_all"}},
		{with(whole, "username", ""), []string{"username"}},
		{with(whole, "connection_url", ""), []string{"connection_url"}},
		{with(whole, "connection_url", strings.Replace(url, "/"+s.name, "/no_such_database", 1)), []string{"no such database"}},
		{with(whole, "connection_url", strings.Replace(url, "{{username}}:{{password}}", "me:secret-in-url", 1)), []string{"{{username}}:{{password}}"}},
		{with(whole, "connection_url", strings.Replace(url, fmt.Sprint(p.Port), "1", 1)), []string{"can't be reached"}},
		{with(whole, "connection_url", "mysql://host/db"), []string{"postgresql://"}},
		{with(whole, "connection_url", strings.Replace(url, "disable", "sometimes", 1)), []string{"sslmode"}},
		{with(whole, "connection_url", url+"&options=-c%20search_path=x"), []string{"options"}},
		{with(whole, "connection_url", verified), []string{"certificate"}},
		{with(with(whole, "connection_url", verified), "tls_ca", "no certificate"), []string{"tls_ca"}},
		{with(with(with(whole, "connection_url", verified), "tls_ca", p.CA), "tls_server_name", "another.example"), []string{"another.example"}},
		{with(whole, "max_open_connections", -1), []string{"max_open_connections"}},
		{with(whole, "passwort", "x"), []string{"passwort"}},
		{with(with(whole, "username", app.Name), "password", app.Password), []string{"CREATEROLE"}},
	} {
		if strings.Contains(fmt.Sprint(c.parts), "CREATEROLE") {
			s.exec("GRANT CONNECT ON DATABASE " + s.name + " TO " + app.Name)
		}
		_, err := m.tryWrite("config/"+target, c.fields)
		if err == nil {
			t.Errorf("%v is taken", c.parts)
			continue
		}
		text := refusal(t, err)
		says(t, text, c.parts...)
		for _, secret := range []string{p.Engine.Password, "secret-in-url", app.Password} {
			if strings.Contains(text, secret) {
				t.Errorf("a refusal holds a password: %s", text)
			}
		}
		refused++
	}
	if read, err := m.Logical().ReadWithContext(t.Context(), m.path+"/config/"+target); err != nil || read != nil {
		t.Errorf("something is stored: %v, %v", read, err)
	}
	m.write("config/"+target, with(with(whole, "connection_url", verified), "tls_ca", p.CA))
	m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
	m.revoke(m.mint("reads/JIRA-1"))
	read, err := m.Logical().ReadWithContext(t.Context(), m.path+"/config/"+target)
	if err != nil || read.Data["password"] != nil || read.Data["username"] != p.Engine.Name {
		t.Errorf("it reads as %v, %v", read, err)
	}
	figures.Log(t, "%d configurations refused, and one with a verified certificate taken", refused)
}

// What a credential is answered with is enough to connect by.
func TestAnswer(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries(id)"})
	minted := m.mint("reads/JIRA-1")
	p := servers.PostgreSQL
	if minted.Data["host"] != p.Host || fmt.Sprint(minted.Data["port"]) != fmt.Sprint(p.Port) || minted.database != s.name || minted.command != "" {
		t.Errorf("the answer is %v", minted.Data)
	}
	output, err := p.Psql(t.Context(), lab.Login{}, "-X", "-At", "-d", minted.url, "-c", "SELECT count(id) FROM ledger.entries").CombinedOutput()
	if err != nil || strings.TrimSpace(string(output)) != "20" {
		t.Errorf("by its URL: %v: %s", err, output)
	}
	ends := s.text("SELECT to_char(rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM pg_roles WHERE rolname = $1", minted.login.Name)
	if ends != minted.Data["expires_at"] {
		t.Errorf("the server ends it at %s, the answer says %s", ends, minted.Data["expires_at"])
	}
	if comment := s.text("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", minted.login.Name); strings.Contains(comment, "JIRA") || !strings.Contains(comment, minted.Data["grant_id"].(string)) {
		t.Errorf("every login can read that it is %q", comment)
	}
	preview, err := m.Logical().ReadWithContext(t.Context(), m.path+"/preview/reads/JIRA-1")
	if err != nil || preview.Data["policy"] != minted.Data["policy"] {
		t.Errorf("preview shows %v, %v; minted was %v", preview, err, minted.Data["policy"])
	}
	m.revoke(minted)
}

// A role names what is there, literally, as PostgreSQL would read it. Everything else
// is refused, with what would be right, and nothing of it is executed.
func TestRoleRefuses(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	s.exec(`SET ROLE shop_owner; CREATE TABLE ledger."Odd ""Name; --" (id int, "a,b" int); RESET ROLE`)
	if err := servers.PostgreSQL.GrantEngine(t.Context(), s.name, schema, owner); err != nil {
		t.Fatal(err)
	}
	// Who is a member of an owner may give whatever is the owner's.
	s.exec("REVOKE " + owner + " FROM " + servers.PostgreSQL.Engine.Name)
	before := s.text("SELECT count(*) FROM pg_class")
	refused := 0
	for _, c := range []struct{ action, resource, more, says string }{
		{"SELECT", "ledger.entrys", "", "ledger.entries"},
		{"SELECT", "leger.entries", "", "ledger.entries"},
		{"SELECT", "entries", "", "schema"},
		{"SELECT", "", "", "resource"},
		{"SELECT", "shop.ledger.entries", "", "too much"},
		{"SELECT", "ledger.entries(idd)", "", "id"},
		{"SELECT", "ledger.entries()", "", "column"},
		{"SELECT", "ledger.entries(id,id)", "", "id"},
		{"SELECT", "ledger.entries(id", "", "ledger.entries(id"},
		{"SELECT", "ledger.*", "", "*"},
		{"SELECT", "*.entries", "", "*"},
		{"SELECT", "ledger.entries; DROP TABLE ledger.entries", "", "too much"},
		{"SELECT", `ledger."entries"; GRANT ALL ON ledger.accounts TO PUBLIC; --"`, "", "too much"},
		{"SELECT", `ledger."entries`, "", "quote"},
		{"SELECT", "ledger.entries -- x", "", "too much"},
		{"SELECT", "ledger.entries\x00", "", ""},
		{"SELECT", "ledger.entries\n", "", ""},
		{"SELECT", "ledger.entries/**/", "", "too much"},
		{"SELECT", "ledger.entri\u00e9s", "", "too much"},
		{"SELECT", "ledger." + strings.Repeat("e", 64), "", "63"},
		{"SELECT", "ledger.{{task}}", "", "{{task}}"},
		{"SELECT", "pg_catalog.pg_authid", "", "server's own"},
		{"SELECT", "information_schema.tables", "", "server's own"},
		{"SELECT", "ledger.numbers", "", "sequence"},
		{"SELECT", "ledger.entries_pkey", "", "index"},
		{"SELECT", "ledger.entries", "key=id", "key"},
		{"SELECT", "ledger.entries", "command=SELECT 1", "command"},
		{"select", "ledger.entries", "", "SELECT"},
		{"SELCT", "ledger.entries", "", "SELECT"},
		{"SELECT,INSERT", "ledger.entries", "", "action"},
		{"ALL", "ledger.entries", "", "action"},
		{"TRUNCATE", "ledger.entries", "", "RUN"},
		{"REFERENCES", "ledger.entries", "", "action"},
		{"TRIGGER", "ledger.entries", "", "action"},
		{"CREATE", "ledger", "", "action"},
		{"SELECT WITH GRANT OPTION", "ledger.entries", "", "action"},
		{"INSERT", "ledger.totals", "", "materialized view"},
		{"UPDATE", "ledger.entries(note)", "", "whole_table"},
		{"UPDATE", "ledger.entries(note)", "key=idd", "id"},
		{"UPDATE", "ledger.entries(note)", "key=id); GRANT ALL", "key"},
		{"UPDATE", "ledger.entries(note)", "whole_table=true key=id", "key"},
		{"DELETE", "ledger.entries", "", "whole_table"},
		{"DELETE", "ledger.entries(id)", "whole_table=true", "columns"},
		{"EXECUTE", "ledger.add", "", "argument"},
		{"EXECUTE", "ledger.add(int)", "", "ledger.add("},
		{"EXECUTE", "ledger.add(int, int); DROP TABLE ledger.entries", "", "too much"},
		{"EXECUTE", "ledger.add(int, (SELECT 1))", "", ""},
		{"EXECUTE", "ledger.addd(integer,integer)", "", "ledger.add"},
		{"EXECUTE", "pg_catalog.pg_read_file(text)", "", "server's own"},
		{"EXECUTE", "ledger.noted()", "", "trigger"},
		{"USAGE", "ledger.number", "", "ledger.numbers"},
		{"USAGE", "ledger.entries", "", "table"},
		{"USAGE", "ledger", "", "schema"},
		{"INSERT", "ledger.orders", "companion_resources=ledger.tickets", "ledger.tickets"},
		{"SELECT", "ledger.orders", "companion_resources=ledger.orders_id_seq", "companion_resources"},
		{"SELECT", "hidden.safe", "", "GRANT SELECT"},
	} {
		fields := map[string]any{"action": c.action, "resource": c.resource}
		for more := range strings.FieldsSeq(c.more) {
			name, value, _ := strings.Cut(more, "=")
			fields[name] = value
		}
		_, err := m.tryRole("refused", fields)
		if err == nil {
			t.Errorf("%s on %q %s is taken", c.action, c.resource, c.more)
			continue
		}
		says(t, refusal(t, err), c.says)
		refused++
	}
	taken := 0
	for _, c := range []struct{ action, resource, statement string }{
		{"SELECT", `ledger."Odd ""Name; --"`, `SELECT id FROM ledger."Odd ""Name; --"`},
		{"SELECT", `ledger."Odd ""Name; --"("a,b")`, `SELECT "a,b" FROM ledger."Odd ""Name; --"`},
		{"SELECT", `"ledger"."entries"`, "SELECT card FROM ledger.entries"},
		{"SELECT", "LEDGER.Entries(ID)", "SELECT id FROM ledger.entries"},
		{"EXECUTE", "ledger.add(int, int4)", "SELECT ledger.add(1, 2)"},
		{"EXECUTE", "ledger.add(text,text)", "SELECT ledger.add('a', 'b')"},
	} {
		if _, err := m.tryRole("taken", map[string]any{"action": c.action, "resource": c.resource}); err != nil {
			t.Errorf("%s on %q is refused: %v", c.action, c.resource, err)
			continue
		}
		minted := m.mint("taken/JIRA-1")
		if _, err := s.connect(minted.login).Exec(t.Context(), c.statement); err != nil {
			t.Errorf("%s on %q: %v", c.action, c.resource, err)
		}
		m.revoke(minted)
		taken++
	}
	if after := s.text("SELECT count(*) FROM pg_class"); after != before {
		t.Errorf("%s relations, and %s before", after, before)
	}
	figures.Log(t, "%d roles refused, %d with odd names taken", refused, taken)
}

// A serial column draws from a sequence, which the role names beside its table.
func TestInsertIntoASerialColumn(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	says(t, strings.Join(m.role("bare", map[string]any{"action": "INSERT", "resource": "ledger.orders(item)"}), "\n"), "orders_id_seq", "companion_resources")
	m.role("whole", map[string]any{"action": "INSERT", "resource": "ledger.orders(item)", "companion_resources": "ledger.orders_id_seq"})
	bare, whole := m.mint("bare/JIRA-1"), m.mint("whole/JIRA-1")
	const statement = "INSERT INTO ledger.orders (item) VALUES ('i')"
	_, err := s.connect(bare.login).Exec(t.Context(), statement)
	denied(t, "the sequence", err)
	if _, err := s.connect(whole.login).Exec(t.Context(), statement); err != nil {
		t.Error(err)
	}
	m.revoke(bare)
	m.revoke(whole)
}

// After rotate-root nobody but the engine knows its password, and it goes on with what
// it has minted before.
func TestRotateRoot(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	engine := lab.Login{Name: s.name + "_engine", Password: "known-to-somebody"}
	s.exec("DROP ROLE IF EXISTS " + engine.Name)
	s.exec(fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE PASSWORD '%s' IN ROLE %s", engine.Name, engine.Password, servers.PostgreSQL.Engine.Name))
	s.exec(fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s WITH GRANT OPTION; GRANT USAGE ON SCHEMA ledger TO %[2]s WITH GRANT OPTION; GRANT SELECT ON ledger.entries TO %[2]s WITH GRANT OPTION", s.name, engine.Name))
	m.write("config/"+target, config(s, engine))
	m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
	old := m.mint("reads/JIRA-1")
	for range 2 {
		m.write("rotate-root/"+target, nil)
		if _, err := servers.PostgreSQL.Connect(t.Context(), engine, s.name); code(err) != "28P01" {
			t.Errorf("the old password still works: %v", err)
		}
		minted := m.mint("reads/JIRA-2")
		if _, err := s.connect(minted.login).Exec(t.Context(), "SELECT id FROM ledger.entries"); err != nil {
			t.Error(err)
		}
		m.revoke(minted)
	}
	m.revoke(old)
	s.gone(old)
}

// No secret is in a log: not in the server's, which logs every statement, and not in
// Vault's; nor is one read back.
func TestSecretsAreInNoLog(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
	m.role("run", map[string]any{"action": "RUN", "resource": s.name, "command": month, "run_as": owner})
	secrets := []string{servers.PostgreSQL.Engine.Password}
	var minted []credential
	for _, role := range []string{"reads", "run"} {
		one := m.mint(role + "/JIRA-1")
		if len(one.login.Password) < 20 {
			t.Errorf("a password of %d characters", len(one.login.Password))
		}
		s.connect(one.login)
		minted, secrets = append(minted, one), append(secrets, one.login.Password)
	}
	s.exec("ALTER ROLE " + minted[0].login.Name + " NOLOGIN") // so that something is said of it
	for _, one := range minted {
		m.revoke(one)
	}
	shown := ""
	for _, path := range []string{"config/" + target, "roles/reads", "grants", "grants/" + fmt.Sprint(minted[0].Data["grant_id"])} {
		read, err := m.Logical().ReadWithContext(t.Context(), m.path+"/"+path)
		if err != nil || read == nil {
			t.Fatalf("%s: %v, %v", path, read, err)
		}
		shown += fmt.Sprint(read.Data)
	}
	texts := map[string]string{"what is read back": shown}
	for _, log := range []string{servers.PostgreSQL.Log, servers.Vault.Log, servers.Vault.Audit} {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		texts[log] = string(text)
	}
	if !strings.Contains(texts[servers.PostgreSQL.Log], minted[0].login.Name) {
		t.Fatal("the server's log does not tell of the login")
	}
	for where, text := range texts {
		for i, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("secret %d is in %s", i, where)
			}
		}
	}
}

// A target goes when nothing needs it, and by force takes with it what lives.
func TestTargetDeleted(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
	_, err := m.Logical().DeleteWithContext(t.Context(), m.path+"/config/"+target)
	if answer, is := err.(*api.ResponseError); !is || answer.StatusCode != http.StatusBadRequest {
		t.Errorf("a target with a role goes: %v", err)
	}
}
