package postgresql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var statements = slices.Concat(statementsOnData, statementsOnObjects, statementsOnServer)

// core are the grants that are tried with an engine that is a superuser, too.
var core = []string{"update", "call", "run"}

// A minted login of each action can do what it is granted, and what the
// documentation says that every login can, and nothing else. What a statement did is
// looked for in the tables, in the catalogue, on the server and in what it answered;
// whether it said that it failed does not count.
func TestExact(t *testing.T) {
	forEngines(t, func(t *testing.T, engine lab.Login) {
		s := newShop(t)
		j := newJudge(t, s, engine.Name)
		m := newMount(t)
		m.configure(s, engine)
		all := grants(s.name)
		if engine == servers.PostgreSQL.SuperEngine {
			all = slices.DeleteFunc(all, func(g grant) bool { return !slices.Contains(core, g.name) })
		}
		j.tryAll(m, all)
		figures.Log(t, "%d statements with each of %d logins: %d did what is granted, %d what every login can do, %d nothing; %d did more or less", len(statements), len(all), j.granted, j.floor, j.nothing, j.wrong)
	})
}

// Where a superuser has closed what can be closed of the floor, the rest is left, and
// the engine works as before.
func TestExactWithAClosedFloor(t *testing.T) {
	s := newShop(t)
	if err := servers.PostgreSQL.CloseFloor(t.Context(), s.name); err != nil {
		t.Fatal(err)
	}
	j := newJudge(t, s, servers.PostgreSQL.Engine.Name)
	j.closed = true
	m := newMount(t)
	m.configure(s, servers.PostgreSQL.Engine)
	all := slices.DeleteFunc(grants(s.name), func(g grant) bool { return g.name != "update" && g.name != "run" })
	j.tryAll(m, all)
	figures.Log(t, "%d statements with each of %d logins: %d did what is granted, %d what every login can do, %d nothing; %d did more or less", len(statements), len(all), j.granted, j.floor, j.nothing, j.wrong)
}

// tryAll tries all statements with a login of each grant.
func (j *judge) tryAll(m *mount, all []grant) {
	j.t.Helper()
	for _, grant := range all {
		m.role(grant.name, grant.role)
		minted := m.mint(grant.name + "/JIRA-1")
		if len(minted.Warnings) > 0 {
			j.t.Errorf("%s warns: %q", grant.name, minted.Warnings)
		}
		j.try(grant, minted)
		m.revoke(minted)
	}
}

// The statements are such that a superuser gets through with them: none fails for a
// reason of its own.
func TestStatementsMeanSomething(t *testing.T) {
	s := newShop(t)
	j := newJudge(t, s, servers.PostgreSQL.Engine.Name)
	names := strings.NewReplacer(slices.Concat(pairs(j.names), []string{"{login}", app.Name, "{holder}", owner, "{victim}", "0", "{command}", "CALL ledger.close_month()"})...)
	meant := []string{ // to fail, since nothing of that name may be there to succeed with
		"mine", "dblink", "pg_file_write", "DEFAULT", "other",
	}
	if len(statements) < 250 {
		t.Errorf("%d statements", len(statements))
	}
	tried := 0
	for _, statement := range statements {
		sql := names.Replace(statement.sql)
		if strings.HasPrefix(sql, "BEGIN") || strings.HasPrefix(sql, "COPY") || slices.ContainsFunc(meant, func(word string) bool { return strings.Contains(sql, word) }) {
			continue
		}
		tried++
		_, err := s.super.PgConn().Exec(t.Context(), "BEGIN; "+sql+"; ROLLBACK").ReadAll()
		s.exec("ROLLBACK")
		var said *pgconn.PgError
		if !errors.As(err, &said) || said.Code == "42501" {
			continue
		}
		switch said.Code[:2] {
		case "42", "3F", "3D", "26", "34": // no such thing, or nothing that can be said
			t.Errorf("%s: %v", sql, err)
		}
	}
	figures.Log(t, "%d statements, of which a superuser got through with %d in a transaction", len(statements), tried)
}

