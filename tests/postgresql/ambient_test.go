package postgresql

import (
	"context"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// opening is something that is given to everybody.
type opening struct {
	open   string // the statement that does it
	name   string // what the engine calls it
	close  string // the statement that the refusal has to show
	atMint bool   // whether it is also seen by each mint
}

var openings = []opening{
	{"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC", "TEMPORARY on database {database}", "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC", true},
	{"GRANT CREATE ON DATABASE {database} TO PUBLIC", "CREATE on database {database}", "REVOKE CREATE ON DATABASE {database} FROM PUBLIC", true},
	{"GRANT CONNECT ON DATABASE postgres TO PUBLIC", "CONNECT on database postgres", "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC", true},
	{"GRANT CREATE ON SCHEMA ledger TO PUBLIC", "CREATE on schema ledger", "REVOKE CREATE ON SCHEMA ledger FROM PUBLIC", true},
	{"GRANT CREATE ON SCHEMA hidden TO PUBLIC", "CREATE on schema hidden", "REVOKE CREATE ON SCHEMA hidden FROM PUBLIC", true},
	{"GRANT SELECT ON ledger.accounts TO PUBLIC", "SELECT on table ledger.accounts", "REVOKE SELECT ON TABLE ledger.accounts FROM PUBLIC", true},
	{"GRANT UPDATE ON ledger.entries TO PUBLIC", "UPDATE on table ledger.entries", "REVOKE UPDATE ON TABLE ledger.entries FROM PUBLIC", true},
	{"GRANT SELECT (owner) ON ledger.accounts TO PUBLIC", "SELECT on column ledger.accounts(owner)", "REVOKE SELECT (owner) ON ledger.accounts FROM PUBLIC", true},
	{"GRANT USAGE ON SEQUENCE ledger.tickets TO PUBLIC", "USAGE on sequence ledger.tickets", "REVOKE USAGE ON SEQUENCE ledger.tickets FROM PUBLIC", true},
	{"GRANT EXECUTE ON FUNCTION ledger.cards() TO PUBLIC", "EXECUTE on function ledger.cards() as shop_owner", "REVOKE EXECUTE ON FUNCTION ledger.cards() FROM PUBLIC", true},
	{"GRANT EXECUTE ON FUNCTION ledger.add(int, int) TO PUBLIC", "EXECUTE on function ledger.add(integer,integer)", "REVOKE EXECUTE ON FUNCTION ledger.add(integer,integer) FROM PUBLIC", true},
	{"GRANT EXECUTE ON PROCEDURE ledger.close_month() TO PUBLIC", "EXECUTE on procedure ledger.close_month() as shop_owner", "REVOKE EXECUTE ON PROCEDURE ledger.close_month() FROM PUBLIC", true},
	{"GRANT USAGE ON SCHEMA hidden TO PUBLIC; GRANT EXECUTE ON FUNCTION hidden.peek() TO PUBLIC", "EXECUTE on function hidden.peek() as shop_owner", "REVOKE EXECUTE ON FUNCTION hidden.peek() FROM PUBLIC", true},
	{"GRANT SELECT ON LARGE OBJECT 7800001 TO PUBLIC", "SELECT on large objects", "REVOKE SELECT ON LARGE OBJECT 7800001 FROM PUBLIC", true},
	{"GRANT SET ON PARAMETER log_statement TO PUBLIC", "SET on parameter log_statement", "REVOKE SET ON PARAMETER log_statement FROM PUBLIC", true},
	{"ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA ledger GRANT SELECT ON TABLES TO PUBLIC", "SELECT on future tables of shop_owner in schema ledger", "ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA ledger REVOKE SELECT ON TABLES FROM PUBLIC", false},
	{"GRANT SELECT ON pg_authid TO PUBLIC", "SELECT on table pg_authid", "REVOKE SELECT ON TABLE pg_authid FROM PUBLIC", false},
	{"GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC", "EXECUTE on function pg_read_file(text)", "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM PUBLIC", false},
	{"GRANT CREATE ON TABLESPACE pg_default TO PUBLIC", "CREATE on tablespace pg_default", "REVOKE CREATE ON TABLESPACE pg_default FROM PUBLIC", false},
	{"CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER s TO PUBLIC", "USAGE on foreign server s", "REVOKE USAGE ON FOREIGN SERVER s FROM PUBLIC", false},
	{"CREATE USER MAPPING FOR PUBLIC SERVER s", "user mapping of foreign server s", "DROP USER MAPPING FOR PUBLIC SERVER s", false},
	{"UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'c'; CREATE TRUSTED LANGUAGE pl HANDLER plpgsql_call_handler", "USAGE on language pl", "REVOKE USAGE ON LANGUAGE pl FROM PUBLIC", false},
}

// What everybody has, nobody is granted exactly: a role is refused for it, and so is
// a credential where it has come after the role; the refusal shows the statement that
// closes it, which helps; a role that tolerates it by its name warns of it.
func TestAmbient(t *testing.T) {
	asEngine(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, engine)
		names := strings.NewReplacer("{database}", s.name)
		reads := map[string]any{"action": "SELECT", "resource": "ledger.entries"}
		m.role("before", reads)
		t.Cleanup(func() { // what is the server's and not the database's
			s.super.Exec(context.Background(), "REVOKE ALL ON PARAMETER log_statement FROM PUBLIC; REVOKE ALL ON DATABASE postgres FROM PUBLIC; REVOKE ALL ON TABLESPACE pg_default FROM PUBLIC") //nolint:errcheck // the next tests tell
		})
		refused, minted := 0, 0
		for _, opening := range openings {
			s.exec(names.Replace(opening.open))
			name, closing := names.Replace(opening.name), names.Replace(opening.close)
			_, err := m.tryRole("after", reads)
			if err == nil {
				t.Errorf("a role is written although %s", name)
				s.exec(closing)
				continue
			}
			text := refusal(t, err)
			says(t, text, name, closing, "tolerate_ambient")
			refused++
			if _, err := m.tryMint("before/JIRA-1"); opening.atMint {
				says(t, refusal(t, err), name, closing)
				minted++
			}
			if opening.atMint {
				warned := strings.Join(m.role("tolerant", with(reads, "tolerate_ambient", name)), "\n")
				says(t, warned, name)
				tolerant := m.mint("tolerant/JIRA-1")
				says(t, strings.Join(tolerant.Warnings, "\n"), name)
				m.revoke(tolerant)
			}
			s.exec(closing)
			m.role("after", reads)
			m.revoke(m.mint("before/JIRA-1"))
		}
		figures.Log(t, "%d rights of everybody: %d refused a role, %d a credential of a role that was there before", len(openings), refused, minted)
	})
}

