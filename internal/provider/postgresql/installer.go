package postgresql

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	expected, err := read.expected(holder, bears)
	if err != nil {
		return err
	}
	return p.server.with(ctx, func(conn *pgx.Conn) error {
		return again(ctx, func() error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return p.install(ctx, tx, read, holder, bears, expected) })
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

// install makes a holder, or puts it right, in a transaction.
func (p *postgres) install(ctx context.Context, tx pgx.Tx, read document, holder string, bears mark, expected []string) error {
	found, err := held(ctx, tx, holder)
	if err != nil {
		return said("what role "+holder+" has", err)
	}
	comment := "COMMENT ON ROLE " + ident(holder) + " IS " + literal(bears.String())
	switch {
	case len(found) == 0: // one that is there has a comment at least
		if _, err := tx.Exec(ctx, named(read.Holder[0], holderName, holder)); err != nil {
			return lacks("CREATE ROLE", err, fieldUsername, p.server.username, "ALTER ROLE "+ident(p.server.username)+" CREATEROLE")
		}
		if _, err := tx.Exec(ctx, comment); err != nil {
			return said("COMMENT ON ROLE", err)
		}
	case !slices.Contains(found, "comment "+bears.String()):
		return errForeign(holder)
	case slices.Equal(found, expected):
		if read.Run != nil {
			return installRun(ctx, tx, read.place(holder), *read.Run)
		}
		return nil
	default:
		if err := p.strip(ctx, tx, holder, found); err != nil {
			return err
		}
	}
	if read.Run != nil {
		if err := installRun(ctx, tx, read.place(holder), *read.Run); err != nil {
			return err
		}
	}
	privileges, err := read.privileges()
	if err != nil {
		return err
	}
	for _, one := range privileges {
		if one.on == "PROCEDURE" {
			continue // given where it was made
		}
		if _, err := tx.Exec(ctx, one.grant(ident(holder))); err != nil {
			return lacks("GRANT "+one.String(), err, "resource", read.Resource, p.remedy(read))
		}
	}
	found, err = held(ctx, tx, holder)
	if err != nil {
		return said("what role "+holder+" has", err)
	}
	// Who has a privilege without its grant option gets a warning, not an error.
	for _, one := range expected {
		if !slices.Contains(found, one) {
			return invalid.Field("resource", read.Resource, "the engine's login may not give "+one, p.remedy(read))
		}
	}
	for _, one := range found {
		if !slices.Contains(expected, one) {
			return invalid.Field("resource", read.Resource, fmt.Sprintf("role %s, which holds its privilege, has more than that: %s", holder, one), "take that from it, or drop the role")
		}
	}
	return nil
}

// strip takes from a holder what it has in this database, and what it is a member of.
// Until PostgreSQL 15 a login can take on its holder's role, and leave something that
// is the holder's own.
func (p *postgres) strip(ctx context.Context, tx pgx.Tx, holder string, found []string) error {
	if err := takeBack(ctx, tx, holder); err != nil {
		return lacks("taking from "+holder+" what it has besides", err, fieldUsername, p.server.username, "take that from it: "+strings.Join(found, "; "))
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
		if role, member := strings.CutPrefix(one, "membership of "); member {
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
	return p.server.with(ctx, func(conn *pgx.Conn) error {
		found, err := held(ctx, conn, holder)
		if err != nil {
			return said("what role "+holder+" has", err)
		}
		if len(found) > 0 && !slices.Contains(found, "comment "+bears.String()) {
			return errForeign(holder)
		}
		if len(found) == 0 {
			return nil
		}
		return again(ctx, func() error {
			if err := removeCommand(ctx, conn, document{}.place(holder)); err != nil {
				return err
			}
			return p.server.drop(ctx, conn, holder)
		})
	})
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
