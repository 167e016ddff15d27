package postgresql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	// conflicts is how often something is tried again that others have got in the
	// way of: who changes the privileges on one table at the same time, gets an error.
	conflicts    = 8
	conflictWait = 10 * time.Millisecond // longer each time
)

// Plan implements provider.Installer.
func (p *postgres) Plan(policy provider.Policy, mount, ledger string) provider.Handle {
	read, err := readPolicy(policy)
	if err != nil {
		return nil // Install and Mint say so
	}
	holder, err := read.holder(mount, ledger, p.server.username)
	if err != nil {
		return nil
	}
	return provider.Handle{handleHolder: holder, handleMount: mount, handleLedger: ledger}
}

// Install implements provider.Installer.
func (p *postgres) Install(ctx context.Context, handle provider.Handle, policy provider.Policy) error {
	read, err := readPolicy(policy)
	if err != nil {
		return err
	}
	bears := mark{mount: handle[handleMount], ledger: handle[handleLedger]}
	holder, err := read.holder(bears.mount, bears.ledger, p.server.username)
	if err != nil {
		return err
	}
	if handle[handleHolder] != holder {
		return errors.New("postgresql: the handle is not that of the policy")
	}
	role, err := read.meant(holder, bears)
	if err != nil {
		return err
	}
	return p.server.with(ctx, func(conn *pgx.Conn) error {
		return again(ctx, func() error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return p.install(ctx, tx, read, role, bears) })
		})
	})
}

// again tries something again that others have got in the way of.
func again(ctx context.Context, do func() error) error {
	for attempt := 1; ; attempt++ {
		err := do()
		if attempt == conflicts || !isState(err, internalError, serializationFailure, deadlock, uniqueViolation, duplicateObject, duplicateSchema) {
			return err
		}
		select {
		case <-time.After(time.Duration(attempt) * conflictWait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// install creates a holder, or repairs it, in a transaction.
func (p *postgres) install(ctx context.Context, tx pgx.Tx, read document, role meant, bears mark) error {
	found, err := held(ctx, tx, role)
	if err != nil {
		return said("what role "+role.role+" has", err)
	}
	switch {
	case len(found) == 0: // one that is there has a comment at least
		err = p.createHolder(ctx, tx, read, role.role, bears)
	case !has(found, "comment "+bears.String()):
		return errForeign(role.role)
	case len(role.lacking(found)) == 0 && len(role.extra(found)) == 0:
		if read.Run != nil {
			return installRun(ctx, tx, read.place(role.role), *read.Run)
		}
		return nil
	default:
		err = p.cleanHolder(ctx, tx, read, role, bears, found)
	}
	if err != nil {
		return err
	}
	if read.Run != nil {
		if err := installRun(ctx, tx, read.place(role.role), *read.Run); err != nil {
			return err
		}
	}
	return p.fillHolder(ctx, tx, read, role)
}

func (p *postgres) createHolder(ctx context.Context, tx pgx.Tx, read document, holder string, bears mark) error {
	if _, err := tx.Exec(ctx, named(read.Holder[0], holderName, holder)); err != nil {
		return lacks("CREATE ROLE", err, fieldUsername, p.server.username, "ALTER ROLE "+ident(p.server.username)+" CREATEROLE")
	}
	_, err := tx.Exec(ctx, "COMMENT ON ROLE "+ident(holder)+" IS "+literal(bears.String()))
	return said("COMMENT ON ROLE", err)
}

// cleanHolder takes from a holder what it has besides. Where the engine can't take what
// is more than a stranger's gift, the holder gets another name, and a new one is created
// in its place: the logins that live keep the old one.
func (p *postgres) cleanHolder(ctx context.Context, tx pgx.Tx, read document, role meant, bears mark, found []holding) error {
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+literal(milliseconds(cleanupLockTimeout))); err != nil {
			return err
		}
		return p.strip(ctx, tx, role.role, found)
	})
	if ctx.Err() != nil || isState(err, internalError, serializationFailure, deadlock) {
		return err // which is tried again
	}
	if found, err = held(ctx, tx, role); err != nil {
		return said("what role "+role.role+" has", err)
	}
	if _, stops := firstThatStops(role.extra(found)); !stops {
		return nil
	}
	if _, err := tx.Exec(ctx, "ALTER ROLE "+ident(role.role)+" RENAME TO "+ident(spoiledName(role.role))); err != nil {
		return said("giving role "+role.role+" another name", err)
	}
	return p.createHolder(ctx, tx, read, role.role, bears)
}

// spoiledName is a new name for a holder that can't be cleaned. Uninstall finds it.
func spoiledName(holder string) string { return holder + "_" + strings.ToLower(rand.Text()[:5]) }

// fillHolder gives a holder what it is meant to have.
func (p *postgres) fillHolder(ctx context.Context, tx pgx.Tx, read document, role meant) error {
	privileges, err := read.privileges()
	if err != nil {
		return err
	}
	for _, one := range privileges {
		if one.on == "PROCEDURE" {
			continue // given where it was made
		}
		if _, err := tx.Exec(ctx, one.grant(ident(role.role))); err != nil {
			return lacks("GRANT "+one.String(), err, "resource", read.Resource, p.remedy(read))
		}
	}
	found, err := held(ctx, tx, role)
	if err != nil {
		return said("what role "+role.role+" has", err)
	}
	// Who has a privilege without its grant option gets a warning, not an error.
	if lacking := role.lacking(found); len(lacking) > 0 {
		return invalid.Field("resource", read.Resource, "the engine's login may not give "+lacking[0], p.remedy(read))
	}
	if one, stops := firstThatStops(role.extra(found)); stops {
		return invalid.Field("resource", read.Resource, fmt.Sprintf("role %s, which holds its privilege, has more than that: %s", role.role, one.Name), one.Close)
	}
	return nil
}

// strip takes from a holder what it has in this database, and what it is a member of.
// Until PostgreSQL 15 a login can take on its holder's role, and leave something that
// is the holder's own.
func (p *postgres) strip(ctx context.Context, tx pgx.Tx, holder string, found []holding) error {
	if err := takeBack(ctx, tx, holder); err != nil {
		return said("taking from "+holder+" what it has besides", err)
	}
	if err := join(ctx, tx.Conn(), holder); err != nil {
		return said("GRANT "+holder, err)
	}
	for _, statement := range []string{"DROP OWNED BY " + ident(holder) + " CASCADE", "REVOKE " + ident(holder) + " FROM CURRENT_USER"} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return said(statement, err)
		}
	}
	for _, one := range found {
		if role, member := strings.CutPrefix(one.Name, "membership of "); member {
			if _, err := tx.Exec(ctx, "REVOKE "+role+" FROM "+ident(holder)); err != nil { // quoted by the server
				return said("REVOKE "+role, err)
			}
		}
	}
	return nil
}

