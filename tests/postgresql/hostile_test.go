package postgresql

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// promised is the time from a revoke until nothing works, whatever the holder and a
// helper of his do. A busy machine gets five times as long.
const (
	promised = time.Second
	slack    = 5
)

// helper is an ordinary user of the same database who helps a holder: he has a schema of
// his own, and may give away membership of a role.
var helper = lab.Login{Name: "shop_helper", Password: "shop-helper-password"}

// team is the role that helper may give away.
const team = "shop_team"

// withHelper makes the helper, and what he has in a shop.
func (s *shop) withHelper() {
	s.t.Helper()
	s.exec(fmt.Sprintf(`DO $do$ BEGIN
IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN
	CREATE ROLE %[1]s LOGIN PASSWORD '%[2]s'; CREATE ROLE %[3]s; GRANT %[3]s TO %[1]s WITH ADMIN OPTION;
END IF; END $do$; GRANT CONNECT ON DATABASE %[4]s TO %[1]s; CREATE SCHEMA helping AUTHORIZATION %[1]s;
SET ROLE %[1]s; CREATE TABLE helping.own (a int); CREATE TYPE helping.kind AS ENUM ('a');
CREATE FUNCTION helping.answer() RETURNS int LANGUAGE sql AS 'SELECT 42'; REVOKE ALL ON FUNCTION helping.answer() FROM PUBLIC; RESET ROLE`, helper.Name, helper.Password, team, s.name))
	s.t.Cleanup(func() { // over a new connection: the server may have been restarted
		connection, err := servers.PostgreSQL.Connect(context.Background(), servers.PostgreSQL.Superuser, s.name)
		if err != nil {
			s.t.Error(err)
			return
		}
		defer connection.Close(context.Background())
		if _, err := connection.Exec(context.Background(), "DROP OWNED BY "+helper.Name+" CASCADE"); err != nil {
			s.t.Error(err)
		}
	})
}

// holderRole is the role that a login has its privilege from.
func (s *shop) holderRole(login lab.Login) string {
	s.t.Helper()
	return s.text("SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = $1::text::regrole AND r.rolname LIKE '%\\_h\\_%'", login.Name)
}

// probes try without a pause what a credential is for: in a session that stays open, and
// in new ones.
type probes struct {
	last atomic.Int64 // when something last worked, in Unix nanoseconds
	stop context.CancelFunc
	all  sync.WaitGroup
}