// judge tries statements, and looks what came of them.
type judge struct {
	*shop
	names  map[string]string // what the statements have in braces
	victim *pgx.Conn         // a session of somebody else
	hears  *pgx.Conn         // a session that listens

	before16 bool // whether a login can take on its holder's role
	closed   bool // whether deploy/postgresql/floor.sql has been run

	granted, floor, nothing, wrong int
}

func newJudge(t *testing.T, s *shop, engine string) *judge {
	t.Helper()
	other := s.name + "_other"
	if err := servers.PostgreSQL.CreateDatabase(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = servers.PostgreSQL.DropDatabase(context.Background(), other) })
	s.exec("GRANT CONNECT ON DATABASE " + s.name + " TO " + app.Name)
	t.Cleanup(func() {
		super, err := servers.PostgreSQL.Connect(context.Background(), servers.PostgreSQL.Superuser, "postgres")
		if err != nil {
			t.Error(err)
			return
		}
		defer super.Close(context.Background())
		if _, err := super.Exec(context.Background(), "ALTER SYSTEM RESET ALL"); err != nil {
			t.Error(err)
		}
	})
	// What the server does by itself, it is not to do meanwhile.
	for _, setting := range []string{"autovacuum = off", "checkpoint_timeout = '1d'"} {
		s.exec("ALTER SYSTEM SET " + setting)
	}
	s.exec("SELECT pg_reload_conf()")
	j := &judge{shop: s, before16: s.text("SELECT current_setting('server_version_num')::int < 160000") == "true", names: map[string]string{"{engine}": engine, "{database}": s.name, "{other}": other}}
	j.victim = s.connect(app)
	if _, err := j.victim.Exec(t.Context(), "SELECT 'query-marker'"); err != nil {
		t.Fatal(err)
	}
	j.hears = s.connect(servers.PostgreSQL.Superuser)
	if _, err := j.hears.Exec(t.Context(), "LISTEN shop"); err != nil {
		t.Fatal(err)
	}
	j.names["{victim}"] = fmt.Sprint(j.victim.PgConn().PID())
	return j
}

// try tries all statements with a login.
func (j *judge) try(g grant, minted credential) {
	j.t.Helper()
	j.names["{login}"], j.names["{command}"] = minted.login.Name, minted.command
	j.names["{holder}"] = j.text("SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = $1::text::regrole", minted.login.Name)
	if minted.command == "" {
		j.names["{command}"] = "CALL precision.nothing()"
	}
	names := strings.NewReplacer(pairs(j.names)...)
	other, err := servers.PostgreSQL.Connect(j.t.Context(), servers.PostgreSQL.Superuser, j.names["{other}"])
	if err != nil {
		j.t.Fatal(err)
	}
	defer other.Close(context.Background())
	w := newWatch(j.shop, other, j.names)
	session := j.open(minted.login)
	before := w.look(j.victim.PgConn().PID(), session.PID())
	for _, statement := range statements {
		sql := names.Replace(statement.sql)
		said := session.say(j.t.Context(), sql)
		effects := told(sql, said)
		if session.TxStatus() != 'I' {
			effects = append(effects, w.locks(session.PID())...)
			said += session.say(j.t.Context(), "COMMIT")
		}
		after := w.look(j.victim.PgConn().PID(), session.PID())
		effects = append(effects, before.changes(after)...)
		if strings.Contains(strings.ToLower(sql), "notify") && j.heard() {
			effects = append(effects, "notification")
		}
		j.judge(g, statement, sql, effects, said)
		session.say(j.t.Context(), "DISCARD ALL")
		if session.IsClosed() {
			session = j.open(minted.login)
			after = w.look(j.victim.PgConn().PID(), session.PID())
		}
		if len(effects) > 0 {
			j.restore(minted.login.Name)
			after = w.look(j.victim.PgConn().PID(), session.PID())
		}
		before = after
	}
}

