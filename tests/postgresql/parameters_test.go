package postgresql

import (
	"strings"
	"testing"
)

// A table's name, or a part of it, is filled in where every value that it can have was
// looked at when the role was written.
func TestATableThatIsFilledIn(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		s.exec("SET ROLE shop_owner; CREATE TABLE ledger.tenant_a (id int, name text); CREATE TABLE ledger.tenant_b (id int, name text); INSERT INTO ledger.tenant_a VALUES (1, 'a'); RESET ROLE; GRANT ALL ON ledger.tenant_a, ledger.tenant_b TO " + servers.PostgreSQL.Engine.Name + " WITH GRANT OPTION")
		tenants := map[string]any{"tenant": map[string]any{"one_of": []string{"a", "b"}}}
		m.role("look",
			map[string]any{"action": "SELECT", "resource": "ledger.tenant_{{tenant}}", "parameters": tenants})
		minted := m.mint("look/JIRA-1", "tenant=a")
		session := s.connect(minted.login)
		if _, err := session.Exec(t.Context(), "SELECT * FROM ledger.tenant_a"); err != nil {
			t.Error(err)
		}
		for _, other := range []string{"ledger.tenant_b", "ledger.entries", "hidden.safe"} {
			_, err := session.Exec(t.Context(), "SELECT * FROM "+other)
			denied(t, other, err)
		}
		if minted.Data["resource"] != "ledger.tenant_a" {
			t.Errorf("it is for %v", minted.Data["resource"])
		}
		m.revoke(minted)
		for _, value := range []string{"tenant=c", "tenant=A", "tenant=a(id)", "tenant=", "tenant=a,ledger.tenant_b"} {
			_, err := m.tryMint("look/JIRA-1", value)
			refusal(t, err)
		}
		// The columns that rows are chosen by.
		m.role("correct",
			map[string]any{"action": "UPDATE", "resource": "ledger.entries(note)", "key": "{{column}}",
				"parameters": map[string]any{"column": map[string]any{"one_of": []string{"id", "account"}}}})
		minted = m.mint("correct/JIRA-1", "column=account")
		session = s.connect(minted.login)
		if _, err := session.Exec(t.Context(),
			"UPDATE ledger.entries SET note = 'x' WHERE account = 7200001"); err != nil {
			t.Error(err)
		}
		for _, statement := range []string{"UPDATE ledger.entries SET note = 'x' WHERE id = 7100001",
			"SELECT id FROM ledger.entries", "SELECT note FROM ledger.entries"} {
			_, err := session.Exec(t.Context(), statement)
			denied(t, statement, err)
		}
		m.revoke(minted)
	})
}

// What can't be looked at when the role is written is refused.
func TestWhatCantBeFilledIn(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	oneOf := func(values ...string) map[string]any { return map[string]any{"name": map[string]any{"one_of": values}} }
	for name, one := range map[string]struct {
		fields map[string]any
		part   string
	}{
		"a pattern": {map[string]any{"action": "SELECT", "resource": "ledger.{{name}}",
			"parameters": map[string]any{"name": "entries|accounts"}}, "nobody can list"},
		"the task": {map[string]any{"action": "SELECT", "resource": "ledger.{{task}}"},
			"can't be filled in"},
		"an identity": {map[string]any{"action": "SELECT", "resource": "ledger.{{identity.entity.name}}"},
			"can't be filled in"},
		"a table that is not": {map[string]any{"action": "SELECT", "resource": "ledger.{{name}}",
			"parameters": oneOf("entries", "nothing")}, "name=nothing"},
		"the server's schema": {map[string]any{"action": "SELECT", "resource": "{{name}}.pg_authid",
			"parameters": oneOf("pg_catalog")}, "the server's own"},
		"two tables": {map[string]any{"action": "SELECT", "resource": "ledger.{{name}}",
			"parameters": oneOf("entries(id)")}, "not a part of a name"},
		"a column": {map[string]any{"action": "SELECT", "resource": "ledger.entries({{name}})",
			"parameters": oneOf("id")}, "a column can't be filled in"},
		"a function": {map[string]any{"action": "EXECUTE", "resource": "ledger.{{name}}()",
			"parameters": oneOf("cards")}, "can't be filled in"},
		"a column that is not": {map[string]any{"action": "UPDATE", "resource": "ledger.entries(note)",
			"key": "{{name}}", "parameters": oneOf("id", "nothing")}, "has no such column"},
		"a key by pattern": {map[string]any{"action": "UPDATE", "resource": "ledger.entries(note)",
			"key": "{{name}}", "parameters": map[string]any{"name": "id|account"}}, "nobody can list"},
		"two values in a name": {map[string]any{"action": "SELECT", "resource": "{{name}}.{{table}}",
			"parameters": map[string]any{"name": map[string]any{"one_of": []string{"ledger"}},
				"table": map[string]any{"one_of": []string{"entries"}}}}, "more than one value"},
	} {
		_, err := m.tryRole("trying", one.fields)
		if text := refusal(t, err); !strings.Contains(text, one.part) {
			t.Errorf("%s: %s", name, text)
		}
	}
	s.exec("SET ROLE shop_owner; GRANT SELECT ON ledger.orders TO PUBLIC; RESET ROLE")
	_, err := m.tryRole("trying", map[string]any{"action": "SELECT", "resource": "ledger.{{name}}",
		"parameters": oneOf("entries", "orders")})
	says(t, refusal(t, err), "SELECT on table ledger.orders")
}