func (s *shop) probe(login lab.Login, statement string) *probes {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &probes{stop: stop}
	server := servers.PostgreSQL
	try := func(connection *pgx.Conn) bool {
		_, err := connection.Exec(ctx, statement)
		if err == nil {
			p.last.Store(time.Now().UnixNano())
		}
		return err == nil
	}
	p.all.Go(func() {
		connection, err := server.Connect(ctx, login, s.name)
		if err != nil {
			return
		}
		defer connection.Close(context.Background())
		for ctx.Err() == nil && !connection.IsClosed() {
			try(connection)
			time.Sleep(2 * time.Millisecond)
		}
	})
	p.all.Go(func() {
		for ctx.Err() == nil {
			if connection, err := server.Connect(ctx, login, s.name); err == nil {
				p.last.Store(time.Now().UnixNano()) // to get in is something already
				try(connection)
				_ = connection.Close(context.Background())
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	eventually(s.t, "the credential works", 10*time.Second, func() bool { return p.last.Load() > 0 })
	return p
}

// since stops the probes a moment later, and says how long after an instant something
// last worked.
func (p *probes) since(asked time.Time) time.Duration {
	time.Sleep(200 * time.Millisecond)
	p.stop()
	p.all.Wait()
	return max(0, time.Unix(0, p.last.Load()).Sub(asked))
}

// revokedWhileProbed revokes a credential and demands that nothing works after that. It
// returns how long something worked.
func (s *shop) revokedWhileProbed(m *mount, minted credential, what, statement string, attack func()) time.Duration {
	s.t.Helper()
	oid := s.oid(minted.login)
	p := s.probe(minted.login, statement)
	attack()
	asked := time.Now()
	err := m.tryRevoke(minted)
	answered := time.Since(asked)
	worked := p.since(asked)
	if err != nil {
		s.t.Errorf("%s: the revoke fails after %s: %v", what, answered, err)
	}
	if worked > answered+50*time.Millisecond || worked > slack*promised || answered > 2*slack*promised {
		s.t.Errorf("%s: revoked after %s, and something worked until %s", what, answered, worked)
	}
	s.dead(what, minted, oid)
	return worked
}

// dead demands that a login lets nobody in, has no session, is in no role of the
// engine's and has nothing prepared.
func (s *shop) dead(what string, minted credential, oid string) {
	s.t.Helper()
	if _, err := servers.PostgreSQL.Connect(s.t.Context(), minted.login, s.name); code(err) == "" {
		s.t.Errorf("%s: it gets in after the revoke: %v", what, err)
	}
	if left := s.sessions(oid); left != "0" {
		s.t.Errorf("%s: %s sessions are left", what, left)
	}
	if can := s.text(`SELECT count(*) FROM pg_roles r WHERE r.oid = $1::text::oid
   AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles h ON h.oid = m.roleid WHERE m.member = r.oid AND h.rolname LIKE 'precision\_%'))`, oid); can != "0" {
		s.t.Errorf("%s: it can still log in, or is still in its holder", what)
	}
	if left := s.text("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"); left != "0" {
		s.t.Errorf("%s: %s prepared transactions are left", what, left)
	}
}

// irrevocable is the number of the mount's leases that Vault has given up on.
func (m *mount) irrevocable() string {
	m.t.Helper()
	given, err := m.Logical().ReadWithDataWithContext(m.t.Context(), "sys/leases/count", map[string][]string{"type": {"irrevocable"}})
	if err != nil {
		m.t.Fatal(err)
	}
	counts, _ := given.Data["counts"].(map[string]any)
	if counts[m.path+"/"] == nil {
		return "0"
	}
	return fmt.Sprint(counts[m.path+"/"])
}

// attempt runs statements that may fail, as some do on some versions.
func attempt(connection *pgx.Conn, statements ...string) {
	for _, statement := range statements {
		if _, err := connection.Exec(context.Background(), statement); err != nil {
			return
		}
	}
}

// locks are ways to lock the login's own row, or what a revoke needs. Each gets a
// session of the holder's, one of the helper's, and names.
var locks = map[string]func(holder, helping *pgx.Conn, login, role string){
	"a password in an open transaction": func(holder, _ *pgx.Conn, _, _ string) {
		attempt(holder, "BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'x'")
	},
	"a setting in an open transaction": func(holder, _ *pgx.Conn, _, _ string) {
		attempt(holder, "BEGIN", "ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
	},
	"the holder's role, locked": func(holder, _ *pgx.Conn, _, role string) {
		attempt(holder, "BEGIN", "SET ROLE "+role, "ALTER ROLE CURRENT_USER PASSWORD 'x'", "ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
	},
	"a helper who acts as the login": func(_, helping *pgx.Conn, login, _ string) { // no login can make members itself
		super, err := servers.PostgreSQL.Connect(context.Background(), servers.PostgreSQL.Superuser, "postgres")
		if err != nil {
			return
		}
		defer super.Close(context.Background())
		attempt(super, "GRANT "+login+" TO "+helper.Name)
		attempt(helping, "SET ROLE "+login, "BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'x'")
	},
	"a membership in an open transaction": func(_, helping *pgx.Conn, login, _ string) { attempt(helping, "BEGIN", "GRANT "+team+" TO "+login) },
	"a membership that others gave":       func(_, helping *pgx.Conn, login, _ string) { attempt(helping, "GRANT "+team+" TO "+login) },
	"advisory locks and a locked table": func(holder, _ *pgx.Conn, _, _ string) {
		attempt(holder, "SELECT pg_advisory_lock(1)", "BEGIN", "LOCK TABLE ledger.entries IN ACCESS EXCLUSIVE MODE", "LOCK TABLE pg_settings IN ACCESS EXCLUSIVE MODE")
	},
	"a row lock of a block that takes all errors": func(holder, _ *pgx.Conn, _, _ string) {
		// It is sent, and its answer is not waited for.
		holder.PgConn().Exec(context.Background(), "DO $$ BEGIN ALTER ROLE CURRENT_USER PASSWORD 'x'; LOOP BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$")
		time.Sleep(50 * time.Millisecond)
	},
}

// A holder who locks the row that a revoke has to change, alone or with a helper, is
// revoked and cut all the same; and so is one whom others have given memberships.
func TestRevokeOfAHolderWhoLocks(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", with(deletes, "connection_limit", 10))
		var slowest time.Duration
		for what, lock := range locks {
			minted := m.mint("deletes/JIRA-1")
			holding, helping := s.connect(minted.login), s.connect(helper)
			took := s.revokedWhileProbed(m, minted, what, "SELECT id FROM ledger.entries LIMIT 1", func() { lock(holding, helping, minted.login.Name, s.holderRole(minted.login)) })
			slowest = max(slowest, took)
			_ = helping.Close(context.Background())
		}
		figures.Log(t, "%d locks of a holder and a helper: dead %s after the revoke at most, %s irrevocable leases", len(locks), slowest.Round(time.Millisecond), m.irrevocable())
	})
}

// Clients that lock the row as soon as they are in, and come again and again, hold up
// nothing either.
func TestRevokeOfAStormThatLocks(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", with(deletes, "connection_limit", 20))
		minted := m.mint("deletes/JIRA-1")
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for ctx.Err() == nil {
					connection, err := servers.PostgreSQL.Connect(ctx, minted.login, s.name)
					if err != nil {
						continue
					}
					_, _ = connection.PgConn().Exec(ctx, "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; SELECT pg_sleep(10)").ReadAll()
					_ = connection.Close(context.Background())
				}
			})
		}
		took := s.revokedWhileProbed(m, minted, "a storm", "SELECT id FROM ledger.entries LIMIT 1", func() { time.Sleep(100 * time.Millisecond) })
		stop()
		all.Wait()
		figures.Log(t, "a storm of clients that lock: dead %s after the revoke", took.Round(time.Millisecond))
	})
}

