package postgresql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// loginForm is how the names of logins look: so that a handle that is no login's
// drops nobody else's.
var loginForm = regexp.MustCompile(`\Aprecision_[0-9a-z]{1,12}_[0-9a-z]{8,40}\z`)

const (
	// firstPoll is how long sessions that were told to end are waited for first, and
	// longestPoll at most; each time is twice the one before.
	firstPoll   = 2 * time.Millisecond
	longestPoll = 256 * time.Millisecond
	// patience is how long they are waited for in all, after which Revoke says so.
	patience = 5 * time.Second
	// settling is how long the server may take to make a session of what it has let
	// in. Clients can keep it longer, and are not let in then.
	settling = time.Second
)

// Revoke implements provider.Provider. Each step is committed before the next: the
// login's end, its sessions, what they left prepared, what they left behind, its
// name, and sessions that began meanwhile.
func (p *postgres) Revoke(ctx context.Context, handle provider.Handle) error {
	login := handle[handleLogin]
	if !loginForm.MatchString(login) {
		return errors.New("postgresql: the handle names no login")
	}
	return p.server.with(ctx, func(conn *pgx.Conn) error { return p.revoke(ctx, conn, login, handle[handleOID]) })
}

// lived is a login as Revoke finds it.
type lived struct {
	oid      uint32 // 0 where it is not known
	there    bool
	holders  []string
	prepared int // transactions, its own and its holders'
}

func (p *postgres) revoke(ctx context.Context, conn *pgx.Conn, login, known string) error {
	found, err := p.look(ctx, conn, login)
	if err != nil {
		return err
	}
	if !found.there {
		if err := p.await(ctx, conn, login); err != nil {
			return err
		}
		if found, err = p.look(ctx, conn, login); err != nil {
			return err
		}
	}
	if !found.there {
		oid, err := strconv.ParseUint(known, 10, 32)
		if err != nil {
			return nil // the mint's answer was lost, so nobody has ever had it
		}
		return p.cut(ctx, conn, uint32(oid), login)
	}
	if err := p.close(ctx, conn, login, found.holders); err != nil {
		return err
	}
	alive := p.cut(ctx, conn, found.oid, login) // what can go on without, does
	if errors.Is(alive, context.Canceled) || errors.Is(alive, context.DeadlineExceeded) {
		return alive
	}
	if found.prepared > 0 {
		if err := p.rollBack(ctx, conn, login, found.holders); err != nil {
			return errors.Join(alive, err)
		}
	}
	if alive != nil && known == "" {
		return alive // without its name, its session could not be found again
	}
	if err := p.server.drop(ctx, conn, login); err != nil {
		return errors.Join(alive, err)
	}
	return p.cut(ctx, conn, found.oid, login)
}

// look finds a login, and what there is of it.
func (p *postgres) look(ctx context.Context, conn *pgx.Conn, login string) (lived, error) {
	var found lived
	err := conn.QueryRow(ctx, `SELECT r.oid,
       ARRAY(SELECT h.rolname::text FROM pg_auth_members m JOIN pg_roles h ON h.oid = m.roleid WHERE m.member = r.oid),
       (SELECT count(*)::integer FROM pg_prepared_xacts x
         WHERE x.owner = r.rolname OR x.owner IN (SELECT h.rolname FROM pg_auth_members m JOIN pg_roles h ON h.oid = m.roleid WHERE m.member = r.oid))
  FROM pg_roles r WHERE r.rolname = $1`, login).Scan(&found.oid, &found.holders, &found.prepared)
	if errors.Is(err, pgx.ErrNoRows) {
		return lived{}, nil
	}
	found.there = true
	return found, said("looking for a login", err)
}

// await waits for a mint that nobody waits for any more, and that the server may
// still be at.
func (p *postgres) await(ctx context.Context, conn *pgx.Conn, login string) error {
	return poll(ctx, patience, func() (bool, error) {
		var busy bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
 WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND application_name = $1)`, underWay(login)).Scan(&busy)
		return !busy, said("looking for a mint", err)
	}, errors.New("postgresql: the login's mint is still under way"))
}

// close takes from a login all that it could begin something with.
func (p *postgres) close(ctx context.Context, conn *pgx.Conn, login string, holders []string) error {
	statements := []string{"ALTER ROLE " + ident(login) + " NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL VALID UNTIL '-infinity'"}
	for _, holder := range holders {
		statements = append(statements, "REVOKE "+ident(holder)+" FROM "+ident(login))
	}
	return said("ALTER ROLE", send(ctx, conn, statements...))
}

// cut ends the sessions of a login, and returns nil once there are none. The server
// may have given the number of a login that is gone to another role since.
func (p *postgres) cut(ctx context.Context, conn *pgx.Conn, oid uint32, login string) error {
	return poll(ctx, patience, func() (bool, error) {
		var left int
		err := conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid))::integer FROM pg_stat_activity
 WHERE usesysid = $1 AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = $1 AND r.rolname <> $2)`, oid, login).Scan(&left)
		if isState(err, insufficientPrivilege) && join(ctx, conn, login) == nil {
			return false, nil
		}
		return left == 0, lacks("ending sessions of "+login, err, fieldUsername, p.server.username, "GRANT pg_signal_backend TO "+ident(p.server.username))
	}, errors.New("postgresql: a session of the login has not ended yet"))
}

// poll asks until the answer is yes, but not for long: 2, 4, 8 ms and so on apart.
func poll(ctx context.Context, long time.Duration, done func() (bool, error), late error) error {
	deadline := time.Now().Add(long)
	for wait := firstPoll; ; wait = min(2*wait, longestPoll) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return late
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rollBack rolls back what a login's sessions have left prepared. A session that has
// taken on its holder's role prepares as that, which nobody else has a reason to.
func (p *postgres) rollBack(ctx context.Context, conn *pgx.Conn, login string, holders []string) error {
	type transaction struct{ ID, Owner, Database string }
	rows, err := conn.Query(ctx, "SELECT gid, owner::text, database::text FROM pg_prepared_xacts WHERE owner = ANY ($1::text[])", append([]string{login}, holders...))
	if err != nil {
		return said("prepared transactions", err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowToStructByPos[transaction])
	if err != nil {
		return said("prepared transactions", err)
	}
	for _, one := range left {
		err := p.server.onDatabase(ctx, one.Database, func(conn *pgx.Conn) error {
			if err := join(ctx, conn, one.Owner); err != nil {
				return err
			}
			if one.Owner != login {
				defer func() { _, _ = conn.Exec(ctx, "RESET ROLE; REVOKE "+ident(one.Owner)+" FROM CURRENT_USER") }()
			}
			if _, err := conn.Exec(ctx, "SET ROLE "+ident(one.Owner)); err != nil {
				return err
			}
			_, err := conn.Exec(ctx, "ROLLBACK PREPARED "+literal(one.ID))
			if isState(err, undefinedObject) {
				return nil // somebody else has
			}
			return err
		})
		if err != nil {
			return said(fmt.Sprintf("rolling back a prepared transaction in database %s", one.Database), err)
		}
	}
	return nil
}
