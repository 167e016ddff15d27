package postgresql

import (
	"context"
	"fmt"
	"maps"
	"runtime"
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

	once sync.Once
	pool *pgxpool.Pool
	err  error // of making the pool
}

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

// connections is the pool of connections to the target's own database.
func (s *server) connections() (*pgxpool.Pool, error) {
	s.once.Do(func() {
		var config *pgxpool.Config
		if config, s.err = s.config(s.database, ""); s.err != nil {
			return
		}
		config.MaxConns, config.MinConns = s.maxOpen, 0
		config.MaxConnIdleTime, config.MaxConnLifetime, config.HealthCheckPeriod = idleTime, lifeTime, lookAround
		secrets := s.passwords // and not s, which the pool must not keep alive
		config.BeforeConnect = func(_ context.Context, to *pgx.ConnConfig) error {
			_, to.Password = secrets.now()
			return nil
		}
		if s.pool, s.err = pgxpool.NewWithConfig(context.Background(), config); s.err == nil {
			runtime.AddCleanup(s, func(pool *pgxpool.Pool) { go pool.Close() }, s.pool)
		}
	})
	return s.pool, s.err
}

// borrow lends a connection to the target's own database. What it is used for must
// leave it as it was.
func (s *server) borrow(ctx context.Context) (*pgxpool.Conn, error) {
	pool, err := s.connections()
	if err != nil {
		return nil, fmt.Errorf("postgresql: %w", err)
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

// onDatabase does something on a connection to a database of the server, in a
// session of its own.
func (s *server) onDatabase(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	conn, err := s.dial(ctx, database, nil)
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

// newerThan15 says whether the server has memberships whose grants say what of them
// is meant. https://www.postgresql.org/docs/16/release-16.html
func newerThan15(conn *pgx.Conn) bool {
	major, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
	return len(major) == 2 && major >= "16"
}
