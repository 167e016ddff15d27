package postgresql

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// deletes is the role of a credential that can keep others waiting.
var deletes = map[string]any{"action": "DELETE", "resource": "ledger.entries", "key": "id"}

// sessions are those that a login has, by its oid: its name may be gone.
func (s *shop) sessions(oid string) string {
	s.t.Helper()
	return s.text("SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1::text::oid", oid)
}

func (s *shop) oid(login lab.Login) string {
	s.t.Helper()
	return s.text("SELECT oid::text FROM pg_roles WHERE rolname = $1", login.Name)
}

// gone demands that nothing is left of logins.
func (s *shop) gone(minted ...credential) {
	s.t.Helper()
	var names []string
	for _, one := range minted {
		names = append(names, one.login.Name)
	}
	if left := s.text("SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)", names); left != "0" {
		s.t.Errorf("%s of %d logins are left", left, len(minted))
	}
}

// busy are the things that a session may be at when its credential ends.
var busy = map[string]string{
	"a query":                       "SELECT pg_sleep(60)",
	"a query that computes":         "SELECT count(*) FROM generate_series(1, 1000000000000) a",
	"an open transaction":           "BEGIN; DELETE FROM ledger.entries",
	"a failed transaction":          "BEGIN; SELECT 1 / 0",
	"nothing":                       "SELECT 1",
	"waiting for a lock":            "LOCK TABLE ledger.entries",
	"a block that takes all errors": "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$",
	"a block that never waits":      "DO $$ DECLARE n bigint := 0; BEGIN LOOP BEGIN n := n + 1; EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$",
	"its own statement_timeout":     "SET statement_timeout = 0; SET idle_session_timeout = 0; SET client_min_messages = panic; SELECT pg_sleep(60)",
}

// cut starts what a session may be at, and returns a channel that says when the
// server has ended the session.
func (s *shop) cut(login lab.Login, sql string) <-chan time.Time {
	s.t.Helper()
	connection, err := servers.PostgreSQL.Connect(context.Background(), login, s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan time.Time, 1)
	go func() {
		defer connection.Close(context.Background())
		_, _ = connection.PgConn().Exec(context.Background(), sql).ReadAll()
		for !connection.IsClosed() { // what it was at has come to an end before
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_, err := connection.WaitForNotification(ctx) // or the end of the session
			cancel()
			if err != nil {
				break
			}
		}
		ended <- time.Now()
	}()
	return ended
}

// A revoked credential's sessions are cut within a second, whatever they are at, and
// what they have not committed is undone.
func TestRevokeCutsSessions(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		forEngines(t, func(t *testing.T, engine lab.Login) {
			s := newShop(t)
			m := newMount(t)
			m.configure(s, engine)
			m.role("deletes", deletes)
			blocker := s.connect(servers.PostgreSQL.Superuser)
			var slowest time.Duration
			for what, sql := range busy {
				if what == "waiting for a lock" {
					if _, err := blocker.Exec(t.Context(), "BEGIN; LOCK TABLE ledger.entries"); err != nil {
						t.Fatal(err)
					}
				}
				minted := m.mint("deletes/JIRA-1")
				oid := s.oid(minted.login)
				ended := s.cut(minted.login, sql)
				eventually(t, "the session is at "+what, 10*time.Second, func() bool {
					return s.text("SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1::text::oid AND query = $2", oid, sql) == "1"
				})
				time.Sleep(50 * time.Millisecond)
				asked := time.Now()
				m.revoke(minted)
				if left := s.sessions(oid); left != "0" {
					t.Errorf("at %s: %s sessions are left", what, left)
				}
				if _, err := blocker.Exec(t.Context(), "ROLLBACK"); err != nil {
					t.Fatal(err)
				}
				select {
				case at := <-ended:
					slowest = max(slowest, at.Sub(asked))
					if took := at.Sub(asked); took > time.Second {
						t.Errorf("at %s it is cut after %s", what, took)
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("at %s it is not cut", what)
				}
				s.gone(minted)
				if _, err := servers.PostgreSQL.Connect(t.Context(), minted.login, s.name); code(err) == "" {
					t.Errorf("after %s it gets in again: %v", what, err)
				}
			}
			if rows := s.text("SELECT count(*) FROM ledger.entries"); rows != "20" {
				t.Errorf("%s rows, want 20: what was not committed has not been undone", rows)
			}
			figures.Log(t, "sessions at %d things, cut within %s of the revoke at most", len(busy), slowest.Round(time.Millisecond))
		})
	})
}

