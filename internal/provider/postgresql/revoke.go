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
	// settling is how long the server may take to make a session of what it has let in.
	// A client can have it take longer, as with post_auth_delay.
	settling = 500 * time.Millisecond
)

// Revoke implements provider.Provider.
func (p *postgres) Revoke(ctx context.Context, handle provider.Handle) error {
	left, err := p.Kill(ctx, handle)
	if err == nil && left {
		return errBegun
	}
	return err
}

// Tidy implements provider.Killer.
func (p *postgres) Tidy(ctx context.Context, handle provider.Handle) error {
	return p.Revoke(ctx, handle)
}

// Kill implements provider.Killer. Each step is committed before the next: the
// login's end, its sessions, what they left prepared, what they left behind, its
// name, and sessions that began meanwhile. It leaves the name of a login while some
// client is held back that may have been let in by it, so that the watchdog knows the
// session when it appears. It could do nothing any more.
func (p *postgres) Kill(ctx context.Context, handle provider.Handle) (left bool, err error) {
	login := handle[handleLogin]
	if !loginForm.MatchString(login) {
		return false, errors.New("postgresql: the handle names no login")
	}
	err = p.server.with(ctx, func(conn *pgx.Conn) error {
		left, err = p.kill(ctx, conn, login, handle)
		return err
	})
	return left, err
}

// lived is a login as Kill finds it.
type lived struct {
	oid      uint32 // 0 where it is not known
	there    bool
	holders  []string // that it is or was a member of
	prepared int      // transactions, its own and its holders'
}

func (p *postgres) kill(ctx context.Context, conn *pgx.Conn, login string, handle provider.Handle) (left bool, err error) {
	found, err := p.look(ctx, conn, login, handle[handleHolder])
	if err != nil {
		return false, err
	}
	if !found.there {
		if err := p.await(ctx, conn, login); err != nil {
			return false, err
		}
		if found, err = p.look(ctx, conn, login, handle[handleHolder]); err != nil {
			return false, err
		}
	}
	if !found.there {
		oid, err := strconv.ParseUint(handle[handleOID], 10, 32)
		if err != nil {
			return false, nil // the mint's answer was lost, so nobody has ever had it
		}
		if now, err := p.renamed(ctx, conn, uint32(oid), handle); err != nil {
			return false, err
		} else if now != "" {
			if found, err = p.look(ctx, conn, now, handle[handleHolder]); err != nil {
				return false, err
			}
			return p.end(ctx, conn, now, handle, found)
		}
		return false, p.cut(ctx, conn, uint32(oid), login)
	}
	return p.end(ctx, conn, login, handle, found)
}

// renamed is what a login is called now, by its number and its mark; empty where the
// number is nobody's, or somebody else's.
func (p *postgres) renamed(ctx context.Context, conn *pgx.Conn, oid uint32, handle provider.Handle) (string, error) {
	bears := mark{mount: handle[handleMount], ledger: handle[handleLedger], grant: handle[handleGrant]}
	var name string
	err := conn.QueryRow(ctx, "SELECT rolname::text FROM pg_roles WHERE oid = $1 AND shobj_description(oid, 'pg_authid') = $2", oid, bears.String()).Scan(&name)
	if noRows(err) {
		return "", nil
	}
	return name, said("looking for a login of another name", err)
}

// end is kill for a login that is there.
func (p *postgres) end(ctx context.Context, conn *pgx.Conn, login string, handle provider.Handle, found lived) (left bool, err error) {
	known := handle[handleOID]
	if err := p.close(ctx, conn, login, found.holders); err != nil {
		return false, err
	}
	begun, err := p.begun(ctx, conn)
	if err != nil {
		return false, err
	}
	alive := p.cut(ctx, conn, found.oid, login) // what can go on without, does
	if errors.Is(alive, context.Canceled) || errors.Is(alive, context.DeadlineExceeded) {
		return false, alive
	}
	if found.prepared > 0 {
		if err := p.rollBack(ctx, conn, login, found.holders); err != nil {
			return false, errors.Join(alive, err)
		}
	}
	if alive != nil && known == "" {
		return false, alive // without its name, its session could not be found again
	}
	if alive == nil {
		if left, err := p.unsettled(ctx, conn, begun); left || err != nil {
			return left, err
		}
	}
	if err := p.server.drop(ctx, conn, login); err != nil {
		return false, errors.Join(alive, err)
	}
	return false, p.cut(ctx, conn, found.oid, login)
}

// starting are the server's processes that are about to become sessions: they are in
// a transaction, and can't be seen among the sessions yet. One that a client has yet
// to give a password to is not among them where admitted is true.
const (
	starting = `SELECT l.pid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid)`
	admitted = ` AND EXISTS (SELECT FROM pg_locks d WHERE d.pid = l.pid AND d.locktype = 'object' AND d.classid = 'pg_database'::regclass)`
)

// begun lists those that may be a login's whose end is committed.
func (p *postgres) begun(ctx context.Context, conn *pgx.Conn) ([]int32, error) {
	rows, err := conn.Query(ctx, starting)
	if err != nil {
		return nil, said("looking for sessions that begin", err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	return pids, said("looking for sessions that begin", err)
}

// unsettled says whether some of those are not sessions yet although they were waited
// for. Who has not given a password yet will not be let in.
func (p *postgres) unsettled(ctx context.Context, conn *pgx.Conn, begun []int32) (bool, error) {
	if len(begun) == 0 {
		return false, nil
	}
	still := func(which string) (left bool, err error) {
		err = conn.QueryRow(ctx, "SELECT EXISTS ("+starting+which+" AND l.pid = ANY ($1))", begun).Scan(&left)
		return left, said("looking for sessions that begin", err)
	}
	err := poll(ctx, settling, func() (bool, error) {
		left, err := still("")
		return !left, err
	}, errBegun)
	if errors.Is(err, errBegun) {
		return still(admitted)
	}
	return false, err
}

var errBegun = errors.New("postgresql: the login is dead, and a client is held back that may have been let in by it before")

// look finds a login, and what there is of it. The watchdog may have taken it out of
// its holder.
func (p *postgres) look(ctx context.Context, conn *pgx.Conn, login, holder string) (lived, error) {
	var found lived
	err := conn.QueryRow(ctx, `WITH held AS (
  SELECT h.rolname FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid JOIN pg_roles h ON h.oid = m.roleid WHERE r.rolname = $1
  UNION SELECT rolname FROM pg_roles WHERE rolname = $2
)
SELECT r.oid, ARRAY(SELECT rolname::text FROM held), (SELECT count(*)::integer FROM pg_prepared_xacts x WHERE x.owner = r.rolname OR x.owner IN (SELECT rolname FROM held))
  FROM pg_roles r WHERE r.rolname = $1`, login, holder).Scan(&found.oid, &found.holders, &found.prepared)
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
	// The watchdog may be at it, too.
	return said("ALTER ROLE", again(ctx, func() error { return send(ctx, conn, statements...) }))
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
