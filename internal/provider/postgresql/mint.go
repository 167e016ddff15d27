package postgresql

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Mint implements provider.Provider: one transaction, in one message.
func (p *postgres) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	minting, err := p.plan(handle, policy, expiresAt)
	if err != nil {
		return provider.Credential{}, &provider.NotMade{Reason: err}
	}
	if _, err := p.server.revocations(); err != nil { // opened before there is something to revoke
		return provider.Credential{}, &provider.NotMade{Reason: err}
	}
	conn, err := p.server.borrow(ctx)
	if err != nil {
		return provider.Credential{}, &provider.NotMade{Reason: p.unreached(err)}
	}
	defer conn.Release()
	made, err := minting.run(ctx, conn.Conn())
	if err != nil {
		return provider.Credential{}, p.unmade(ctx, conn, minting, err)
	}
	minted := maps.Clone(handle)
	minted[handleHolder] = minting.holder
	minted[handleOID] = strconv.FormatUint(uint64(made.oid), 10)
	credential := provider.Credential{Handle: minted, Fields: map[string]any{
		"username":       minting.login,
		"password":       minting.password,
		"host":           p.server.host,
		"port":           int(p.server.port),
		"database":       p.server.database,
		"connection_url": p.server.url(minting.login, minting.password),
	}}
	credential.Warnings = made.warnings
	if minting.read.Run != nil {
		credential.Fields["command"] = minting.read.place(minting.holder).call()
	}
	conn.Release() // a watchdog takes another, and all that there are may be waiting here
	if err := p.watchStandbys(ctx, handle[handleMount]); err != nil {
		credential.Warnings = append(credential.Warnings, unwatched(err))
	}
	if !made.watched {
		if err := p.watch.start(ctx, handle[handleMount]); err != nil {
			credential.Warnings = append(credential.Warnings, unwatched(err))
		}
	}
	return credential, nil
}

// minting is a mint that is worked out.
type minting struct {
	read      document
	login     string
	holder    string
	password  string
	bears     mark
	expiresAt time.Time
	watchdog  string
}

func (p *postgres) plan(handle provider.Handle, policy provider.Policy, expiresAt time.Time) (minting, error) {
	read, err := readPolicy(policy)
	if err != nil {
		return minting{}, err
	}
	login, bears := handle[handleLogin], mark{mount: handle[handleMount], ledger: handle[handleLedger], grant: handle[handleGrant]}
	if !loginForm.MatchString(login) || login != prefix(bears.mount)+bears.grant {
		return minting{}, errors.New("postgresql: the handle names no login")
	}
	holder, err := read.holder(bears.mount, bears.ledger, p.server.username)
	if err != nil {
		return minting{}, err
	}
	return minting{
		read: read, login: login, holder: holder, password: rand.Text(), bears: bears, expiresAt: expiresAt, watchdog: watchdogName(bears.mount),
	}, nil
}

// made is what the server said of a login that it has made.
type made struct {
	oid      uint32
	watched  bool     // whether the mount's watchdog runs
	warnings []string // of what strangers have given away
}

// Failures of a mint's checks, which roll it back.
var (
	errAmbient = errors.New("everybody has further rights")
	errHolder  = errors.New("the holder is not as it was made")
	errCommand = errors.New("the command is not as it was installed")
)

// batch is the mint's message. Its statements run in one transaction, or not at all.
func (m minting) batch(ctx context.Context, conn *pgx.Conn) (*pgx.Batch, error) {
	role, err := m.read.meant(m.holder, mark{mount: m.bears.mount, ledger: m.bears.ledger})
	if err != nil {
		return nil, err
	}
	secret, err := scram(m.password, rand.Text())
	if err != nil {
		return nil, err
	}
	create := named(m.read.Login[0], loginName, m.login)
	create = strings.Replace(create, literal(verifier), literal(secret), 1)
	create = strings.Replace(create, literal(endsAt), literal(m.expiresAt.UTC().Format("2006-01-02 15:04:05+00")), 1)
	member := named(named(m.read.Login[1], loginName, m.login), holderName, m.holder)
	if newerThan15(conn) {
		member += " WITH INHERIT TRUE, SET FALSE"
	}
	statements := []string{create, member, "COMMENT ON ROLE " + ident(m.login) + " IS " + literal(m.bears.String())}
	if may, err := signals(ctx, conn); err != nil {
		return nil, err
	} else if !may {
		statements = append(statements, joining(conn, m.login)) // else nobody could end its sessions
	}
	batch := &pgx.Batch{}
	// What is long and always the same, the server reads once for each connection: it
	// takes longer to plan than to run.
	queue := func(name, query string, arguments ...any) error {
		if _, err := conn.Prepare(ctx, name, query); err != nil {
			return err
		}
		batch.Queue(name, arguments...)
		return nil
	}
	batch.Queue("SELECT set_config('application_name', $1, true)", underWay(m.login))
	guard, arguments := ambientGuard(role.of, m.read.Tolerated)
	if err := queue("ambient", guard, arguments...); err != nil {
		return nil, err
	}
	if err := queue("held", heldGuard, role.arguments()...); err != nil {
		return nil, err
	}
	if m.read.Run != nil {
		guard, arguments = runGuard(m.read.place(m.holder), *m.read.Run)
		if err := queue("command", guard, arguments...); err != nil {
			return nil, err
		}
	}
	for _, statement := range statements {
		batch.Queue(statement)
	}
	return batch, queue("made", "SELECT r.oid, EXISTS ("+watchdogs+") FROM pg_roles r WHERE r.rolname = $2", m.watchdog, m.login)
}