// judge counts one statement, and reports one that did more than it may, or less.
func (j *judge) judge(g grant, s statement, sql string, effects []string, said string) {
	j.t.Helper()
	slices.Sort(effects)
	effects = slices.Compact(effects)
	var may []string
	by, optional := strings.Fields(s.by), false
	kind, open := strings.CutPrefix(s.by, "open ")
	switch {
	case open && j.closed:
		j.nothing++
	case slices.Contains(by, g.name) && !(j.closed && strings.HasPrefix(sql, "DO ")):
		j.granted++
		may = g.may
	case slices.Contains(by, "~"+g.name):
		j.nothing++
		may, optional = g.may, true
	case kind == "floor":
		j.floor++
		may = floor
	case kind == "floor of 15" && j.before16:
		j.floor++
		may = floorOf15
	default:
		j.nothing++
	}
	more := slices.DeleteFunc(slices.Clone(effects), func(effect string) bool { return slices.Contains(may, effect) })
	switch {
	case len(more) > 0:
		j.wrong++
		j.t.Errorf("%s may %q with the effects %q, beyond what it may; the server said %.300q", g.name, sql, more, said)
	case len(may) > 0 && len(effects) == 0 && !optional:
		j.wrong++
		j.t.Errorf("%s can’t %q, and may; the server said %.300q", g.name, sql, said)
	}
}

// heard says whether a notification has come.
func (j *judge) heard() bool {
	ctx, cancel := context.WithTimeout(j.t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := j.hears.WaitForNotification(ctx)
	return err == nil
}

// restore puts everything back.
func (j *judge) restore(login string) {
	j.t.Helper()
	j.exec(shopContents)
	for _, role := range []string{login, j.names["{holder}"]} {
		j.exec("SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE lomowner = '" + role + "'::regrole; ALTER ROLE " + role + " RESET ALL")
	}
	j.exec("ALTER ROLE " + j.names["{holder}"] + " PASSWORD NULL")
	if err := os.Remove(breach); err != nil && !errors.Is(err, os.ErrNotExist) {
		j.t.Fatal(err)
	}
}

// session is one that keeps what the server says in it.
type session struct {
	*pgconn.PgConn
	said *bytes.Buffer
}

func (j *judge) open(login lab.Login) session {
	j.t.Helper()
	config, err := pgx.ParseConfig(servers.PostgreSQL.URL(login, j.name))
	if err != nil {
		j.t.Fatal(err)
	}
	opened := session{said: new(bytes.Buffer)}
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		fmt.Fprintln(opened.said, notice.Message, notice.Detail, notice.Hint)
	}
	if opened.PgConn, err = pgconn.ConnectConfig(j.t.Context(), &config.Config); err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { _ = opened.Close(context.Background()) })
	return opened
}

// say runs a statement, and returns all that the server says to it.
func (s session) say(ctx context.Context, sql string) string {
	s.said.Reset()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var err error
	switch {
	case strings.HasSuffix(sql, "FROM STDIN"):
		_, err = s.CopyFrom(ctx, strings.NewReader("31\t31\t31\tcopied\tcopied\n"), sql)
	case strings.HasSuffix(sql, "TO STDOUT"):
		_, err = s.CopyTo(ctx, s.said, sql)
	default:
		var results []*pgconn.Result
		results, err = s.Exec(ctx, sql).ReadAll()
		for _, result := range results {
			for _, row := range result.Rows {
				s.said.Write(bytes.Join(row, []byte(" ")))
				s.said.WriteByte('\n')
			}
		}
	}
	if failed := new(pgconn.PgError); errors.As(err, &failed) {
		fmt.Fprintln(s.said, failed.Message, failed.Detail, failed.Hint, failed.Where)
	} else if err != nil {
		fmt.Fprintln(s.said, err)
	}
	return s.said.String()
}

// pairs are what a strings.Replacer takes.
func pairs(names map[string]string) []string {
	var all []string
	for name, value := range names {
		all = append(all, name, value)
	}
	return all
}