// With Vault killed nobody revokes: at the credential's end its sessions are cut by
// the server itself, within two seconds.
func TestExpiryCutsSessionsWithoutVault(t *testing.T) {
	asEngine(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, engine)
		m.role("deletes", deletes)
		m.role("stays", deletes)
		stays := m.mint("stays/JIRA-1", "ttl=20m")
		lives := s.connect(stays.login)
		const others = 3
		minted := make([]credential, 0, others)
		ends := map[string]<-chan time.Time{}
		for range others {
			minted = append(minted, m.mint("deletes/JIRA-1", "ttl=6s"))
		}
		for i, what := range []string{"a query", "an open transaction", "a block that takes all errors"} {
			ends[what] = s.cut(minted[i].login, busy[what])
		}
		servers.Vault.Kill()
		killed := time.Now()
		defer func() {
			if err := servers.Vault.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, one := range append(minted, stays) {
				// Vault may be at it already.
				eventually(t, "what was minted before the crash is revoked after it", time.Minute, func() bool { return m.tryRevoke(one) == nil })
			}
			s.gone(append(minted, stays)...)
		}()
		if early := time.Until(minted[0].expiresAt); early < 0 {
			t.Fatalf("Vault was killed %s after the end", -early)
		}
		var slowest time.Duration
		for what, ended := range ends {
			select {
			case at := <-ended:
				after := at.Sub(minted[others-1].expiresAt)
				slowest = max(slowest, after)
				if after > 2*time.Second || at.Before(minted[0].expiresAt.Add(-2*time.Second)) {
					t.Errorf("at %s it is cut %s after the end", what, after)
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("at %s it is not cut", what)
			}
		}
		for _, one := range minted {
			if _, err := servers.PostgreSQL.Connect(t.Context(), one.login, s.name); code(err) != "28P01" {
				t.Errorf("a login gets in after its end: %v", err)
			}
		}
		if _, err := lives.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("a session whose time is not over has been cut: %v", err)
		}
		figures.Log(t, "Vault killed %s before the end: %d sessions cut within %s of it at most", minted[0].expiresAt.Sub(killed).Round(100*time.Millisecond), len(ends), slowest.Round(time.Millisecond))
	})
}

// storm is a client that connects, and connects again, until it is told to stop. Each
// session stays open until the server cuts it.
func (s *shop) storm(ctx context.Context, login lab.Login) {
	for ctx.Err() == nil {
		connection, err := servers.PostgreSQL.Connect(ctx, login, s.name)
		if err != nil {
			continue
		}
		_, _ = connection.Exec(ctx, "SELECT pg_sleep(10)")
		_ = connection.Close(context.Background())
	}
}

