package postgresql

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

//go:embed obstacles.sql
var obstaclesSQL string

// How long removing a login may take: where a revoke waits for it, and where nobody does.
const (
	killCleanup = 1500 * time.Millisecond
	tidyCleanup = 20 * time.Second
)

// cleanUp removes a login that is disabled.
func (p *postgres) cleanUp(ctx context.Context, login string, longest time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	conn, err := p.server.forCleanup(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return p.server.drop(ctx, conn.Conn(), login)
}

// openTransactions is the query for who holds locks, for an operator.
const openTransactions = "SELECT pid, usename, datname, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start"

// blocked is the *provider.CleanupBlocked of a failed clean-up, where something is in the
// way that is not the engine's.
func (p *postgres) blocked(ctx context.Context, conn *pgx.Conn, login string, err error) error {
	switch {
	case isState(err, lockNotAvailable):
		return &provider.CleanupBlocked{Reason: "a transaction of another session has locked " + login + ", or what it has; the clean-up is tried again", Remedy: openTransactions}
	case !isState(err, dependentObjects, insufficientPrivilege):
		return err
	}
	var blocked *provider.CleanupBlocked
	lookInto := func(database string, conn *pgx.Conn) error {
		found, failed := p.obstacles(ctx, conn, database, login)
		if found != nil {
			blocked = found
		}
		return failed
	}
	if failed := lookInto(p.server.database, conn); failed != nil || blocked != nil {
		return errors.Join(asError(blocked), failed)
	}
	databases, failed := databasesOf(ctx, conn, login)
	if failed != nil {
		return errors.Join(err, failed)
	}
	for _, database := range databases {
		failed := p.server.onDatabase(ctx, database, func(conn *pgx.Conn) error { return lookInto(database, conn) })
		if blocked != nil {
			return blocked
		}
		if failed != nil { // the engine may not connect there
			statement := "DROP OWNED BY " + ident(login) + " CASCADE"
			return &provider.CleanupBlocked{Reason: fmt.Sprintf("the role %s has something in database %s, where the engine may not clean up", login, database), Remedy: statement}
		}
	}
	return err
}

func asError(blocked *provider.CleanupBlocked) error {
	if blocked == nil {
		return nil
	}
	return blocked
}

// obstacles says what keeps a login from being dropped, in one database and in what the
// server shares; nil where nothing does.
func (p *postgres) obstacles(ctx context.Context, conn *pgx.Conn, database, login string) (*provider.CleanupBlocked, error) {
	rows, err := conn.Query(ctx, obstaclesSQL, login)
	if err != nil {
		return nil, said("what keeps "+login+" from being dropped", err)
	}
	type obstacle struct{ What, Owner, Statement string }
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[obstacle])
	if err != nil || len(found) == 0 {
		return nil, said("what keeps "+login+" from being dropped", err)
	}
	var reasons, statements []string
	for _, one := range found {
		reasons = append(reasons, one.What+" of "+one.Owner)
		if !slices.Contains(statements, one.Statement) { // DROP OWNED is one for many
			statements = append(statements, one.Statement)
		}
	}
	return &provider.CleanupBlocked{
		Reason: fmt.Sprintf("in database %s the role %s has been given what the engine can't take back: %s", database, login, shortList(reasons)),
		Remedy: strings.Join(statements, "; "),
	}, nil
}