// gifts are what a stranger may give of his own; %s is the role that gets it.
var gifts = map[string]string{
	"a table":              "GRANT SELECT ON helping.own TO %s",
	"a column":             "GRANT UPDATE (a) ON helping.own TO %s",
	"a type":               "GRANT USAGE ON TYPE helping.kind TO %s",
	"a schema":             "GRANT USAGE, CREATE ON SCHEMA helping TO %s",
	"a function":           "GRANT EXECUTE ON FUNCTION helping.answer() TO %s",
	"a large object":       "DO $do$ DECLARE o oid; BEGIN o := lo_create(0); EXECUTE format('GRANT SELECT ON LARGE OBJECT %%s TO %s', o); END $do$",
	"a membership":         "GRANT " + team + " TO %s",
	"what he will make":    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO %s",
	"what he will make in": "ALTER DEFAULT PRIVILEGES IN SCHEMA helping GRANT USAGE ON SEQUENCES TO %s",
}

// What a stranger gives a login of his own keeps the login's name from being dropped, and
// nothing else: the revoke succeeds, tidy-status says what is in the way, and with the
// statement that it shows the name goes.
func TestRevokeOfALoginWithGifts(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", deletes)
		helping := s.connect(helper)
		oids := map[string]string{}
		for what, gift := range gifts {
			minted := m.mint("deletes/JIRA-1")
			oids[what] = s.oid(minted.login)
			if _, err := helping.Exec(t.Context(), fmt.Sprintf(gift, minted.login.Name)); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			asked := time.Now()
			m.revoke(minted)
			if took := time.Since(asked); took > slack*promised {
				t.Errorf("%s: revoked after %s", what, took)
			}
			s.dead(what, minted, oids[what])
		}
		left := func() []string {
			return s.list("SELECT rolname::text FROM pg_roles WHERE oid = ANY ($1::text[]::oid[])", values(oids))
		}
		remaining := len(left())
		for _, name := range left() {
			if !strings.Contains(name, "_cleanup_") {
				t.Errorf("what is left is called %s", name)
			}
		}
		m.write("tidy", nil)
		var remedies []string
		eventually(t, "the sweeper has tried", 2*time.Minute, func() bool { remedies = m.remedies(); return len(remedies) >= len(left()) })
		for _, remedy := range remedies {
			s.exec(remedy)
		}
		eventually(t, "the sweeper has dropped what is free", 2*time.Minute, func() bool { m.write("tidy", nil); return len(left()) == 0 })
		figures.Log(t, "%d gifts of a stranger to logins: %d names could not be dropped at once, all after the statement that is shown; %s irrevocable leases", len(gifts), remaining, m.irrevocable())
	})
}

func values(of map[string]string) []string {
	var all []string
	for _, value := range of {
		all = append(all, value)
	}
	return all
}