// However fast clients reconnect while their login is revoked, none is left with a
// session.
func TestStormsOfClients(t *testing.T) {
	const storms, clients = 100, 4
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	m.role("deletes", with(deletes, "connection_limit", 20))
	oids := make([]string, 0, storms)
	for range storms {
		minted := m.mint("deletes/JIRA-1")
		oid := s.oid(minted.login)
		oids = append(oids, oid)
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range clients {
			all.Go(func() { s.storm(ctx, minted.login) })
		}
		eventually(t, "the clients have sessions", 10*time.Second, func() bool { return s.sessions(oid) >= "2" })
		m.revoke(minted)
		for range 5 { // while the clients go on
			if left := s.sessions(oid); left != "0" {
				t.Errorf("%s sessions are left", left)
			}
			time.Sleep(5 * time.Millisecond)
		}
		stop()
		all.Wait()
		s.gone(minted)
	}
	if left := s.text("SELECT count(*) FROM pg_stat_activity WHERE usesysid = ANY ($1::text[]::oid[])", oids); left != "0" {
		t.Errorf("%s sessions are left in the end", left)
	}
	figures.Log(t, "%d storms of %d clients each: no session left", storms, clients)
}

// A login that owns things, and has rights elsewhere, is revoked all the same, and
// revoking it again does nothing.
func TestRevokeOfALoginWithPossessions(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		forEngines(t, func(t *testing.T, engine lab.Login) {
			s := newShop(t)
			m := newMount(t)
			m.configure(s, engine)
			m.role("deletes", deletes)
			elsewhere := s.name + "_elsewhere"
			if err := servers.PostgreSQL.CreateDatabase(t.Context(), elsewhere); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = servers.PostgreSQL.DropDatabase(context.Background(), elsewhere) })
			other, err := servers.PostgreSQL.Connect(t.Context(), servers.PostgreSQL.Superuser, elsewhere)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close(context.Background())

			minted := m.mint("deletes/JIRA-1")
			name := minted.login.Name
			oid := s.oid(minted.login)
			if _, err := s.connect(minted.login).Exec(t.Context(), "SELECT lo_from_bytea(0, 'mine')"); err != nil {
				t.Fatal(err)
			}
			s.exec(fmt.Sprintf(`CREATE TABLE public.mine (a int); ALTER TABLE public.mine OWNER TO %[1]s; CREATE VIEW public.of_mine AS SELECT * FROM public.mine;
GRANT ALL ON ledger.accounts TO %[1]s; SET ROLE shop_owner; GRANT ALL ON hidden.safe TO %[1]s; RESET ROLE; ALTER DEFAULT PRIVILEGES FOR ROLE %[1]s GRANT SELECT ON TABLES TO PUBLIC; GRANT pg_monitor TO %[1]s; GRANT %[1]s TO shop_app;
CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION public.mine() OWNER TO %[1]s; CREATE POLICY p ON ledger.accounts TO %[1]s; ALTER ROLE %[1]s SET work_mem = '1MB'`, name))
			s.exec("ALTER DATABASE " + elsewhere + " OWNER TO " + owner)
			if _, err := other.PgConn().Exec(t.Context(), fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s, %s; SET ROLE shop_owner; CREATE TABLE t (a int); GRANT SELECT ON t TO %[3]s; RESET ROLE; CREATE SCHEMA AUTHORIZATION %[3]s", elsewhere, engine.Name, name)).ReadAll(); err != nil {
				t.Fatal(err)
			}
			m.revoke(minted)
			s.gone(minted)
			if left := s.text("SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1::text::oid", oid); left != "0" {
				t.Errorf("%s things still hang on it", left)
			}
			if err := m.tryRevoke(minted); err != nil {
				t.Errorf("revoking it again: %v", err)
			}
		})
	})
}

