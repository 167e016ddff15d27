package postgresql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// querier is a connection, a pool or a transaction.
type querier interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, arguments ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, arguments ...any) pgx.Row
}

// ident quotes a name, or the parts of one, for SQL.
func ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// literal quotes a text for SQL. Every connection of the engine's has
// standard_conforming_strings on, so a backslash is a backslash.
func literal(text string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(text, "\x00", ""), "'", "''") + "'"
}

// engineName is the application_name of the engine's connections.
const engineName = "vault-plugin-secrets-precision"

// pinned are settings that the engine's sessions have whatever its role, its
// database or the server says: those that change what a text means, and those that
// keep a statement from going on when nobody waits for it.
var pinned = map[string]string{
	"application_name":                    engineName,
	"client_encoding":                     "UTF8",
	"search_path":                         "pg_catalog",
	"standard_conforming_strings":         "on",
	"synchronous_commit":                  "on", // what is ended stays ended when the server crashes
	"backslash_quote":                     "safe_encoding",
	"transform_null_equals":               "off",
	"DateStyle":                           "ISO, YMD",
	"IntervalStyle":                       "postgres",
	"TimeZone":                            "UTC",
	"bytea_output":                        "hex",
	"extra_float_digits":                  "1",
	"default_transaction_isolation":       "read committed",
	"default_transaction_read_only":       "off",
	"default_transaction_deferrable":      "off",
	"row_security":                        "on",
	"quote_all_identifiers":               "off",
	"check_function_bodies":               "on",
	"xmloption":                           "content",
	"statement_timeout":                   "30s",
	"lock_timeout":                        "10s",
	"idle_in_transaction_session_timeout": "60s",
	"idle_session_timeout":                "0", // one connection stays open for revocation
	"client_connection_check_interval":    "1s",
}

const (
	idleTime   = time.Minute // after which a connection is closed
	lifeTime   = 30 * time.Minute
	lookAround = 30 * time.Second
	// cancelGrace is how long the server has to say that it has cancelled a
	// statement: what it says is better than not to know.
	cancelGrace = 3 * time.Second
)

// server is one PostgreSQL server, and the engine's own login on it. Nothing is
// connected before it is needed.
type server struct {
	address
	username  string
	passwords *passwords
	maxOpen   int32

	mints    connections // for all that somebody waits for, but for revocation
	revokes  connections // for disabling credentials; one stays open
	cleanups connections // for removing what is disabled, which may wait for strangers' locks
}

// connections is a pool of connections to the target's own database. It is created when
// it is first used.
type connections struct {
	once sync.Once
	pool *pgxpool.Pool
	err  error // of creating the pool
}

const (
	// cleanupLockTimeout is how long clean-up waits for a lock. Strangers can hold locks
	// on what they have granted to a login.
	cleanupLockTimeout = 500 * time.Millisecond
	// keptOpen is the lifetime of a connection for revocation. Another one may not get in.
	keptOpen = 365 * 24 * time.Hour
)

// share is the size of the pool for revocation, and of the one for clean-up.
func (s *server) share() int32 { return max(2, s.maxOpen/2) }

// passwords are those that the engine's login may have: the stored one first, and
// the one before it while a rotation is under way.
type passwords struct {
	all []string
	at  atomic.Int32 // the one that worked last
}

func (p *passwords) now() (int32, string) {
	at := p.at.Load()
	return at, p.all[at]
}

// config is how a database of the server is connected to.
func (s *server) config(database, password string) (*pgxpool.Config, error) {
	// What is given here can't be wrong; what the environment adds is overwritten.
	config, err := pgxpool.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
	}
	to := config.ConnConfig
	to.Host, to.Port, to.Database, to.User, to.Password = s.host, s.port, database, s.username, password
	to.ConnectTimeout, to.TLSConfig, to.RuntimeParams = s.timeout, s.tls, maps.Clone(pinned)
	to.Fallbacks, to.ValidateConnect = nil, nil
	to.AfterConnect = askVersion
	// Most statements are said once, and none is worth a round trip of its own before.
	to.DefaultQueryExecMode = pgx.QueryExecModeExec
	if s.encryption == prefer {
		to.Fallbacks = []*pgconn.FallbackConfig{{Host: s.host, Port: s.port}}
	}
	to.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelGrace}
	}
	return config, nil
}

// of is the pool, as adjust has it.
func (c *connections) of(s *server, adjust func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	c.once.Do(func() {
		var config *pgxpool.Config
		if config, c.err = s.config(s.database, ""); c.err != nil {
			return
		}
		config.MaxConns, config.MinConns = s.maxOpen, 0
		config.MaxConnIdleTime, config.MaxConnLifetime, config.HealthCheckPeriod = idleTime, lifeTime, lookAround
		adjust(config)
		secrets := s.passwords // and not s, which the pool must not keep alive
		config.BeforeConnect = func(_ context.Context, to *pgx.ConnConfig) error {
			_, to.Password = secrets.now()
			return nil
		}
		if c.pool, c.err = pgxpool.NewWithConfig(context.Background(), config); c.err == nil {
			runtime.AddCleanup(s, func(pool *pgxpool.Pool) { go pool.Close() }, c.pool)
		}
	})
	if c.err != nil {
		return nil, fmt.Errorf("postgresql: %w", c.err)
	}
	return c.pool, nil
}

