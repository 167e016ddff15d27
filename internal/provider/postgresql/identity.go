package postgresql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Facts of a target.
const (
	factSystem   = "system_identifier"
	factDatabase = "database_oid"
	factVersion  = "server_version"
)

const (
	// oldest is the oldest version of the server that is taken: it tells what
	// settings everybody may change. https://www.postgresql.org/docs/15/release-15.html
	oldest = 150000
	// apart is how far the clocks of Vault and the server may differ before it is
	// told: a login ends by the server's.
	apart = 5 * time.Second
)

// Identity implements provider.Identified. Another login of the engine's could not
// end what this one has made, from PostgreSQL 16 on.
func (p *postgres) Identity() string {
	if p.facts[factSystem] == "" || p.facts[factDatabase] == "" {
		return ""
	}
	return p.facts[factSystem] + "/" + p.facts[factDatabase] + "/" + p.server.username
}

// Verify implements provider.Verifier.
func (p *postgres) Verify(ctx context.Context) (provider.Verification, error) {
	conn, err := p.server.borrow(ctx)
	if err != nil {
		return provider.Verification{}, p.explain(err)
	}
	defer conn.Release()
	var at struct {
		system, database, version     string
		number                        int
		super, creates, inherits      bool
		standby, signals, hba, speaks bool
		clock                         time.Time
	}
	err = conn.QueryRow(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()), d.oid::text, current_setting('server_version'), current_setting('server_version_num')::integer,
       r.rolsuper, r.rolcreaterole, r.rolinherit, pg_is_in_recovery(), pg_has_role('pg_signal_backend', 'USAGE'), has_language_privilege('plpgsql', 'USAGE'), clock_timestamp()
  FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()`).
		Scan(&at.system, &at.database, &at.version, &at.number, &at.super, &at.creates, &at.inherits, &at.standby, &at.signals, &at.speaks, &at.clock)
	if err != nil {
		return provider.Verification{}, p.explain(said("looking at the server", err))
	}
	user := ident(p.server.username)
	switch {
	case at.number < oldest:
		return provider.Verification{}, invalid.Field(fieldURL, p.server.host, "the server is PostgreSQL "+at.version, "use 15 or later")
	case at.standby:
		return provider.Verification{}, invalid.Field(fieldURL, p.server.host, "the server is a standby, and takes no new logins", "name the primary")
	case !at.super && !at.creates:
		return provider.Verification{}, invalid.Field(fieldUsername, p.server.username, "it may not make logins", "ALTER ROLE "+user+" CREATEROLE")
	case !at.super && !at.inherits:
		return provider.Verification{}, invalid.Field(fieldUsername, p.server.username, "it does not inherit, and so can't end what logins leave behind", "ALTER ROLE "+user+" INHERIT")
	}
	if at.hba, err = hbaReadable(ctx, conn); err != nil {
		return provider.Verification{}, err
	}
	if err := p.verifyStandbys(ctx, at.system); err != nil {
		return provider.Verification{}, err
	}
	verification := provider.Verification{Facts: provider.Facts{factSystem: at.system, factDatabase: at.database, factVersion: at.version}}
	warn := func(text string) { verification.Warnings = append(verification.Warnings, text) }
	switch {
	case at.super:
		warn(fmt.Sprintf("username %q is a superuser: make a login for this engine with CREATEROLE and grant options on what its roles grant", p.server.username))
	case at.number < 160000:
		warn(fmt.Sprintf("on PostgreSQL %s who has CREATEROLE, as %q has, can get a superuser's powers by way of the server's predefined roles: guard its password, and prefer PostgreSQL 16 or later, where it can't", at.version, p.server.username))
	}
	if !at.super && !at.signals {
		warn("the engine can't end a session whose login is gone already; GRANT pg_signal_backend TO " + user)
	}
	if !at.speaks {
		warn("open sessions go on after their credential's end until Vault ends them, since the engine may not use plpgsql; GRANT USAGE ON LANGUAGE plpgsql TO " + user)
	}
	if !at.hba {
		warn(hbaUnreadable)
	}
	if behind := time.Until(at.clock).Abs(); behind > apart {
		warn(fmt.Sprintf("the clocks of Vault and the server differ by %s: credentials end by the server's", behind.Round(time.Second)))
	}
	if p.server.encryption != verifyFull && !p.server.private() {
		warn(fmt.Sprintf("sslmode=%s does not tell the server from somebody who poses as it; write sslmode=verify-full", p.server.encryption))
	}
	return verification, nil
}

// unreached is the error of a connection that could not be made for a caller. What
// only the operator can mend is said; that the server is away for the moment, too.
func (p *postgres) unreached(err error) error {
	var fromNetwork *net.OpError
	if errors.As(err, &fromNetwork) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", err, provider.ErrUnavailable)
	}
	return p.explain(err)
}

// explain says what the operator can mend where the server can't be reached or does
// not let the engine in. Errors of pgx hold no password.
func (p *postgres) explain(err error) error {
	var fromNetwork *net.OpError
	var connecting *pgconn.ConnectError
	switch {
	case isState(err, invalidPassword):
		return invalid.Hidden(fieldPassword, "the server says that it is not that of "+p.server.username, "give that login's password").Because(err)
	case isState(err, invalidAuthorization):
		return invalid.Field(fieldUsername, p.server.username, "the server does not let it in: "+serverMessage(err), "see that the login is there, and the server's pg_hba.conf").Because(err)
	case isState(err, invalidCatalog):
		return invalid.Field(fieldURL, p.server.database, "the server has no such database", "name one that is there").Because(err)
	case isState(err, insufficientPrivilege):
		return invalid.Field(fieldUsername, p.server.username, serverMessage(err), "GRANT CONNECT ON DATABASE "+ident(p.server.database)+" TO "+ident(p.server.username)).Because(err)
	case isState(err, passing...):
		return fmt.Errorf("%w: %w", err, provider.ErrUnavailable)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), !errors.As(err, &connecting):
		return err
	case errors.As(err, &fromNetwork):
		return invalid.Field(fieldURL, p.server.host, "the server can't be reached: "+fromNetwork.Error(), "check the URL and that the server runs, or write verify_connection=false").Because(err)
	default:
		why := err
		if certificate := new(tls.CertificateVerificationError); errors.As(err, &certificate) {
			why = certificate.Err // what is around it only says what was tried
		}
		return invalid.Field(fieldURL, p.server.host, "the connection fails: "+invalid.Clip(why.Error()), "check the URL, sslmode and the TLS settings").Because(err)
	}
}

// noRows says whether a query found nothing.
func noRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
