package postgresql

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// heldBack logs in, and has the server wait for so many seconds when it has let the
// login in and before anybody can see the session. Then it tries a statement. Who
// has a login may ask for that: https://www.postgresql.org/docs/15/runtime-config-developer.html
func (s *shop) heldBack(login lab.Login, seconds int, statement string) <-chan error {
	s.t.Helper()
	config, err := pgx.ParseConfig(servers.PostgreSQL.URL(login, s.name))
	if err != nil {
		s.t.Fatal(err)
	}
	config.RuntimeParams["options"] = fmt.Sprintf("-c post_auth_delay=%d", seconds)
	config.ConnectTimeout = time.Minute
	tried := make(chan error, 1)
	go func() {
		connection, err := pgx.ConnectConfig(context.Background(), config)
		if err != nil {
			tried <- err
			return
		}
		defer connection.Close(context.Background())
		_, err = connection.Exec(context.Background(), statement)
		tried <- err
		_, _ = connection.Exec(context.Background(), "SELECT pg_sleep(20)")
	}()
	return tried
}

// begun waits until so many sessions have been let in and can't be seen.
func (s *shop) begun(count int) {
	s.t.Helper()
	eventually(s.t, "the logins are held back", 10*time.Second, func() bool {
		return s.text("SELECT count(DISTINCT pid) FROM pg_locks l WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)") >= fmt.Sprint(count)
	})
}

const tries = 4

// A session that was let in before its login was revoked, and appears after, can do
// nothing, and is not left.
func TestRevokeOfALoginThatIsHeldBack(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", deletes)
		for _, seconds := range []int{1, 3} {
			minted := m.mint("deletes/JIRA-1")
			oid := s.oid(minted.login)
			var all []<-chan error
			for range tries {
				all = append(all, s.heldBack(minted.login, seconds, "DELETE FROM ledger.entries"))
			}
			s.begun(tries)
			m.revoke(minted)
			for _, tried := range all {
				if err := <-tried; err == nil {
					t.Error("a session that was held back has done what its login might do")
				}
			}
			eventually(t, "the sessions are cut", 10*time.Second, func() bool { return s.sessions(oid) == "0" })
			eventually(t, "the login is gone", time.Minute, func() bool {
				m.write("tidy", nil)
				return s.text("SELECT count(*) FROM pg_roles WHERE rolname = $1", minted.login.Name) == "0"
			})
		}
		if rows := s.text("SELECT count(*) FROM ledger.entries"); rows != "20" {
			t.Errorf("%s rows, want 20", rows)
		}
	})
}

// The same where a login was not revoked, but has run out while Vault was dead.
func TestExpiryOfALoginThatIsHeldBack(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", deletes)
		minted := m.mint("deletes/JIRA-1", "ttl=3s")
		oid := s.oid(minted.login)
		servers.Vault.Kill()
		defer func() {
			if err := servers.Vault.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is revoked after the crash", time.Minute, func() bool { return m.tryRevoke(minted) == nil })
			s.gone(minted)
		}()
		var all []<-chan error
		for i := range tries {
			all = append(all, s.heldBack(minted.login, int(time.Until(minted.expiresAt).Seconds())+2+i/2, "DELETE FROM ledger.entries"))
		}
		done := 0
		for _, tried := range all {
			if err := <-tried; err == nil {
				done++
			}
		}
		if rows := s.text("SELECT count(*) FROM ledger.entries"); rows != "20" || done > 0 {
			t.Errorf("%d of %d sessions that were held back until after their end have done what their login might do; %s rows, want 20", done, tries, rows)
		}
		eventually(t, "the sessions are cut", 10*time.Second, func() bool { return s.sessions(oid) == "0" })
		figures.Log(t, "%d sessions that were held back until after their end: %d could do anything", tries, done)
	})
}
