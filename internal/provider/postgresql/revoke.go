package postgresql

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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
	// membershipLockTimeout is how long taking the holder role away waits for mints of
	// the same holder. Nobody else can lock a membership of the engine's.
	membershipLockTimeout = 2 * time.Second
	// loginLockTimeout is how long closing a login waits before it is forced. The login
	// itself can lock its row.
	loginLockTimeout = 20 * time.Millisecond
)

// Revoke implements provider.Provider. What strangers keep it from removing is disabled,
// and OrphanFinder finds it.
func (p *postgres) Revoke(ctx context.Context, handle provider.Handle) error {
	left, err := p.kill(ctx, handle)
	if err == nil && !isState(left, dependentObjects, insufficientPrivilege, lockNotAvailable) {
		return left
	}
	return err
}

// Kill implements provider.Killer: it disables the login, and removes it unless
// something keeps it from being removed. Then it has a name of its own for clean-up.
func (p *postgres) Kill(ctx context.Context, handle provider.Handle) (bool, error) {
	left, err := p.kill(ctx, handle)
	return left != nil, err
}

// kill disables a login, and says why something of it is left.
func (p *postgres) kill(ctx context.Context, handle provider.Handle) (left, err error) {
	r, err := p.revocation(ctx, handle)
	if err != nil {
		return nil, err
	}
	defer r.giveBack()
	if there, err := r.find(ctx); err != nil {
		return nil, err
	} else if !there {
		return nil, r.cutEverywhere(ctx)
	}
	begun, err := r.disable(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.standbys(ctx); err != nil {
		return nil, err
	}
	held, err := p.unsettled(ctx, r.conn, begun)
	if err != nil {
		return nil, err
	}
	if left = errBegun; !held {
		left, err = r.cleanUp(ctx, killCleanup)
	}
	switch {
	case left != nil && err != nil: // it is disabled, and keeps its name
		return left, nil
	case left != nil:
		r.setAside(ctx)
		return left, nil
	case err != nil:
		return nil, err
	}
	return nil, r.cut(ctx)
}

// Tidy implements provider.Killer: it removes a login that is disabled. The error is a
// *provider.CleanupBlocked where something that is not the engine's is in the way.
func (p *postgres) Tidy(ctx context.Context, handle provider.Handle) error {
	r, err := p.revocation(ctx, handle)
	if err != nil {
		return err
	}
	defer r.giveBack()
	if there, err := r.find(ctx); err != nil {
		return err
	} else if !there {
		return r.cutEverywhere(ctx)
	}
	begun, err := r.disable(ctx) // again: it costs little, and somebody may have enabled it
	if err != nil {
		return err
	}
	if held, err := p.unsettled(ctx, r.conn, begun); err != nil {
		return err
	} else if held { // anybody can be held back, again and again
		return &provider.CleanupBlocked{Reason: errBegun.Error(), Remedy: endStarting}
	}
	left, err := r.cleanUp(ctx, tidyCleanup)
	if err != nil {
		return errors.Join(left, err)
	}
	if left != nil {
		r.setAside(ctx)
		return p.blocked(ctx, r.conn, r.name, left)
	}
	return r.cut(ctx)
}

// revocation is one login that is being revoked, over one connection.
type revocation struct {
	p       *postgres
	lent    *pgxpool.Conn
	conn    *pgx.Conn // the lent one
	handle  provider.Handle
	name    string   // of the login now
	oid     uint32   // 0 where it is not known
	holders []string // of the engine's, that the login is or was a member of
}

func (p *postgres) revocation(ctx context.Context, handle provider.Handle) (*revocation, error) {
	if !loginForm.MatchString(handle[handleLogin]) {
		return nil, errors.New("postgresql: the handle names no login")
	}
	r := &revocation{p: p, handle: handle, name: handle[handleLogin]}
	return r, r.borrow(ctx)
}

// borrow borrows the connection, and giveBack returns it. The latter is idempotent.
func (r *revocation) borrow(ctx context.Context) (err error) {
	if r.lent, err = r.p.server.forRevocation(ctx); err == nil {
		r.conn = r.lent.Conn()
	}
	return err
}

func (r *revocation) giveBack() {
	if r.lent != nil {
		r.lent.Release()
	}
	r.lent = nil
}

// cleanUp removes the login, and says why it is left. Clean-up may wait for strangers'
// locks: meanwhile other logins are revoked over the connection.
func (r *revocation) cleanUp(ctx context.Context, longest time.Duration) (left, err error) {
	r.giveBack()
	left = r.p.cleanUp(ctx, r.name, longest)
	return left, r.borrow(ctx)
}

// setAsideName is what a login is called that is disabled and could not be removed.
func setAsideName(handle provider.Handle) string {
	return prefix(handle[handleMount]) + "cleanup_" + handle[handleGrant]
}

// find finds the login, under the name that it has now, and says whether it is there.
// It waits for a mint that nobody waits for any longer.
func (r *revocation) find(ctx context.Context) (bool, error) {
	there, err := r.look(ctx)
	if err != nil || there {
		return there, err
	}
	if err := r.p.await(ctx, r.conn, r.handle[handleLogin]); err != nil {
		return false, err
	}
	if there, err = r.look(ctx); there || err != nil {
		return there, err
	}
	if known, err := strconv.ParseUint(r.handle[handleOID], 10, 32); err == nil {
		r.oid = uint32(known)
	}
	return false, nil
}

// look finds the login by its name, or by its mark under another one. The server may
// have given its number to another role since. The watchdog may have taken it out of
// its holder.
func (r *revocation) look(ctx context.Context) (bool, error) {
	bears := mark{mount: r.handle[handleMount], ledger: r.handle[handleLedger], grant: r.handle[handleGrant]}
	err := r.conn.QueryRow(ctx, `WITH login AS (
  SELECT r.oid, r.rolname FROM pg_roles r WHERE (r.rolname IN ($1, $2) OR r.oid = nullif($3::text, '')::oid)
     AND (r.rolname = $1 OR shobj_description(r.oid, 'pg_authid') = $4)
   ORDER BY r.rolname = $1 DESC LIMIT 1
), held AS (
  SELECT h.rolname FROM login l JOIN pg_auth_members m ON m.member = l.oid JOIN pg_roles h ON h.oid = m.roleid WHERE h.rolname LIKE $5
  UNION SELECT rolname FROM pg_roles WHERE rolname = $6
)
SELECT l.oid, l.rolname::text, ARRAY(SELECT rolname::text FROM held) FROM login l`, r.handle[handleLogin], setAsideName(r.handle), r.handle[handleOID], bears.String(), likeHolders(r.handle[handleMount]), r.handle[handleHolder]).
		Scan(&r.oid, &r.name, &r.holders)
	if noRows(err) {
		return false, nil
	}
	return err == nil, said("looking for a login", err)
}

// disable takes from a login all that it can do: its holder role first, in a
// transaction of its own, since nobody else can lock that membership; then logging in;
// then its sessions, and what they have prepared. It returns the server's processes
// that may be about to become sessions of the login.
func (r *revocation) disable(ctx context.Context) (begun []int32, err error) {
	left := r.leaveHolders(ctx)
	if ctx.Err() != nil {
		return nil, left
	}
	closed := r.noLogin(ctx)
	if left != nil {
		left = r.leaveHolders(ctx)
	}
	begun, err = r.p.begun(ctx, r.conn)
	return begun, errors.Join(left, closed, err, r.cut(ctx), r.rollBack(ctx, 0)) // each is done, whatever becomes of the others
}

// leaveHolders takes the engine's own roles from the login. What others have given it
// goes with it.
func (r *revocation) leaveHolders(ctx context.Context) error {
	var failed []error
	for _, holder := range r.holders {
		failed = append(failed, said("REVOKE", again(ctx, func() error { // the watchdog may be at it, too
			return send(ctx, r.conn, "SET LOCAL lock_timeout = "+literal(milliseconds(membershipLockTimeout)), "REVOKE "+ident(holder)+" FROM "+ident(r.name))
		})))
	}
	return errors.Join(failed...)
}

// closing are the statements that let nobody in by a login any longer.
func closing(login string, timeout time.Duration) []string {
	return []string{
		"SET LOCAL lock_timeout = " + literal(milliseconds(timeout)),
		"ALTER ROLE " + ident(login) + " NOLOGIN CONNECTION LIMIT 0 PASSWORD NULL VALID UNTIL '-infinity'",
	}
}

// noLogin closes the login. Where its row is locked it is closed by force.
func (r *revocation) noLogin(ctx context.Context) error {
	err := again(ctx, func() error { return send(ctx, r.conn, closing(r.name, loginLockTimeout)...) })
	if isState(err, lockNotAvailable) {
		err = r.force(ctx)
	}
	return said("ALTER ROLE", err)
}

// force closes a login whose row somebody has locked. A second connection waits for the
// row, and so is the next to get it, while the first ends what may have locked it: the
// login's sessions, what they have prepared, and at last those who wait in front.
func (r *revocation) force(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pids, closed := make(chan uint32, 1), make(chan error, 1)
	go func() { closed <- r.p.server.closeLogin(ctx, r.name, pids) }()
	var waiting uint32
	for wait := firstPoll; ; wait = min(2*wait, longestPoll) {
		left, err := r.terminate(ctx)
		if err == nil && waiting != 0 {
			err = r.rollBack(ctx, waiting)
		}
		if err == nil && left == 0 && waiting != 0 {
			err = r.unblock(ctx, waiting)
		}
		if err != nil && ctx.Err() == nil {
			cancel()
			<-closed
			return err
		}
		select {
		case err := <-closed:
			return err
		case waiting = <-pids:
		case <-time.After(wait):
		}
	}
}

// closeLogin closes a login on a connection of its own, and tells that connection's
// process. It tries again where the server has no connection free: sessions of the
// login are being ended meanwhile.
func (s *server) closeLogin(ctx context.Context, login string, pids chan<- uint32) error {
	for {
		conn, err := s.dial(ctx, s.database, nil)
		if err == nil {
			defer closeConn(conn)
			pids <- conn.PgConn().PID()
			return again(ctx, func() error { return send(ctx, conn, closing(login, patience)...) })
		}
		if !isState(err, tooManyConnections) {
			return err
		}
		select {
		case <-time.After(firstPoll):
		case <-ctx.Done():
			return err
		}
	}
}

// unblock ends the sessions that the closing of the login waits for, other than the
// engine's own. A member of the login can act as the login, where somebody with CREATEROLE
// has made one on PostgreSQL 15.
func (r *revocation) unblock(ctx context.Context, waiting uint32) error {
	_, err := r.conn.Exec(ctx, `SELECT pg_terminate_backend(a.pid) FROM unnest(pg_blocking_pids($1)) b (pid)
  JOIN pg_stat_activity a ON a.pid = b.pid AND a.usename <> current_user`, int32(waiting))
	if isState(err, insufficientPrivilege) {
		return nil // a superuser's, who is waited for
	}
	return said("ending what blocks the login", err)
}

// terminate tells the sessions of the login to end, and counts them.
func (r *revocation) terminate(ctx context.Context) (left int, err error) {
	err = r.conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid))::integer FROM pg_stat_activity
 WHERE usesysid = $1 AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = $1 AND r.rolname <> $2)`, r.oid, r.name).Scan(&left)
	if isState(err, insufficientPrivilege) && join(ctx, r.conn, r.name) == nil {
		return 1, nil
	}
	return left, lacks("ending sessions of "+r.name, err, fieldUsername, r.p.server.username, "GRANT pg_signal_backend TO "+ident(r.p.server.username))
}

// cut ends the sessions of the login, and returns nil once there are none.
func (r *revocation) cut(ctx context.Context) error {
	return poll(ctx, patience, func() (bool, error) {
		left, err := r.terminate(ctx)
		return left == 0, err
	}, errors.New("postgresql: a session of the login has not ended yet"))
}

// cutEverywhere ends the sessions of a login that is gone.
func (r *revocation) cutEverywhere(ctx context.Context) error {
	if r.oid == 0 {
		return nil // the mint's answer was lost, so nobody has ever had it
	}
	if err := r.cut(ctx); err != nil {
		return err
	}
	return r.standbys(ctx)
}

// setAside gives a login that could not be removed a name that says so. It does without
// where the name can't be changed.
func (r *revocation) setAside(ctx context.Context) {
	aside := setAsideName(r.handle)
	if r.name == aside {
		return
	}
	err := send(ctx, r.conn, "SET LOCAL lock_timeout = "+literal(milliseconds(cleanupLockTimeout)), "ALTER ROLE "+ident(r.name)+" RENAME TO "+ident(aside))
	if err == nil {
		r.name = aside
	}
}

// starting are the server's processes that are about to become sessions: they are in
// a transaction, and nobody can see yet whose. PostgreSQL 18 shows them without a user and
// a database. One that a client has yet to give a password to is not among them where
// admitted is true.
const (
	starting = `SELECT l.pid FROM pg_locks l WHERE l.locktype = 'virtualxid'
  AND NOT EXISTS (SELECT FROM pg_stat_activity a
                   WHERE a.pid = l.pid AND (a.usesysid IS NOT NULL OR a.datid IS NOT NULL))`
	admitted = ` AND EXISTS (SELECT FROM pg_locks d WHERE d.pid = l.pid AND d.locktype = 'object' AND d.classid = 'pg_database'::regclass)`
)

// endStarting ends them, for an operator.
const endStarting = "SELECT pg_terminate_backend(pid) FROM (" + starting + admitted + ") held_back"

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

var errBegun = errors.New("postgresql: the login is disabled, and a client is held back that may have been let in by it before")

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
