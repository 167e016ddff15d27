package postgresql

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// withStandby is a shop whose server has a hot standby, and a mount that knows it.
func withStandby(t *testing.T) (*shop, *lab.PostgreSQL, *mount) {
	t.Helper()
	primary := servers.PostgreSQL
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Stop)
	s := newShop(t)
	m := newMount(t)
	m.configure(s, primary.Engine)
	eventually(t, "the standby follows", time.Minute, func() bool {
		there, err := standby.Connect(t.Context(), standby.Superuser, s.name)
		if err != nil {
			return false
		}
		defer there.Close(context.Background())
		return s.text("SELECT count(*) FROM pg_stat_replication") != "0"
	})
	warned := strings.Join(m.role("deletes", deletes), "\n")
	says(t, warned, "standby_urls", "pg_stat_replication")
	there := strings.Replace(standby.URL(primary.Engine, s.name), primary.Engine.Name+":"+primary.Engine.Password, "{{username}}:{{password}}", 1)
	m.write("config/"+target, with(config(s, primary.Engine), "standby_urls", []string{there}))
	if warned := strings.Join(m.role("deletes", deletes), "\n"); strings.Contains(warned, "pg_stat_replication") {
		t.Errorf("with the standby named: %s", warned)
	}
	return s, standby, m
}

// reading opens a session on a standby, with a cursor that is open in a transaction. What
// it returns fetches from it.
func (s *shop) reading(standby *lab.PostgreSQL, login lab.Login) (*pgx.Conn, func() error) {
	s.t.Helper()
	var session *pgx.Conn
	eventually(s.t, "the login gets in at the standby", 10*time.Second, func() (in bool) {
		var err error
		session, err = standby.Connect(s.t.Context(), login, s.name)
		return err == nil
	})
	s.t.Cleanup(func() { _ = session.Close(context.Background()) })
	for _, statement := range []string{"BEGIN", "DECLARE c CURSOR FOR SELECT e.id FROM ledger.entries e, generate_series(1, 1000000) g", "FETCH 1 FROM c"} {
		if _, err := session.Exec(s.t.Context(), statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
	return session, func() error {
		_, err := session.Exec(context.Background(), "FETCH 1 FROM c")
		return err
	}
}

// A revoke ends sessions on a hot standby, too, and lets nobody in there. While the
// standby can't be asked, the credential is not called revoked.
func TestRevokeOnAStandby(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s, standby, m := withStandby(t)
		minted := m.mint("deletes/JIRA-1")
		_, fetch := s.reading(standby, minted.login)
		asked := time.Now()
		m.revoke(minted)
		took := time.Since(asked)
		if fetch() == nil {
			t.Error("a cursor on the standby reads on after the revoke")
		}
		if _, err := standby.Connect(t.Context(), minted.login, s.name); code(err) == "" {
			t.Errorf("it gets in at the standby after the revoke: %v", err)
		}
		if took > slack*promised {
			t.Errorf("revoked after %s", took)
		}

		away := m.mint("deletes/JIRA-2")
		standby.Stop()
		if err := m.tryRevoke(away); err == nil {
			t.Error("it is called revoked although the standby could not be asked")
		}
		if _, err := servers.PostgreSQL.Connect(t.Context(), away.login, s.name); code(err) == "" {
			t.Errorf("it gets in at the primary: %v", err)
		}
		if err := standby.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is revoked once the standby is back", 2*time.Minute, func() bool { return m.tryRevoke(away) == nil })
		figures.Log(t, "a cursor on a hot standby: cut by a revoke that took %s", took.Round(time.Millisecond))
	})
}

// With Vault killed, a session on a hot standby ends at its credential's expiry.
func TestExpiryOnAStandby(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s, standby, m := withStandby(t)
		minted := m.mint("deletes/JIRA-1", "ttl=6s")
		session, _ := s.reading(standby, minted.login)
		servers.Vault.Kill()
		defer func() {
			if err := servers.Vault.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is revoked after the crash", time.Minute, func() bool { return m.tryRevoke(minted) == nil })
		}()
		if early := time.Until(minted.expiresAt); early < 0 {
			t.Fatalf("Vault was killed %s after the expiry", -early)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := session.WaitForNotification(ctx); ctx.Err() != nil { // or the end of the session
			t.Fatalf("the session on the standby goes on: %v", err)
		}
		after := time.Since(minted.expiresAt)
		if after < -2*time.Second || after > 2*slack*promised {
			t.Errorf("it is cut %s after its expiry", after)
		}
		figures.Log(t, "Vault killed: a session on a hot standby cut %s after its expiry", after.Round(time.Millisecond))
	})
}

// A standby that was started again has lost its watchdog: the next sweep starts it, also
// where nothing is minted. A standby that was promoted keeps the login as it was, so that
// the credential is not called revoked.
func TestWatchdogOfAStandbyThatRestarts(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		s, standby, m := withStandby(t)
		minted := m.mint("deletes/JIRA-1")
		watched := func() bool {
			there, err := standby.Connect(t.Context(), standby.Superuser, s.name)
			if err != nil {
				return false
			}
			defer there.Close(context.Background())
			var runs bool
			err = there.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE '%\\_watchdog' AND state <> 'idle')").Scan(&runs)
			return err == nil && runs
		}
		eventually(t, "the watchdog runs on the standby", 10*time.Second, watched)
		if err := standby.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if watched() {
			t.Fatal("the watchdog has outlived the standby")
		}
		eventually(t, "the watchdog runs again", 2*time.Minute, func() bool { m.write("tidy", nil); return watched() })

		super, err := standby.Connect(t.Context(), standby.Superuser, s.name)
		if err != nil {
			t.Fatal(err)
		}
		defer super.Close(context.Background())
		s.reading(standby, minted.login) // it is replayed there
		if _, err := super.Exec(t.Context(), "SELECT pg_promote()"); err != nil {
			t.Fatal(err)
		}
		if err := m.tryRevoke(minted); err == nil {
			t.Error("it is called revoked although a promoted standby lets it in")
		}
		if _, err := super.Exec(t.Context(), "ALTER ROLE "+minted.login.Name+" NOLOGIN"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is revoked once it is closed there", 2*time.Minute, func() bool { return m.tryRevoke(minted) == nil })
	})
}
