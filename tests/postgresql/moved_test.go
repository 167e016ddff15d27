package postgresql

import (
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Another database of the same server is another system: a target is pointed to it
// under live grants by force only, which closes them as lost and says what is left;
// without live grants it just moves. The same holds for another login of the engine's,
// which could not end what the first has made.
func TestTargetThatMoves(t *testing.T) {
	s := newShop(t)
	other := stocked(t, s.name+"_other")
	for name, test := range map[string]struct {
		engine lab.Login
		to     *shop
	}{
		"another database": {servers.PostgreSQL.Engine, other},
		"another login":    {servers.PostgreSQL.SuperEngine, s},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			before, after := config(s, servers.PostgreSQL.Engine), config(test.to, test.engine)
			m.write("config/"+target, before)
			m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries(id)"})
			minted := m.mint("reads/JIRA-1")
			says(t, refusal(t, second(m.tryWrite("config/"+target, after))), "live grants on it: 1", "force=true closes them as lost")
			moved := m.write("config/"+target, with(after, "force", true))
			grant := minted.Data["grant_id"].(string)
			says(t, strings.Join(moved.Warnings, "\n"), "grant "+grant+" is lost", minted.login.Name)
			read, err := m.Logical().ReadWithContext(t.Context(), m.path+"/grants/"+grant)
			if err != nil || read.Data["state"] != "lost" {
				t.Errorf("the ledger says %v, %v", read, err)
			}
			// Its lease lapses in peace, and what it was on is left alone.
			m.revoke(minted)
			const reads = "SELECT id FROM ledger.entries"
			if _, err := s.connect(minted.login).Exec(t.Context(), reads); err != nil {
				t.Errorf("the credential on the system that was left: %v", err)
			}
			// The role goes on where the target is now.
			there := m.mint("reads/JIRA-2")
			if _, err := test.to.connect(there.login).Exec(t.Context(), reads); err != nil {
				t.Errorf("a credential on the other system: %v", err)
			}
			_, err = s.tryConnect(t, there.login)
			if test.to != s && code(err) != "42501" {
				t.Errorf("it gets into the database that was left: %v", err)
			}
			m.revoke(there)
			test.to.gone(there)
			m.write("config/"+target, before) // back, without live grants
			again := m.mint("reads/JIRA-3")
			m.revoke(again)
			s.gone(again)
			s.exec("DROP OWNED BY " + minted.login.Name + "; DROP ROLE " + minted.login.Name)
		})
	}
}

func second[A any](_ A, err error) error { return err }

// tryConnect opens a session, if it may.
func (s *shop) tryConnect(t *testing.T, login lab.Login) (closed bool, err error) {
	t.Helper()
	session, err := servers.PostgreSQL.Connect(t.Context(), login, s.name)
	if err != nil {
		return false, err
	}
	return true, session.Close(t.Context())
}