// Places of the checks in a batch.
const (
	atAmbient = 1
	atHolder  = 2
	atCommand = 3 // of a predefined command only
)

// underWay is what a session of the engine's is called while it mints a login, so
// that Revoke sees that.
func underWay(login string) string { return "mint " + login }

// run sends the message. The error is errAmbient or errHolder where a check failed.
func (m minting) run(ctx context.Context, conn *pgx.Conn) (made, error) {
	var answer made
	batch, err := m.batch(ctx, conn)
	if err != nil {
		return made{}, err
	}
	results := conn.SendBatch(ctx, batch)
	for at := range batch.Len() - 1 {
		given, err := m.next(results, at)
		answer.warnings = append(answer.warnings, given...)
		if err != nil {
			_ = results.Close() // says the same
			switch {
			case at == atHolder && isState(err, divisionByZero):
				return made{}, errHolder
			case at == atCommand && m.read.Run != nil && isState(err, divisionByZero):
				return made{}, errCommand
			case at == atAmbient && isState(err, divisionByZero):
				return made{}, errAmbient
			}
			return made{}, err
		}
	}
	if err := results.QueryRow().Scan(&answer.oid, &answer.watched); err != nil {
		_ = results.Close() // says the same
		return made{}, err
	}
	return answer, results.Close() // where it is committed
}

// next reads the results of the batch's next statement: the checks return what strangers
// have given away.
func (m minting) next(results pgx.BatchResults, at int) ([]string, error) {
	if at != atAmbient && at != atHolder {
		_, err := results.Exec()
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	if at == atAmbient {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ambientRight])
		return strangers(found, m.read.Tolerated), err
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[holding])
	return holderGifts(found), err
}

// unmade is the error of a mint that failed, as far as it is known what it made.
func (p *postgres) unmade(ctx context.Context, asked querier, minting minting, err error) error {
	switch {
	case errors.Is(err, errHolder):
		return &provider.NotMade{Reason: changedHolder(ctx, asked, minting)}
	case errors.Is(err, errCommand):
		return &provider.NotMade{Reason: changedCommand(ctx, asked, minting)}
	case errors.Is(err, errAmbient):
		return &provider.NotMade{Reason: p.ambientReason(ctx, asked, minting.read)}
	case isState(err, duplicateObject):
		return said("CREATE ROLE", err) // somebody's, and perhaps this grant's
	case answered(err):
		return &provider.NotMade{Reason: lacks("minting a login", err, fieldUsername, p.server.username, "ALTER ROLE "+ident(p.server.username)+" CREATEROLE")}
	default:
		return said("minting a login", err)
	}
}

// changedHolder says in what a holder differs from what was installed. What it has
// besides, a login may have left, and what is gone altogether is made again. What was
// taken from it, or has gone with what it was on, somebody has meant: nobody but who
// writes the role gives it again.
func changedHolder(ctx context.Context, asked querier, minting minting) error {
	role, err := minting.read.meant(minting.holder, mark{mount: minting.bears.mount, ledger: minting.bears.ledger})
	if err != nil {
		return err
	}
	found, err := held(ctx, asked, role)
	if err != nil {
		return said("what role "+minting.holder+" has", err)
	}
	missing := role.lacking(found)
	if len(found) == 0 || len(missing) == 0 {
		return fmt.Errorf("postgresql: role %s: %w", minting.holder, provider.ErrNotInstalled)
	}
	return invalid.Field("resource", minting.read.Resource, fmt.Sprintf("role %s, which holds its privilege, does not have any more: %s; somebody has taken it away, or has made anew what it was on", minting.holder, strings.Join(missing, "; ")),
		"find out who has, and write the role again to install it anew")
}

// changedCommand says in what a command differs from what was installed. Nobody but
// who writes the role puts it right: somebody has meant the change.
func changedCommand(ctx context.Context, asked querier, minting minting) error {
	differs, err := runMatches(ctx, asked, minting.read.place(minting.holder), *minting.read.Run)
	if err != nil {
		return err
	}
	return invalid.Hidden(fieldCommand, "what is installed on the server is not the role's command any more: "+strings.Join(differs, "; "), "find out who has changed it, and write the role again to install it anew")
}

// ambientReason says which rights a mint was refused for.
func (p *postgres) ambientReason(ctx context.Context, asked querier, read document) error {
	of, err := read.beyond()
	if err != nil {
		return err
	}
	found, err := ambientQuick(ctx, asked, of)
	if err != nil {
		return err
	}
	if err := refuseAmbient(found, read.Tolerated); err != nil {
		return err
	}
	return fmt.Errorf("postgresql: everybody had further rights a moment ago: %w", provider.ErrUnavailable)
}

// scramIterations is what RFC 7677 asks for at least, and what the server itself
// does by default. The password is random, so that more would protect nothing.
const scramIterations = 4096

// scram is a password's verifier, as the server keeps it: who reads it can check the
// password, and can't log in. https://www.rfc-editor.org/rfc/rfc5803
func scram(password, salt string) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, []byte(salt), scramIterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("postgresql: %w", err)
	}
	sign := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(sign("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, encode([]byte(salt)), encode(stored[:]), encode(sign("Server Key"))), nil
}
