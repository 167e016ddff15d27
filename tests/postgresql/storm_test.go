package postgresql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const (
	// stormSeed makes a storm the same each time.
	stormSeed = 22
	// stormSequences is how many hostile sequences there are on the oldest and on the
	// newest version, and shortStorm on those between. PRECISION_STORM=<number> is as
	// many on each.
	stormSequences = 10
	shortStorm     = 3
	// stormStatements is the most that one sequence has.
	stormStatements = 200
	// stormPromise is how long a revoke after a sequence may take.
	stormPromise = 2 * time.Second
)

// stormWords are the words of the grammar: what a holder, a helper and the owner of the
// schema say. {login} is the minted login, {role} its holder's role, {n} a number.
var stormWords = map[string][]string{
	"holder": {
		"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s{n}", "ROLLBACK TO SAVEPOINT s{n}", "SELECT id FROM ledger.entries LIMIT {n}", "DELETE FROM ledger.entries WHERE id = 710000{n}",
		"ALTER ROLE CURRENT_USER PASSWORD 'x{n}'", "ALTER ROLE CURRENT_USER SET work_mem = '{n}MB'", "ALTER ROLE CURRENT_USER RESET ALL", "ALTER ROLE CURRENT_USER IN DATABASE {database} SET work_mem = '{n}MB'",
		"SET ROLE {role}", "RESET ROLE", "DROP OWNED BY {role}", "REASSIGN OWNED BY {role} TO {login}", "SET SESSION AUTHORIZATION {login}", "GRANT {login} TO shop_helper WITH ADMIN OPTION", "GRANT {login} TO PUBLIC", "GRANT {login} TO shop_app", "REVOKE {login} FROM shop_helper",
		"GRANT {role} TO shop_helper", "REVOKE {role} FROM {login}", "LOCK TABLE ledger.entries IN ACCESS EXCLUSIVE MODE NOWAIT", "LOCK TABLE pg_settings IN ACCESS EXCLUSIVE MODE NOWAIT", "LOCK TABLE pg_roles", "LOCK TABLE pg_auth_members", "LOCK TABLE pg_database",
		"SELECT pg_advisory_lock({n})", "SELECT pg_advisory_xact_lock({n})", "SELECT lo_create(0)", "SELECT lo_from_bytea(0, 'x')", "CREATE TEMP TABLE t{n} (a int)", "CREATE TABLE ledger.t{n} (a int)", "CREATE SCHEMA s{n}",
		"PREPARE TRANSACTION 'holder{n}'", "ROLLBACK PREPARED 'holder{n}'", "SET statement_timeout = 0", "SET idle_in_transaction_session_timeout = 0", "SET lock_timeout = {n}", "SET client_min_messages = panic", "SET default_transaction_read_only = on",
		"SET session_replication_role = replica", "SET application_name = 'precision_watchdog'", "LISTEN l{n}", "NOTIFY l{n}", "DECLARE c{n} CURSOR WITH HOLD FOR SELECT id FROM ledger.entries", "PREPARE p{n} AS SELECT id FROM ledger.entries",
		"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO shop_helper", "REASSIGN OWNED BY {login} TO shop_helper", "DROP OWNED BY {login}", "COMMENT ON ROLE {login} IS NULL", "DROP ROLE {login}",
		"ALTER ROLE {login} RENAME TO renamed{n}", "ALTER ROLE {login} VALID UNTIL 'infinity'", "DO $$ BEGIN PERFORM pg_sleep(0.01); EXCEPTION WHEN OTHERS THEN NULL; END $$", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
	},
	"helper": {
		"BEGIN", "COMMIT", "ROLLBACK", "GRANT shop_team TO {login}", "REVOKE shop_team FROM {login}", "GRANT shop_team TO {role}", "GRANT SELECT ON helping.own TO {login}", "GRANT SELECT ON helping.own TO {role}", "GRANT SELECT ON helping.own TO PUBLIC",
		"GRANT USAGE ON TYPE helping.kind TO {login}", "GRANT USAGE ON TYPE helping.kind TO {role}", "GRANT USAGE, CREATE ON SCHEMA helping TO {login}", "GRANT ALL ON SCHEMA helping TO PUBLIC", "GRANT EXECUTE ON FUNCTION helping.answer() TO PUBLIC",
		"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {login}", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
		"DO $$ DECLARE o oid; BEGIN o := lo_create(0); EXECUTE format('GRANT ALL ON LARGE OBJECT %s TO {login}, PUBLIC', o); END $$", "SET ROLE {login}", "RESET ROLE", "ALTER ROLE CURRENT_USER PASSWORD 'shop-helper-password'",
		"ALTER ROLE CURRENT_USER SET work_mem = '{n}MB'", "CREATE POLICY p{n} ON helping.own TO {login}", "CREATE TABLE helping.t{n} (a int)", "ALTER TABLE helping.own OWNER TO {login}", "ALTER FUNCTION helping.answer() OWNER TO {login}",
		"PREPARE TRANSACTION 'helper{n}'", "ROLLBACK PREPARED 'helper{n}'", "SELECT pg_advisory_lock({n})", "SELECT id FROM ledger.entries LIMIT {n}", "LOCK TABLE helping.own NOWAIT", "REVOKE ALL ON helping.own FROM {login}",
	},
	"owner": {
		"BEGIN", "COMMIT", "ROLLBACK", "LOCK TABLE ledger.entries IN ACCESS EXCLUSIVE MODE NOWAIT", "GRANT SELECT ON ledger.accounts TO {login}", "GRANT ALL ON ledger.entries TO {login} WITH GRANT OPTION", "REVOKE ALL ON ledger.accounts FROM {login}",
		"CREATE POLICY p{n} ON ledger.accounts TO {login}", "DROP POLICY IF EXISTS p{n} ON ledger.accounts", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {login}", "GRANT USAGE ON SCHEMA hidden TO {login}",
	},
}