// shortList joins the first few of many.
func shortList(all []string) string {
	const shown = 10
	if len(all) <= shown {
		return strings.Join(all, "; ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:shown], "; "), len(all)-shown)
}

// dropAttempts is how often a role is dropped that something hangs on again.
const dropAttempts = 3

// drop removes a role, and before it whatever it owns or was given in any database.
// It is idempotent.
func (s *server) drop(ctx context.Context, conn *pgx.Conn, role string) error {
	var err error
	for range dropAttempts {
		if err = s.disown(ctx, conn, role); err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "DROP ROLE IF EXISTS "+ident(role))
		if !isState(err, dependentObjects) {
			break
		}
	}
	return said("dropping role "+role, err)
}

// disown drops what a role owns, and takes from it what it was given, in every
// database where there is such.
func (s *server) disown(ctx context.Context, conn *pgx.Conn, role string) error {
	databases, err := databasesOf(ctx, conn, role)
	if err != nil {
		return err
	}
	if len(databases) > 0 {
		if err := join(ctx, conn, role); err != nil && !isState(err, undefinedObject) {
			return said("GRANT "+role, err)
		}
	}
	var failed []error
	for _, database := range databases {
		clear := func(conn *pgx.Conn) error { return s.clear(ctx, conn, role) }
		if database == s.database {
			err = clear(conn)
		} else {
			err = s.onDatabase(ctx, database, clear)
		}
		if connecting := new(pgconn.ConnectError); errors.As(err, &connecting) {
			err = lacks("connecting to database "+database, err, fieldUsername, s.username, "GRANT CONNECT ON DATABASE "+ident(database)+" TO "+ident(s.username)+", for it to clear away there what role "+role+" has left")
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// databasesOf lists the databases in which a role owns or was given something. What the
// server shares counts as this one's.
func databasesOf(ctx context.Context, conn *pgx.Conn, role string) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT DISTINCT coalesce(b.datname, current_database())::text
  FROM pg_shdepend d JOIN pg_roles r ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid LEFT JOIN pg_database b ON b.oid = d.dbid
 WHERE r.rolname = $1`, role)
	if err != nil {
		return nil, said("what role "+role+" owns", err)
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return databases, said("what role "+role+" owns", err)
}

// clear is disown in one database. What can't be taken from the role keeps nothing else.
func (s *server) clear(ctx context.Context, conn *pgx.Conn, role string) error {
	gifts, err := given(ctx, conn, role)
	if err != nil {
		return err
	}
	for _, one := range gifts { // that the engine has given; see takeBack
		if _, err := conn.Exec(ctx, one.taking(role)); err != nil && !isState(err, insufficientPrivilege) {
			return said("REVOKE", err)
		}
	}
	// Somebody else's thing may hang on the role's, and goes with it: it would keep
	// the role alive, and no other role may be given what a credential has made.
	_, err = conn.Exec(ctx, "DROP OWNED BY "+ident(role)+" CASCADE")
	if err != nil && !isState(err, insufficientPrivilege, dependentObjects) {
		return said("DROP OWNED BY "+role, err)
	}
	failed := lacks("DROP OWNED BY "+role, err, fieldUsername, s.username, "GRANT "+ident(role)+" TO "+ident(s.username))
	left, err := given(ctx, conn, role)
	if err != nil {
		return errors.Join(failed, err)
	}
	for _, one := range left {
		// Only who gave it can take it.
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL ROLE "+ident(one.Grantor)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, one.taking(role))
			return err
		})
		if err != nil && failed == nil {
			failed = lacks("REVOKE", err, fieldUsername, s.username, "as "+one.Grantor+": "+one.taking(role))
		}
	}
	return failed
}

// gift is a privilege that a role was given.
type gift struct{ Statement, Grantor string }

// taking is the statement that takes it back.
func (g gift) taking(role string) string { return g.Statement + ident(role) + " CASCADE" }

func given(ctx context.Context, asked querier, role string) ([]gift, error) {
	rows, err := asked.Query(ctx, givenSQL, role)
	if err != nil {
		return nil, said("what role "+role+" was given", err)
	}
	gifts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[gift])
	return gifts, said("what role "+role+" was given", err)
}

// takeBack takes from a role, in one database, what the engine has given it; what
// others have given, it may leave. DROP OWNED would not do: it takes all privileges at
// once, and so as the one role who could give them all, which the engine may be a
// member of.
func takeBack(ctx context.Context, on querier, role string) error {
	gifts, err := given(ctx, on, role)
	if err != nil {
		return err
	}
	for _, one := range gifts {
		if _, err := on.Exec(ctx, one.taking(role)); err != nil {
			return err
		}
	}
	return nil
}

// joining is the statement that makes the engine a member of a role that it has made.
// It is one for as long as it has to be, and no longer: the server works all of its
// memberships out anew after each change of any.
func joining(conn *pgx.Conn, role string) string {
	statement := "GRANT " + ident(role) + " TO CURRENT_USER"
	if newerThan15(conn) {
		statement += " WITH INHERIT TRUE, SET TRUE"
	}
	return statement
}

func join(ctx context.Context, conn *pgx.Conn, role string) error {
	_, err := conn.Exec(ctx, joining(conn, role))
	return err
}

// signals says whether the engine may end sessions of roles that it is no member of.
// The server is asked once for each connection.
func signals(ctx context.Context, conn *pgx.Conn) (bool, error) {
	const known = "signals"
	may, asked := conn.PgConn().CustomData()[known].(bool)
	if asked {
		return may, nil
	}
	err := conn.QueryRow(ctx, "SELECT pg_has_role('pg_signal_backend', 'USAGE')").Scan(&may)
	if err == nil {
		conn.PgConn().CustomData()[known] = may
	}
	return may, err
}

// errForeign is returned for a role that bears the name of one of the engine's, and
// not its mark.
func errForeign(role string) error {
	return invalid.Field("role", role, "the server has a role of this name that is not of this mount", "rename or drop it")
}