// Functions are everybody's when they are made, and a grant opens the schema that
// they are in: a new one is caught before a role is written, and between the role and
// a credential.
func TestNewFunctionIsEverybodys(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	reads := map[string]any{"action": "SELECT", "resource": "ledger.recent"}
	const make = `ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT EXECUTE ON ROUTINES TO PUBLIC; SET ROLE shop_owner;
CREATE FUNCTION ledger.numbers_of(x text) RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT card FROM ledger.entries'; RESET ROLE;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC`
	const name, closing, drop = "EXECUTE on function ledger.numbers_of(text) as shop_owner", "REVOKE EXECUTE ON FUNCTION ledger.numbers_of(text) FROM PUBLIC", "DROP FUNCTION ledger.numbers_of(text)"

	s.exec(make)
	_, err := m.tryRole("reads", reads)
	says(t, refusal(t, err), name, closing)
	s.exec(drop)
	m.role("reads", reads)
	minted := m.mint("reads/JIRA-1")
	s.exec(make)
	_, err = m.tryMint("reads/JIRA-2")
	says(t, refusal(t, err), name, closing)
	s.exec(closing)
	after := m.mint("reads/JIRA-3")
	for _, one := range []credential{minted, after} {
		_, err := s.connect(one.login).Exec(t.Context(), "SELECT ledger.numbers_of('')")
		denied(t, "the function", err)
		m.revoke(one)
	}
}

// A grant of what everybody has anyway is no less exact, and is not refused for it.
func TestAmbientOfTheGrantItself(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	s.exec("GRANT SELECT ON ledger.accounts TO PUBLIC")
	m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.accounts"})
	minted := m.mint("reads/JIRA-1")
	if _, err := s.connect(minted.login).Exec(t.Context(), "SELECT owner FROM ledger.accounts"); err != nil {
		t.Error(err)
	}
	m.revoke(minted)
}
