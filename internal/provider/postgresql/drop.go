package postgresql

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// dropAttempts is how often a role is dropped that something hangs on again.
const dropAttempts = 3

// drop removes a role, and before it whatever it owns or was given in any database.
// The engine is a member of it. It is idempotent.
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
	rows, err := conn.Query(ctx, `SELECT DISTINCT coalesce(b.datname, current_database())::text
  FROM pg_shdepend d JOIN pg_roles r ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid LEFT JOIN pg_database b ON b.oid = d.dbid
 WHERE r.rolname = $1`, role)
	if err != nil {
		return said("what role "+role+" owns", err)
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return said("what role "+role+" owns", err)
	}
	// Somebody else's thing may hang on the role's, and goes with it: it would keep
	// the role alive, and no other role may be given what a credential has made.
	statement := "DROP OWNED BY " + ident(role) + " CASCADE"
	var failed []error
	for _, database := range databases {
		drop := func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, statement)
			return err
		}
		if database == s.database {
			err = drop(conn)
		} else {
			err = s.onDatabase(ctx, database, drop)
		}
		if err != nil {
			failed = append(failed, lacks(fmt.Sprintf("DROP OWNED BY %s in database %s", role, database), err, fieldUsername, s.username,
				"GRANT CONNECT ON DATABASE "+ident(database)+" TO "+ident(s.username)))
		}
	}
	return errors.Join(failed...)
}

// join makes the engine a member of a role that it has made.
func join(ctx context.Context, conn *pgx.Conn, role string) error {
	how := ""
	if newerThan15(conn) {
		how = " WITH INHERIT TRUE, SET TRUE"
	}
	_, err := conn.Exec(ctx, "GRANT "+ident(role)+" TO CURRENT_USER"+how)
	return err
}

// errForeign is returned for a role that bears the name of one of the engine's, and
// not its mark.
func errForeign(role string) error {
	return invalid.Field("role", role, "the server has a role of this name that is not of this mount", "rename or drop it")
}