// remedies are the statements that tidy-status shows for what the sweeper can't remove.
func (m *mount) remedies() []string {
	m.t.Helper()
	status, err := m.Logical().ReadWithContext(m.t.Context(), m.path+"/tidy-status")
	if err != nil {
		m.t.Fatal(err)
	}
	return remediesIn(status.Data)
}

// remediesIn finds them wherever they are in the answer.
func remediesIn(value any) []string {
	var found []string
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if text, is := inner.(string); is && name == "remedy" {
				found = append(found, text)
			} else {
				found = append(found, remediesIn(inner)...)
			}
		}
	case []any:
		for _, inner := range value {
			found = append(found, remediesIn(inner)...)
		}
	}
	return found
}

// Grants to many logins in one open transaction of a stranger's hold up neither their
// revokes nor anybody's mint.
func TestStrangersTransactionHoldsUpNobody(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", deletes)
		m.role("reads", map[string]any{"action": "SELECT", "resource": "ledger.entries"})
		const count = 40 // more than the engine has connections
		minted, oids := make([]credential, count), make([]string, count)
		helping := s.connect(helper)
		attempt(helping, "BEGIN")
		for i := range minted {
			minted[i] = m.mint("deletes/JIRA-1")
			oids[i] = s.oid(minted[i].login)
			if _, err := helping.Exec(t.Context(), "GRANT SELECT ON helping.own TO "+minted[i].login.Name); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		var slowest atomic.Int64
		began := time.Now()
		for _, one := range minted {
			all.Go(func() {
				asked := time.Now()
				if err := m.tryRevoke(one); err != nil {
					t.Errorf("a revoke: %v", err)
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(asked))))
			})
		}
		asked := time.Now()
		other := m.mint("reads/JIRA-2")
		mint := time.Since(asked)
		eventually(t, "all are closed", time.Minute, func() bool {
			return s.text("SELECT count(*) FROM pg_roles WHERE oid = ANY ($1::text[]::oid[]) AND rolcanlogin", oids) == "0"
		})
		closed := time.Since(began)
		all.Wait()
		if longest := time.Duration(slowest.Load()); longest > 4*slack*promised || mint > slack*promised || closed > slack*promised {
			t.Errorf("a revoke took %s, a mint beside them %s, and the last was closed after %s", longest, mint, closed)
		}
		for i, one := range minted {
			s.dead("a grant in an open transaction", one, oids[i])
		}
		m.revoke(other)
		attempt(helping, "ROLLBACK")
		figures.Log(t, "%d logins that an open transaction has locked: all closed after %s, revoked in %s at most, a mint beside them in %s", count,
			closed.Round(time.Millisecond), time.Duration(slowest.Load()).Round(time.Millisecond), mint.Round(time.Millisecond))
	})
}

// Where all connections of the server are taken, the engine still has one to revoke by.
func TestRevokeWhereNobodyGetsIn(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		p := servers.PostgreSQL
		before := p.Settings["max_connections"]
		restart := func(most string) {
			p.Settings["max_connections"] = most
			if err := p.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		restart("50")
		defer restart(before)
		s := newShop(t)
		m := newMount(t)
		m.configure(s, p.Engine)
		m.role("deletes", with(deletes, "connection_limit", 5))
		const count = 12
		var minted []credential
		for range count {
			minted = append(minted, m.mint("deletes/JIRA-1"))
		}
		var open []*pgx.Conn
		full := false
		for _, one := range minted {
			for range 5 {
				connection, err := p.Connect(t.Context(), one.login, s.name)
				if err != nil {
					full = full || code(err) == "53300"
					continue
				}
				open = append(open, connection)
			}
		}
		if !full {
			t.Fatal("the server is not full")
		}
		var slowest time.Duration
		for _, one := range minted {
			asked := time.Now()
			if err := m.tryRevoke(one); err != nil {
				t.Errorf("a revoke on a full server: %v", err)
			}
			slowest = max(slowest, time.Since(asked))
		}
		for _, connection := range open {
			if _, err := connection.Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("a session goes on after its revoke")
			}
			_ = connection.Close(context.Background())
		}
		m.revoke(m.mint("deletes/JIRA-2"))
		figures.Log(t, "%d sessions fill the server: %d logins revoked in %s each at most", len(open), count, slowest.Round(time.Millisecond))
	})
}