// Where everybody may prepare transactions, and the role tolerates it, what a login has
// prepared ends with it, together with the locks that it holds.
func TestRevokeRollsBackPreparedTransactions(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		letPrepare(t)
		forEngines(t, func(t *testing.T, engine lab.Login) {
			s := newShop(t)
			m := newMount(t)
			m.configure(s, engine)
			_, err := m.tryRole("deletes", deletes)
			says(t, refusal(t, err), mayPrepare, "max_prepared_transactions = 0")
			m.role("deletes", with(deletes, "tolerate_ambient", mayPrepare))
			minted := m.mint("deletes/JIRA-1")
			session := s.connect(minted.login)
			holder := s.text("SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = $1::text::regrole", minted.login.Name)
			prepared := 0
			for i, first := range []string{"SELECT 1", "SET ROLE " + pgx.Identifier{holder}.Sanitize()} {
				if _, err := session.Exec(t.Context(), first); err != nil {
					continue // since PostgreSQL 16
				}
				if _, err := session.PgConn().Exec(t.Context(), fmt.Sprintf("BEGIN; DELETE FROM ledger.entries WHERE id = %d; PREPARE TRANSACTION '%s-%d'", 7100001+i, s.name, i)).ReadAll(); err != nil {
					t.Fatal(err)
				}
				prepared++
			}
			m.revoke(minted)
			if left := s.text("SELECT count(*) FROM pg_prepared_xacts"); left != "0" {
				t.Errorf("%s of %d prepared transactions are left", left, prepared)
				s.exec("RESET ROLE")
				for i := range prepared {
					s.exec(fmt.Sprintf("ROLLBACK PREPARED '%s-%d'", s.name, i))
				}
			}
			if rows := s.text("SELECT count(*) FROM ledger.entries"); rows != "20" {
				t.Errorf("%s rows, want 20", rows)
			}
			s.gone(minted)
			figures.Log(t, "%d prepared transactions rolled back with their login", prepared)
		})
	})
}

// A server that crashes right after a revoke does not bring the login back, however
// lightly it takes its commits.
func TestRevokeOutlivesACrash(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	m.role("deletes", deletes)
	s.exec("ALTER DATABASE " + s.name + " SET synchronous_commit = off")
	s.exec("ALTER SYSTEM SET synchronous_commit = off")
	s.exec("ALTER SYSTEM SET wal_writer_delay = '10s'")
	s.exec("SELECT pg_reload_conf()")
	minted := make([]credential, 5)
	for i := range minted {
		minted[i] = m.mint(fmt.Sprintf("deletes/JIRA-%d", i))
	}
	s.exec("SELECT pg_sleep(0.5)")
	m.revoke(minted[0])
	m.revoke(minted[1])
	servers.PostgreSQL.Crash()
	if err := servers.PostgreSQL.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	super := s.connect(servers.PostgreSQL.Superuser)
	s.super = super
	s.exec("ALTER SYSTEM RESET ALL")
	s.exec("SELECT pg_reload_conf()")
	for _, one := range minted[:2] {
		if _, err := servers.PostgreSQL.Connect(t.Context(), one.login, s.name); code(err) == "" {
			t.Errorf("a revoked login gets in after a crash: %v", err)
		}
	}
	s.gone(minted[:2]...)
	for _, one := range minted[2:] {
		if _, err := servers.PostgreSQL.Connect(t.Context(), one.login, s.name); err != nil {
			t.Errorf("a live login does not get in after a crash: %v", err)
		}
		// A connection from before the crash may be what it is tried with.
		eventually(t, "a live login is revoked after a crash", 10*time.Second, func() bool { return m.tryRevoke(one) == nil })
	}
}

// A server that is away answers no revoke; it is not called dead, and is ended once
// the server is back.
func TestRevokeWhileTheServerIsAway(t *testing.T) {
	s := newShop(t)
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	m.role("deletes", deletes)
	minted := m.mint("deletes/JIRA-1")
	servers.PostgreSQL.Stop()
	err := m.tryRevoke(minted)
	if err == nil {
		t.Error("a revoke succeeds while the server is away")
	}
	if _, err := m.tryMint("deletes/JIRA-2"); err == nil || strings.Contains(err.Error(), servers.PostgreSQL.Engine.Password) {
		t.Errorf("a mint while the server is away: %v", err)
	}
	if err := servers.PostgreSQL.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.super = s.connect(servers.PostgreSQL.Superuser)
	eventually(t, "it is revoked once the server is back", 90*time.Second, func() bool { return m.tryRevoke(minted) == nil })
	s.gone(minted)
}