// borrow lends a connection to the target's own database. What it is used for must
// leave it as it was.
func (s *server) borrow(ctx context.Context) (*pgxpool.Conn, error) {
	pool, err := s.mints.of(s, func(*pgxpool.Config) {})
	return s.acquire(ctx, pool, err)
}

// forRevocation lends a connection that mints and clean-up don't compete for. Where the
// server has none free, it waits for the one that is kept open.
func (s *server) forRevocation(ctx context.Context) (*pgxpool.Conn, error) {
	pool, err := s.revocations()
	if err != nil {
		return nil, err
	}
	var lent *pgxpool.Conn
	var full error
	late := poll(ctx, patience, func() (bool, error) {
		lent, err = s.acquire(ctx, pool, nil)
		if isState(err, tooManyConnections) {
			full = err
			return false, nil
		}
		return true, err
	}, errFull)
	if errors.Is(late, errFull) {
		return nil, full
	}
	return lent, late
}

var errFull = errors.New("postgresql: the server has no connection free")

// revocations is the pool for revocation. Creating it opens the connection that stays
// open, so that a server whose connections are all taken can still be told to revoke.
func (s *server) revocations() (*pgxpool.Pool, error) {
	return s.revokes.of(s, func(config *pgxpool.Config) {
		config.MaxConns, config.MinConns, config.MaxConnLifetime = s.share(), 1, keptOpen
	})
}

// forCleanup lends a connection that waits for locks only briefly.
func (s *server) forCleanup(ctx context.Context) (*pgxpool.Conn, error) {
	pool, err := s.cleanups.of(s, func(config *pgxpool.Config) {
		config.MaxConns = s.share()
		config.ConnConfig.RuntimeParams["lock_timeout"] = milliseconds(cleanupLockTimeout)
	})
	return s.acquire(ctx, pool, err)
}

func milliseconds(duration time.Duration) string {
	return strconv.FormatInt(duration.Milliseconds(), 10)
}

func (s *server) acquire(ctx context.Context, pool *pgxpool.Pool, err error) (*pgxpool.Conn, error) {
	if err != nil {
		return nil, err
	}
	return withPasswords(s.passwords, func(string) (*pgxpool.Conn, error) { return pool.Acquire(ctx) })
}

// dial makes a connection of its own to a database of the server, with other
// settings of the session than pinned ones. Whoever asks for it closes it.
func (s *server) dial(ctx context.Context, database string, settings map[string]string) (*pgx.Conn, error) {
	return withPasswords(s.passwords, func(password string) (*pgx.Conn, error) {
		return s.dialWith(ctx, database, password, settings)
	})
}

func (s *server) dialWith(ctx context.Context, database, password string, settings map[string]string) (*pgx.Conn, error) {
	config, err := s.config(database, password)
	if err != nil {
		return nil, err
	}
	maps.Copy(config.ConnConfig.RuntimeParams, settings)
	return pgx.ConnectConfig(ctx, config.ConnConfig)
}

// withPasswords connects, with the next password if the server does not take one.
func withPasswords[T any](secrets *passwords, connect func(password string) (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		at, password := secrets.now()
		connection, err := connect(password)
		if err == nil {
			return connection, nil
		}
		if !isState(err, invalidPassword) || attempt >= 2*len(secrets.all) {
			return connection, fmt.Errorf("postgresql: %w", err)
		}
		// Another may have gone on to the next meanwhile.
		secrets.at.CompareAndSwap(at, (at+1)%int32(len(secrets.all)))
	}
}

// with does something on a connection to the target's own database.
func (s *server) with(ctx context.Context, do func(*pgx.Conn) error) error {
	lent, err := s.borrow(ctx)
	if err != nil {
		return err
	}
	defer lent.Release()
	return do(lent.Conn())
}

// whileCleaning is with for what may have to wait for strangers' locks.
func (s *server) whileCleaning(ctx context.Context, do func(*pgx.Conn) error) error {
	lent, err := s.forCleanup(ctx)
	if err != nil {
		return err
	}
	defer lent.Release()
	return do(lent.Conn())
}

// onDatabase does something on a connection to a database of the server, in a
// session of its own. It waits for locks only briefly.
func (s *server) onDatabase(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	conn, err := s.dial(ctx, database, map[string]string{"lock_timeout": milliseconds(cleanupLockTimeout)})
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return do(conn)
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing hangs on how it ends
}

// send runs statements that take no arguments as one message: one transaction, and
// one round trip.
func send(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	_, err := conn.PgConn().Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	return err
}

// versionKnown is where a connection keeps server_version_num.
const versionKnown = "server_version_num"

// askVersion asks a new connection for the number of its server's version. What the
// server calls its version can be any text, such as 18beta1.
func askVersion(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, "SHOW server_version_num").ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return errors.New("the server does not say which version it is")
	}
	number, err := strconv.Atoi(string(results[0].Rows[0][0]))
	if err != nil {
		return fmt.Errorf("the server's version: %w", err)
	}
	conn.CustomData()[versionKnown] = number
	return nil
}

// newerThan15 says whether the server has memberships whose grants say what of them
// is meant. https://www.postgresql.org/docs/16/release-16.html
func newerThan15(conn *pgx.Conn) bool {
	number, _ := conn.PgConn().CustomData()[versionKnown].(int)
	return number >= 160000
}
