package postgresql

import (
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The server is one that a password alone opens, whose engine is no superuser, and
// that comes back from a crash with what it had.
func TestServer(t *testing.T) {
	p := servers.PostgreSQL
	s := shopNamed(t, "lab")
	s.exec("CREATE SCHEMA ledger AUTHORIZATION shop_owner; CREATE TABLE ledger.t (a int)")
	for range 2 {
		if err := p.GrantEngine(t.Context(), "lab", "ledger", owner); err != nil {
			t.Fatal(err)
		}
		if err := p.ClosePublic(t.Context(), "lab", "ledger", owner); err != nil {
			t.Fatal(err)
		}
	}
	p.Crash()
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	engine, err := p.Connect(t.Context(), p.Engine, "lab")
	if err != nil {
		t.Fatal(err)
	}
	var is bool
	if err := engine.QueryRow(t.Context(), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&is); err != nil || is {
		t.Errorf("a superuser: %v, %v", is, err)
	}
	if _, err := engine.Exec(t.Context(), "SELECT * FROM ledger.t"); err != nil {
		t.Error(err)
	}
	for _, login := range []lab.Login{{Name: p.Engine.Name}, {Name: p.Superuser.Name, Password: "wrong"}} {
		if _, err := p.Connect(t.Context(), login, "lab"); err == nil {
			t.Errorf("%s gets in", login.Name)
		}
	}
}
