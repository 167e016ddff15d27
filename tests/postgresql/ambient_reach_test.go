package postgresql

import (
	"os"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// nextval takes a sequence by its number, and asks nobody whether its schema may be
// looked into: what everybody has on a sequence counts wherever that is. The same of a
// table does not.
func TestAmbientOutOfSight(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	reads := map[string]any{"action": "SELECT", "resource": "ledger.entries"}
	m.role("reads", reads)
	minted := m.mint("reads/JIRA-1")
	session := s.connect(minted.login)
	s.exec("SET ROLE shop_owner; CREATE SEQUENCE hidden.numbers; GRANT SELECT ON hidden.safe TO PUBLIC; GRANT USAGE ON SEQUENCE hidden.numbers TO PUBLIC; RESET ROLE")

	if _, err := session.Exec(t.Context(), "SELECT nextval((SELECT oid FROM pg_class WHERE relname = 'numbers' AND relnamespace <> 'ledger'::regnamespace)::regclass)"); err != nil {
		t.Errorf("what is refused for could not be reached: %v", err)
	}
	_, err := session.Exec(t.Context(), "SELECT * FROM hidden.safe")
	denied(t, "a table in a schema that is closed", err)
	_, err = m.tryMint("reads/JIRA-2")
	says(t, refusal(t, err), "USAGE on sequence hidden.numbers", "REVOKE USAGE ON SEQUENCE hidden.numbers FROM PUBLIC")
	_, err = m.tryRole("reads", reads)
	says(t, refusal(t, err), "USAGE on sequence hidden.numbers")
	s.exec("REVOKE USAGE ON SEQUENCE hidden.numbers FROM PUBLIC")
	m.revoke(m.mint("reads/JIRA-3"))
	m.revoke(minted)
}

// A trigger's function is called by triggers only. Who may make a table of his own may
// make one, and has it run as its owner.
func TestAmbientByATrigger(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	reads := map[string]any{"action": "SELECT", "resource": "ledger.entries"}
	s.exec(`SET ROLE shop_owner; CREATE FUNCTION ledger.wiping() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp
AS $$ BEGIN DELETE FROM ledger.accounts; RETURN NULL; END $$; GRANT EXECUTE ON FUNCTION ledger.wiping() TO PUBLIC; RESET ROLE`)
	m.role("reads", reads)
	temporary := "TEMPORARY on database " + s.name
	s.exec("GRANT TEMPORARY ON DATABASE " + s.name + " TO PUBLIC")
	_, err := m.tryRole("tolerant", with(reads, "tolerate_ambient", temporary))
	says(t, refusal(t, err), "EXECUTE on function ledger.wiping() as shop_owner")
	m.role("tolerant", with(reads, "tolerate_ambient", []string{temporary, "EXECUTE on function ledger.wiping() as shop_owner"}))
	minted := m.mint("tolerant/JIRA-1")
	if _, err := s.connect(minted.login).PgConn().Exec(t.Context(), "CREATE TEMP TABLE t (a int); CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION ledger.wiping(); INSERT INTO t VALUES (1)").ReadAll(); err != nil {
		t.Error(err)
	}
	if left := s.text("SELECT count(*) FROM ledger.accounts"); left != "0" {
		t.Errorf("what is refused for could not be reached: %s rows are left", left)
	}
	m.revoke(minted)
}

// A method that asks for no password lets a login in after its end, too. With peer it
// takes an account of the machine by that name.
func TestAmbientWithoutPassword(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, engine)
		file := s.text("SHOW hba_file")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write := func(lines string) {
			if err := os.WriteFile(file, append([]byte(lines), before...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { write("") })
		reads := map[string]any{"action": "SELECT", "resource": "ledger.entries"}
		for _, line := range []struct{ line, name string }{
			{"host all all 192.0.2.0/24 trust", "login without password by host all all 192.0.2.0 255.255.255.0 trust"},
			{"hostssl " + s.name + " all 192.0.2.1/32 trust", "login without password by hostssl " + s.name + " all 192.0.2.1 255.255.255.255 trust"},
			{"local all all peer map=everybody", "login without password by local all all peer"},
			{"host all +some_group 192.0.2.0/24 trust", "login without password by host all +some_group 192.0.2.0 255.255.255.0 trust"},
			{"local all all peer", ""},
			{"host postgres all 192.0.2.0/24 trust", ""},
			{"host all somebody 192.0.2.0/24 trust", ""},
			{"host replication all 192.0.2.0/24 trust", ""},
			{"host all all 192.0.2.0/24 reject", ""},
		} {
			write(line.line + "\n")
			_, err := m.tryRole("reads", reads)
			if line.name == "" {
				if err != nil {
					t.Errorf("%s: %v", line.line, err)
				}
				continue
			}
			says(t, refusal(t, err), line.name, "to scram-sha-256 in line 1 of pg_hba.conf")
			m.role("tolerant", with(reads, "tolerate_ambient", line.name))
		}
	})
}
