package postgresql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// A login has one password, so the new one can't be tried beside the old one, and
// can't be set before it is stored: a crash in between would lock the engine out. So
// the new one is stored together with the former one, either of which opens the
// target, and only then is it set. Until that is done, whatever happens, one of the
// two that are stored works. Once it is, the former one is dead.

// planUser is a rotation plan's key: whose password it is.
const planUser = "username"

// PlanRotation implements provider.RootRotator.
func (p *postgres) PlanRotation(ctx context.Context) (provider.RotationPlan, error) {
	if p.settings.Text(fieldPassword) == "" {
		return nil, invalid.Hidden("target", "it has no password to rotate: the engine logs in by its certificate", "renew that where it comes from")
	}
	// Anew, so that it is known which of two passwords works.
	if err := p.server.onDatabase(ctx, p.server.database, func(*pgx.Conn) error { return nil }); err != nil {
		return nil, p.explain(err)
	}
	// Where any password does, a new one would protect nothing.
	conn, err := p.server.dialWith(ctx, p.server.database, rand.Text(), nil)
	switch {
	case err == nil:
		closeConn(conn)
		return nil, invalid.Field(fieldUsername, p.server.username, "the server lets it in whatever its password", "have pg_hba.conf ask for scram-sha-256")
	case !isState(err, invalidPassword):
		return nil, p.explain(fmt.Errorf("postgresql: %w", err))
	}
	return provider.RotationPlan{planUser: p.server.username}, nil
}

// NextRoot implements provider.RootRotator. Nothing is changed at the server yet.
func (p *postgres) NextRoot(_ context.Context, plan provider.RotationPlan) (provider.RotationPlan, provider.Settings, error) {
	settings := maps.Clone(p.settings)
	_, settings[fieldFormer] = p.server.passwords.now()
	settings[fieldPassword] = rand.Text()
	return maps.Clone(plan), settings, nil
}

// AwaitRoot implements provider.RootRotator: it proves that the password can be set,
// and leaves it as it is.
func (p *postgres) AwaitRoot(ctx context.Context) error {
	proven := errors.New("proven")
	err := p.server.with(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := p.setPassword(ctx, tx); err != nil {
				return err
			}
			return proven
		})
	})
	if errors.Is(err, proven) {
		return nil
	}
	return err
}

// EndOtherRoots implements provider.RootRotator: it sets the stored password, if it is
// not set yet, and so ends the one before.
func (p *postgres) EndOtherRoots(ctx context.Context, plan provider.RotationPlan) error {
	if plan[planUser] != p.server.username || p.settings.Text(fieldFormer) == "" {
		return nil // another login is configured, or the rotation came to nothing
	}
	works := func() error {
		conn, err := p.server.dialWith(ctx, p.server.database, p.settings.Text(fieldPassword), nil)
		if err == nil {
			closeConn(conn)
		}
		return err
	}
	err := works()
	if !isState(err, invalidPassword) {
		return said("trying the new password", err)
	}
	if err := p.server.with(ctx, func(conn *pgx.Conn) error { return p.setPassword(ctx, conn) }); err != nil {
		return err
	}
	return said("trying the new password", works())
}

func (p *postgres) setPassword(ctx context.Context, on querier) error {
	secret, err := scram(p.settings.Text(fieldPassword), rand.Text())
	if err != nil {
		return err
	}
	_, err = on.Exec(ctx, "ALTER ROLE CURRENT_USER PASSWORD "+literal(secret))
	return lacks("ALTER ROLE", err, fieldUsername, p.server.username, "see that it may change its own password")
}
