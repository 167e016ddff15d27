package postgresql

import (
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// A login that somebody has given another name is the same login, and is ended; a role
// that has come to its number, or to its name, is somebody else's.
func TestRevokeOfALoginThatWasRenamed(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		d := newDirect(t, s, open(t, settings(s, engine)), "88888888-2222-3333-4444-555555555555")
		d.install()
		minted := d.mint(time.Hour)
		renamed := lab.Login{Name: s.name + "_renamed", Password: loginOf(minted).Password}
		s.exec("ALTER ROLE " + loginOf(minted).Name + " RENAME TO " + renamed.Name)
		session := s.connect(renamed)
		d.revoke(minted)
		if _, err := session.Exec(t.Context(), "SELECT id FROM ledger.entries"); err == nil {
			t.Error("its session goes on after it was revoked")
		}
		if _, err := servers.PostgreSQL.Connect(t.Context(), renamed, s.name); code(err) != "28P01" {
			t.Errorf("it gets in after it was revoked: %v", err)
		}
		if left := s.list("SELECT rolname FROM pg_roles WHERE rolname = $1", renamed.Name); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		d.revoke(minted)

		taken := d.mint(time.Hour)
		s.exec("COMMENT ON ROLE " + loginOf(taken).Name + " IS NULL; ALTER ROLE " + loginOf(taken).Name + " RENAME TO " + renamed.Name)
		d.revoke(taken)
		if left := s.list("SELECT rolname FROM pg_roles WHERE rolname = $1", renamed.Name); len(left) != 1 {
			t.Error("a role that bears no mark is gone")
		}
		s.exec("DROP OWNED BY " + renamed.Name + "; DROP ROLE " + renamed.Name)
		d.uninstall()
	})
}
