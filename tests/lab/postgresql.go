package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgreSQL is a real PostgreSQL server that lets nobody in without a password:
// no socket, no trusted address. It logs every statement.
type PostgreSQL struct {
	Version     string // the major one
	Host        string
	Port        int
	Log         string // path of the server's log
	CA          string // the certificate in PEM that signed the server's
	Superuser   Login  // for making what a test needs, and for looking at what is there
	Engine      Login  // what the engine is configured with; has the rights of deploy/postgresql/engine.sql
	SuperEngine Login  // the same for an engine that is a superuser

	// Settings are the server's, by name, from the next Restart on.
	Settings map[string]string

	name    string // of the process and its log
	tools   string // the folder with the server's programs
	client  string // the folder with psql, which the newer versions' packages don't have
	data    string
	account *account
	server  *process
	lab     *Lab
}

// PostgreSQLVersions are the major versions that the tests run on, the oldest first.
// PRECISION_POSTGRESQL chooses some of them, separated by commas.
func PostgreSQLVersions() ([]string, error) {
	all := []string{debianVersion, "16", "17", "18"}
	chosen := os.Getenv("PRECISION_POSTGRESQL")
	if chosen == "" {
		return all, nil
	}
	versions := strings.Split(chosen, ",")
	for _, version := range versions {
		if !slices.Contains(all, version) {
			return nil, fmt.Errorf("PRECISION_POSTGRESQL: %q is not one of %s", version, strings.Join(all, ", "))
		}
	}
	slices.Sort(versions)
	return slices.Compact(versions), nil
}

// debianVersion is the version that the system's package manager installs.
const debianVersion = "15"

// Login is a name and a password for PostgreSQL.
type Login struct{ Name, Password string }

// maintenance is the database that every server has.
const maintenance = "postgres"

func (l *Lab) startPostgreSQL(ctx context.Context) error {
	versions, err := PostgreSQLVersions()
	if err != nil {
		return err
	}
	l.PostgreSQL, err = l.PostgreSQLVersion(ctx, versions[0])
	return err
}

// PostgreSQLVersion is the server of a major version. The first call starts it.
func (l *Lab) PostgreSQLVersion(ctx context.Context, version string) (*PostgreSQL, error) {
	if started, known := l.versions[version]; known {
		return started, nil
	}
	tools, err := postgresqlTools(version)
	if err != nil {
		return nil, err
	}
	client, err := postgresqlTools(debianVersion)
	if err != nil {
		return nil, err
	}
	unprivileged, err := unprivilegedAccount()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	name := "postgresql-" + version
	p := &PostgreSQL{
		Version: version,
		Host:    "127.0.0.1", Port: ports[0], Log: filepath.Join(l.Folder, name+".log"),
		Superuser:   Login{"postgres", "lab-superuser-password"},
		Engine:      Login{"precision", "lab-engine-password"},
		SuperEngine: Login{"precision_super", "lab-super-engine-password"},
		Settings: map[string]string{
			"max_connections": "200", "log_statement": "all", "log_connections": "on", "log_disconnections": "on",
			// What a crash of the machine would lose goes with the lab anyway.
			"fsync": "off", "full_page_writes": "off",
		},
		name: name, tools: tools, client: client, data: filepath.Join(l.Folder, name), account: unprivileged, lab: l,
	}
	if err := p.create(ctx); err != nil {
		return nil, err
	}
	if err := p.Restart(ctx); err != nil {
		return nil, err
	}
	if err := p.setUp(ctx); err != nil {
		return nil, err
	}
	if l.versions == nil {
		l.versions = map[string]*PostgreSQL{}
	}
	l.versions[version] = p
	return p, nil
}