// remedy lists the statements that let the engine give a document's privileges.
func (p *postgres) remedy(read document) string {
	privileges, err := read.privileges()
	if err != nil {
		return ""
	}
	var statements []string
	for _, one := range privileges {
		if one.on != "PROCEDURE" {
			statements = append(statements, one.grant(ident(p.server.username))+" WITH GRANT OPTION")
		}
	}
	return "as the owner: " + strings.Join(statements, "; ")
}

// Uninstall implements provider.Installer.
func (p *postgres) Uninstall(ctx context.Context, handle provider.Handle) error {
	holder := handle[handleHolder]
	if !strings.HasPrefix(holder, prefix(handle[handleMount])+"h_") {
		return errors.New("postgresql: the handle names no holder")
	}
	bears := mark{mount: handle[handleMount], ledger: handle[handleLedger]}
	return p.server.whileCleaning(ctx, func(conn *pgx.Conn) error {
		found, err := holdersOf(ctx, conn, holder)
		if err != nil {
			return err
		}
		for _, one := range found {
			if one.comment != bears.String() {
				return errForeign(one.name)
			}
			err := again(ctx, func() error {
				if one.name == holder {
					if err := removeCommand(ctx, conn, document{}.place(holder)); err != nil {
						return err
					}
				}
				return p.server.drop(ctx, conn, one.name)
			})
			if err != nil {
				return p.blocked(ctx, conn, one.name, err)
			}
		}
		return nil
	})
}

// commented is a role and what its comment says.
type commented struct{ name, comment string }

// holdersOf lists the holder of a name, and those that it was spoiled as before.
func holdersOf(ctx context.Context, conn *pgx.Conn, holder string) ([]commented, error) {
	rows, err := conn.Query(ctx, `SELECT rolname::text, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles
 WHERE rolname = $1 OR starts_with(rolname::text, $1::text || '_') ORDER BY rolname`, holder)
	if err != nil {
		return nil, said("looking for role "+holder, err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (one commented, err error) {
		return one, row.Scan(&one.name, &one.comment)
	})
	return found, said("looking for role "+holder, err)
}

// removeCommand removes a holder's command, if it has one: an engine without a RUN
// needs no schema of its own.
func removeCommand(ctx context.Context, conn *pgx.Conn, at runPlace) error {
	var there bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = ANY ($2::text[]))",
		at.Schema, []string{at.Name, at.Name + textSuffix, at.Name + onceSuffix}).Scan(&there)
	if err != nil || !there {
		return said("looking for a command", err)
	}
	return uninstallRun(ctx, conn, at)
}
