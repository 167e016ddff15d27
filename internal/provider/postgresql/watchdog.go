package postgresql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The watchdog is a session of the engine's that outlives its client, and so Vault:
// it takes from a mount's logins whose time has passed what they hold, and ends their
// sessions, which VALID UNTIL does not. The server runs one for each mount, and it ends itself when the mount has
// had no login for a while.

// watchdogName is the application_name of a mount's watchdog.
func watchdogName(mount string) string { return prefix(mount) + "watchdog" }

// watchdogs finds the mount's watchdog, whose name is $1. Anybody can take on a name,
// and nobody but the engine is the engine.
const watchdogs = `SELECT FROM pg_stat_activity w
 WHERE w.application_name = $1 AND w.usesysid = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND w.state <> 'idle'`

// watchdogProgram takes the patterns of the logins' names and of the holders'. Of two, the one that began
// later ends itself. It says nothing to its client, which may be gone: a word would end it.
const watchdogProgram = `DO LANGUAGE plpgsql $watchdog$
DECLARE
  me record;
  late record;
  quiet integer := 0;
BEGIN
  SELECT pid, backend_start, usesysid, application_name INTO me FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid();
  LOOP
    BEGIN
      -- A client that was let in before and is held back until after has nothing then. Others'
      -- memberships stay: their grantors can lock those, and so hold up what follows.
      FOR late IN SELECT r.rolname AS login, h.rolname AS holder FROM pg_catalog.pg_roles r
                    JOIN pg_catalog.pg_auth_members m ON m.member = r.oid JOIN pg_catalog.pg_roles h ON h.oid = m.roleid
                   WHERE r.rolname LIKE %[1]s AND h.rolname LIKE %[4]s AND r.rolvaliduntil <= pg_catalog.clock_timestamp()
      LOOP
        BEGIN
          EXECUTE pg_catalog.format('REVOKE %%I FROM %%I', late.holder, late.login);
        EXCEPTION WHEN OTHERS THEN
          NULL; -- the others are to end all the same
        END;
      END LOOP;
      FOR late IN SELECT a.pid FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
                   WHERE r.rolname LIKE %[1]s AND r.rolvaliduntil <= pg_catalog.clock_timestamp()
      LOOP
        BEGIN
          PERFORM pg_catalog.pg_terminate_backend(late.pid);
        EXCEPTION WHEN OTHERS THEN
          NULL;
        END;
      END LOOP;
      quiet := CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname LIKE %[1]s AND rolcanlogin) THEN 0 ELSE quiet + 1 END;
    EXCEPTION WHEN OTHERS THEN
      quiet := quiet + 1;
    END;
    EXIT WHEN quiet > %[2]d;
    EXIT WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.application_name = me.application_name AND a.usesysid = me.usesysid
                         AND a.state <> 'idle' AND (a.backend_start, a.pid) < (me.backend_start, me.pid));
    COMMIT; -- what is seen of other sessions is kept until then
    PERFORM pg_catalog.pg_sleep(%[3]g);
  END LOOP;
END $watchdog$`

const (
	watchEvery = 200 * time.Millisecond
	watchQuiet = 5 * time.Minute  // without a login, after which it ends
	watchBegin = 3 * time.Second  // for it to begin
	watchAgain = 30 * time.Second // after a start that failed; until then nobody waits for another
)

// watch starts watchdogs.
type watch struct {
	server *server
	mu     sync.Mutex // one start at a time
	failed error      // the last start, unless it went well
	at     time.Time  // when
}

func newWatch(server *server) *watch { return &watch{server: server} }

// unwatched is the warning where no watchdog runs.
func unwatched(err error) string {
	return fmt.Sprintf("what ends open sessions at their time without Vault could not be started, so that they go on until Vault ends them: %v", err)
}

// speaks says whether the engine may use the language that the watchdog is written in.
func speaks(ctx context.Context, asked querier) (bool, error) {
	var may bool
	err := asked.QueryRow(ctx, "SELECT has_language_privilege('plpgsql', 'USAGE')").Scan(&may)
	return may, said("whether plpgsql may be used", err)
}

func errSpeechless(username string) error {
	return errors.New("the engine's login may not use plpgsql; GRANT USAGE ON LANGUAGE plpgsql TO " + ident(username))
}

// start sees to it that a mount's watchdog runs.
func (w *watch) start(ctx context.Context, mount string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil && time.Since(w.at) < watchAgain {
		return w.failed
	}
	w.failed, w.at = w.begin(ctx, mount), time.Now()
	return w.failed
}

func (w *watch) begin(ctx context.Context, mount string) error {
	runs, err := w.runs(ctx, mount)
	if err != nil || runs {
		return err
	}
	if err := w.send(ctx, mount); err != nil {
		return err
	}
	return poll(ctx, patience, func() (bool, error) { return w.runs(ctx, mount) }, errors.New("postgresql: the watchdog does not run"))
}

// runs says whether a mount's watchdog runs.
func (w *watch) runs(ctx context.Context, mount string) (bool, error) {
	conn, err := w.server.borrow(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	var runs bool
	err = conn.QueryRow(ctx, "SELECT EXISTS ("+watchdogs+")", watchdogName(mount)).Scan(&runs)
	return runs, said("looking for the watchdog", err)
}

// send makes a session that becomes the watchdog, and leaves it alone.
func (w *watch) send(ctx context.Context, mount string) error {
	ctx, cancel := context.WithTimeout(ctx, watchBegin)
	defer cancel()
	conn, err := w.server.dial(ctx, w.server.database, map[string]string{
		"application_name": watchdogName(mount), "client_min_messages": "error",
		"statement_timeout": "0", "lock_timeout": "1s", "idle_in_transaction_session_timeout": "0", "client_connection_check_interval": "0",
	})
	if err != nil {
		return err
	}
	may, err := speaks(ctx, conn)
	if err == nil && !may {
		err = errSpeechless(w.server.username)
	}
	if err != nil {
		closeConn(conn)
		return err
	}
	program := fmt.Sprintf(watchdogProgram, literal(likeLogins(mount)), int(watchQuiet/watchEvery), watchEvery.Seconds(), literal(likeHolders(mount)))
	raw, err := conn.PgConn().Hijack()
	if err != nil {
		closeConn(conn)
		return fmt.Errorf("postgresql: %w", err)
	}
	defer raw.Conn.Close() // without a word: the server looks for its client only when it has something to say
	raw.Frontend.Send(&pgproto3.Query{String: program})
	if err := raw.Frontend.Flush(); err != nil {
		return fmt.Errorf("postgresql: starting the watchdog: %w", err)
	}
	return nil
}

// likeLogins is the pattern of the names of a mount's logins, and of its holders.
func likeLogins(mount string) string { return strings.ReplaceAll(prefix(mount), "_", `\_`) + "%" }

// likeHolders is the pattern of the names of a mount's holders.
func likeHolders(mount string) string { return strings.ReplaceAll(prefix(mount)+"h_", "_", `\_`) + "%" }