// speaker is one of those who say hostile things, in a session of his own.
type speaker struct {
	who     string
	open    func() (*pgx.Conn, error)
	session *pgx.Conn
}

// say says a statement, and whether the server took it. It does not wait for long: a
// session that waits is cut, and another one is opened for what comes next.
func (sp *speaker) say(statement string) (heard bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if sp.session.IsClosed() {
		again, err := sp.open()
		if err != nil { // for instance, the holder has changed his password
			return false, err
		}
		sp.session = again
	}
	_, err = sp.session.PgConn().Exec(ctx, statement).ReadAll()
	return true, err
}

func sequences(t *testing.T) int {
	t.Helper()
	text := os.Getenv("PRECISION_STORM")
	if text == "" {
		if versions := chosenVersions(t); !slices.Contains([]string{versions[0], versions[len(versions)-1]}, servers.PostgreSQL.Version) {
			return shortStorm
		}
		return stormSequences
	}
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 {
		t.Fatalf("PRECISION_STORM=%q is not a number of sequences", text)
	}
	return count
}

// tally is what a storm has counted.
type tally struct {
	statements, heard, refused int
	slowest                    time.Duration
}

// A holder, a helper and the owner send hostile statements in any order. The revoke after
// them succeeds, nothing works after it, Vault gives up no lease, and the helper's
// statements cause no mint to be refused.
func TestStormOfHostileSequences(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		p := servers.PostgreSQL
		letPrepare(t)
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, p.Engine)
		m.role("deletes", with(deletes, "tolerate_ambient", mayPrepare))
		random := rand.New(rand.NewPCG(stormSeed, 0))
		count, counted := sequences(t), tally{}
		for at := range count {
			s.sequence(m, random, fmt.Sprintf("sequence %d", at), &counted)
		}
		if counted.refused > 0 || m.irrevocable() != "0" || counted.slowest > slack*stormPromise {
			t.Errorf("%d mints refused, %s irrevocable leases, %s at most until nothing worked", counted.refused, m.irrevocable(), counted.slowest)
		}
		if 4*counted.heard < counted.statements { // a holder who is cut can have locked himself out
			t.Errorf("the server has heard %d of %d statements", counted.heard, counted.statements)
		}
		figures.Log(t, "%d hostile sequences with %d statements, of which the server heard %d, as many revokes: nothing worked after %s at most, %s irrevocable leases, %d mints refused through a stranger's doing",
			count, counted.statements, counted.heard, counted.slowest.Round(time.Millisecond), m.irrevocable(), counted.refused)
	})
}