// create makes the server's data folder.
func (p *PostgreSQL) create(ctx context.Context) error {
	// The server's user has to get to its folder, and to nothing else in the lab's.
	if err := os.Chmod(p.lab.Folder, 0o711); err != nil {
		return err
	}
	if err := makeFolder(p.data); err != nil {
		return err
	}
	if err := p.account.own(p.data); err != nil {
		return err
	}
	password := filepath.Join(p.lab.Folder, p.name+".password")
	if err := p.writeFile(password, p.Superuser.Password); err != nil {
		return err
	}
	initdb := p.account.command(ctx, filepath.Join(p.tools, "initdb"), "--pgdata", p.data, "--username", p.Superuser.Name, "--pwfile", password,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	initdb.Dir = p.data
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	if err := os.Remove(password); err != nil {
		return err
	}
	certificate, err := newCertificate(p.Host)
	if err != nil {
		return err
	}
	p.CA = certificate.ca
	for name, content := range map[string]string{
		"pg_hba.conf": "host all all 127.0.0.1/32 scram-sha-256\n",
		"server.crt":  certificate.server,
		"server.key":  certificate.key,
	} {
		if err := p.writeFile(filepath.Join(p.data, name), content); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file that is the server's user's, and nobody else's.
func (p *PostgreSQL) writeFile(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return p.account.own(path)
}

// setUp makes the engines' logins, and takes from everybody the right to connect to
// databases.
func (p *PostgreSQL) setUp(ctx context.Context) error {
	connection, err := p.Connect(ctx, p.Superuser, maintenance)
	if err != nil {
		return err
	}
	defer connection.Close(ctx)
	for _, statement := range []string{
		"SET log_statement = 'none'", // what the engine sends is to be in the log, and not what the lab does
		"REVOKE ALL ON DATABASE postgres, template0, template1 FROM PUBLIC",
		fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE PASSWORD '%s'", p.Engine.Name, p.Engine.Password),
		fmt.Sprintf("CREATE ROLE %s LOGIN SUPERUSER PASSWORD '%s'", p.SuperEngine.Name, p.SuperEngine.Password),
	} {
		if _, err := connection.Exec(ctx, statement); err != nil {
			return fmt.Errorf("setting up PostgreSQL: %w", err)
		}
	}
	return nil
}

// Restart stops the server, if it runs, and starts it with its data.
func (p *PostgreSQL) Restart(ctx context.Context) error {
	p.Stop()
	arguments := []string{"-D", p.data, "-c", "listen_addresses=" + p.Host, "-c", "port=" + strconv.Itoa(p.Port), "-c", "unix_socket_directories=", "-c", "ssl=on"}
	for name, value := range p.Settings {
		arguments = append(arguments, "-c", name+"="+value)
	}
	command := p.account.command(context.Background(), filepath.Join(p.tools, "postgres"), arguments...) // outlives ctx
	server, err := p.lab.launch(p.name, command)
	if err != nil {
		return err
	}
	server.end = syscall.SIGINT // ends the sessions, too, instead of waiting for them
	p.server = server
	return server.until(ctx, func(ctx context.Context) bool {
		connection, err := p.Connect(ctx, p.Superuser, maintenance)
		if err != nil {
			return false
		}
		return connection.Close(ctx) == nil
	})
}

// Standby starts a hot standby that follows the server, which is restarted for that. The
// test that asks for it stops it.
func (p *PostgreSQL) Standby(ctx context.Context) (*PostgreSQL, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	p.Stop() // what is copied is whole then
	follower := *p
	follower.Port, follower.name, follower.data, follower.server = ports[0], p.name+"-standby", p.data+"-standby", nil
	follower.Log = filepath.Join(p.lab.Folder, follower.name+".log")
	hba := "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"
	if err := p.writeFile(filepath.Join(p.data, "pg_hba.conf"), hba); err != nil {
		return nil, err
	}
	for _, arguments := range [][]string{{"rm", "-rf", follower.data}, {"cp", "-a", p.data, follower.data}} {
		if output, err := exec.CommandContext(ctx, arguments[0], arguments[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("copying the data of a standby: %w\n%s", err, output)
		}
	}
	if err := p.writeFile(filepath.Join(follower.data, "standby.signal"), ""); err != nil {
		return nil, err
	}
	follower.Settings = maps.Clone(p.Settings)
	follower.Settings["primary_conninfo"] = fmt.Sprintf("host=%s port=%d user=%s password=%s", p.Host, p.Port, p.Superuser.Name, p.Superuser.Password)
	if err := p.Restart(ctx); err != nil {
		return nil, err
	}
	return &follower, follower.Restart(ctx)
}

// Stop ends the server in order.
func (p *PostgreSQL) Stop() {
	if p.server != nil {
		p.server.stop()
	}
}

// Crash ends the server and its sessions at once, without a word to disk.
func (p *PostgreSQL) Crash() {
	// The server's processes each lead a group of their own, so that a killed server
	// would leave some behind for a moment, and these keep its memory from the next.
	p.server.once.Do(func() { p.server.ask(syscall.SIGQUIT) })
}

// URL is where a login reaches a database.
func (p *PostgreSQL) URL(login Login, database string) string {
	return (&url.URL{Scheme: "postgresql", User: url.UserPassword(login.Name, login.Password), Host: net.JoinHostPort(p.Host, strconv.Itoa(p.Port)),
		Path: "/" + database, RawQuery: "sslmode=disable"}).String()
}

// Connect opens a session.
func (p *PostgreSQL) Connect(ctx context.Context, login Login, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, p.URL(login, database))
}

// CreateDatabase makes a database that the superusers alone may connect to.
func (p *PostgreSQL) CreateDatabase(ctx context.Context, name string) error {
	connection, err := p.Connect(ctx, p.Superuser, maintenance)
	if err != nil {
		return err
	}
	defer connection.Close(ctx)
	database := pgx.Identifier{name}.Sanitize()
	for _, statement := range []string{
		// Closed until it is closed to everybody, for the sake of who looks at all databases.
		"CREATE DATABASE " + database + " ALLOW_CONNECTIONS false",
		"REVOKE ALL ON DATABASE " + database + " FROM PUBLIC",
		"ALTER DATABASE " + database + " ALLOW_CONNECTIONS true",
	} {
		if _, err := connection.Exec(ctx, statement); err != nil {
			return fmt.Errorf("making the database %s: %w", name, err)
		}
	}
	return nil
}

// DropDatabase removes a database, and ends the sessions in it.
func (p *PostgreSQL) DropDatabase(ctx context.Context, name string) error {
	connection, err := p.Connect(ctx, p.Superuser, maintenance)
	if err != nil {
		return err
	}
	defer connection.Close(ctx)
	_, err = connection.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return err
}

// GrantEngine gives Engine the rights that it needs in a database, on what there is
// in a schema: deploy/postgresql/engine.sql, as an operator would run it. The owner
// is whom RUN may run as; it may be empty.
func (p *PostgreSQL) GrantEngine(ctx context.Context, database, schema, owner string) error {
	return p.script(ctx, "engine.sql", database, "engine", p.Engine.Name, "schema", schema, "owner", owner)
}

// ClosePublic takes from everybody what deploy/postgresql/public.sql takes.
func (p *PostgreSQL) ClosePublic(ctx context.Context, database, schema, owner string) error {
	return p.script(ctx, "public.sql", database, "schema", schema, "owner", owner)
}

// CloseFloor closes what deploy/postgresql/floor.sql closes.
func (p *PostgreSQL) CloseFloor(ctx context.Context, database string) error {
	return p.script(ctx, "floor.sql", database, "engine", p.Engine.Name)
}

// script runs a file of deploy/postgresql by psql, with variables' names and values
// in turn. A variable without a value is not set.
func (p *PostgreSQL) script(ctx context.Context, name, database string, variables ...string) error {
	root, err := Repository()
	if err != nil {
		return err
	}
	arguments := []string{"--no-psqlrc", "--dbname", p.URL(Login{Name: p.Superuser.Name}, database), "--file", filepath.Join(root, "deploy", "postgresql", name)}
	for pair := range slices.Chunk(variables, 2) {
		if pair[1] != "" {
			arguments = append(arguments, "--set", pair[0]+"="+pair[1])
		}
	}
	if output, err := p.Psql(ctx, p.Superuser, arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, output)
	}
	return nil
}

// Psql is PostgreSQL's command-line tool, on this server as a login.
func (p *PostgreSQL) Psql(ctx context.Context, login Login, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(p.client, "psql"), arguments...)
	command.Env = append(os.Environ(), "PGHOST="+p.Host, "PGPORT="+strconv.Itoa(p.Port), "PGUSER="+login.Name, "PGPASSWORD="+login.Password, "PGSSLMODE=disable")
	return command
}

// postgresqlTools finds the folder of a version's programs.
func postgresqlTools(version string) (string, error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	if version != debianVersion {
		folder := filepath.Join(root, ".cache", "postgresql", "node_modules", "postgresql-"+version, "native", "bin")
		if _, err := os.Stat(filepath.Join(folder, "postgres")); err != nil {
			return "", fmt.Errorf("PostgreSQL %s is not installed: run \"make tools\", or set PRECISION_POSTGRESQL=%s: %w", version, debianVersion, err)
		}
		return folder, nil
	}
	find := exec.Command(filepath.Join(root, "scripts", "postgresql-bin.sh"))
	output, err := find.Output()
	if err != nil {
		return "", fmt.Errorf("no PostgreSQL server is installed: run \"make tools\": %w", err)
	}
	// The server's programs may be linked to alone; psql is beside what they link to.
	server, err := filepath.EvalSymlinks(filepath.Join(string(output[:max(0, len(output)-1)]), "postgres"))
	if err != nil {
		return "", err
	}
	return filepath.Dir(server), nil
}

// account is the operating system's user that a server runs as; nil for this
// process's own.
type account struct{ uid, gid int }

// unprivilegedAccount is for a server that refuses to run as root.
func unprivilegedAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(found.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(found.Gid)
		if err != nil {
			return nil, err
		}
		return &account{uid, gid}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}

func (a *account) command(ctx context.Context, binary string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, binary, arguments...)
	command.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	if a != nil {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}}
	}
	return command
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}