// sequence mints a credential, has hostile things said, and revokes it.
func (s *shop) sequence(m *mount, random *rand.Rand, what string, counted *tally) {
	s.t.Helper()
	minted, err := m.tryMint("deletes/JIRA-1")
	if err != nil {
		counted.refused++
		s.t.Errorf("%s: no credential: %v", what, err)
		return
	}
	oid, role := s.oid(minted.login), s.holderRole(minted.login)
	speakers := s.speakers(minted.login)
	for range 1 + random.IntN(stormStatements) {
		one := speakers[random.IntN(len(speakers))]
		words := stormWords[one.who]
		statement := strings.NewReplacer("{login}", pgx.Identifier{minted.login.Name}.Sanitize(), "{role}", pgx.Identifier{role}.Sanitize(),
			"{n}", strconv.Itoa(1+random.IntN(9)), "{database}", s.name).Replace(words[random.IntN(len(words))])
		if heard, _ := one.say(statement); heard { // most fail
			counted.heard++
		}
		counted.statements++
	}
	s.aftermath(m, minted, what, oid, counted)
	s.nothingWorks(speakers, minted.login.Name, role, what)
	var all sync.WaitGroup
	for _, one := range speakers {
		all.Go(func() { _ = one.session.Close(context.Background()) })
	}
	all.Wait()
	s.calm()
}

// aftermath revokes the credential, and demands that nothing works.
func (s *shop) aftermath(m *mount, minted credential, what, oid string, counted *tally) {
	s.t.Helper()
	asked := time.Now()
	if err := m.tryRevoke(minted); err != nil {
		s.t.Errorf("%s: the revoke fails after %s: %v", what, time.Since(asked), err)
	}
	counted.slowest = max(counted.slowest, time.Since(asked))
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
}

// nothingWorks has the holder and the helper try to use, and to finish, what they have
// begun.
func (s *shop) nothingWorks(speakers []*speaker, login, role, what string) {
	s.t.Helper()
	_, _ = speakers[len(speakers)-1].say("ROLLBACK") // the owner may have locked the table
	before := s.rows()
	for _, one := range speakers[:len(speakers)-1] {
		_, _ = one.say("COMMIT")
		for n := range 10 {
			_, _ = one.say(fmt.Sprintf("COMMIT PREPARED 'holder%d'", n))
		}
		for _, as := range []string{"RESET ROLE", "SET ROLE " + pgx.Identifier{login}.Sanitize(), "SET ROLE " + pgx.Identifier{role}.Sanitize()} {
			_, _ = one.say(as)
			for _, statement := range []string{"SELECT id FROM ledger.entries LIMIT 1", "DELETE FROM ledger.entries WHERE id = 7100001"} {
				if heard, err := one.say(statement); heard && err == nil {
					s.t.Errorf("%s: after the revoke, and after %s, the %s can say %s", what, as, one.who, statement)
				}
			}
		}
	}
	if after := s.rows(); after != before {
		s.t.Errorf("%s: there were %s rows when the revoke had returned, and %s are left", what, before, after)
	}
}

// speakers opens two sessions of the holder's, and one each of the helper's and the
// owner's.
func (s *shop) speakers(holder lab.Login) []*speaker {
	s.t.Helper()
	of := func(who string, login lab.Login) *speaker {
		sp := &speaker{who: who, open: func() (*pgx.Conn, error) {
			connection, err := servers.PostgreSQL.Connect(context.Background(), login, s.name)
			if err == nil && who == "owner" {
				_, err = connection.Exec(context.Background(), "SET SESSION AUTHORIZATION "+owner)
			}
			return connection, err
		}}
		var err error
		if sp.session, err = sp.open(); err != nil {
			s.t.Fatal(err)
		}
		return sp
	}
	return []*speaker{of("holder", holder), of("holder", holder), of("helper", helper), of("owner", servers.PostgreSQL.Superuser)}
}

// calm undoes what outlives a sequence and is nobody's login's: what the helper and the
// owner have prepared or opened. The helper's gifts to the holder's role and to everybody
// stay for the sequences that follow.
func (s *shop) calm() {
	s.t.Helper()
	for _, id := range s.list("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()") {
		s.exec("ROLLBACK PREPARED '" + id + "'")
	}
	s.exec("ALTER ROLE " + helper.Name + " PASSWORD '" + helper.Password + "'")
}
