// Package lifecycle is the life of a grant: issue and end. It is the only room
// where the ledger and a provider meet, so that nothing is minted that the
// ledger does not know, and nothing is called ended that still lives.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

const (
	// mintTimeout bounds a mint at the target.
	mintTimeout = 30 * time.Second
	// endTimeout bounds the end of a grant. Vault gives a revoke no deadline,
	// and one that hangs would hold up a step-down; on an error Vault retries.
	// With what a provider may still need to leave things safe it is 20 s in all.
	endTimeout = 15 * time.Second
)

// Manager issues and ends grants.
type Manager struct {
	Log hclog.Logger
	Now func() time.Time
}

// Order is what a caller asked for, checked and admitted.
type Order struct {
	Provider    provider.Provider
	Target      string // the target's name
	System      string // which system the target is, see ledger.Grant
	Mount       string // the mount's UUID
	Role        string
	Task        string
	Scope       scope.Scope
	Bounds      provider.Bounds // but for ExpiresAt, which follows from TTL
	TTL         time.Duration   // at least 1 s
	EntityID    string
	DisplayName string
	Recorded    func() // is called, if set, once the grant is in the ledger
}

// Issued is a grant whose credential works, and what the caller gets of it.
type Issued struct {
	Grant      ledger.Grant
	Policy     provider.Policy
	Credential provider.Credential
	Lease      time.Duration // whole seconds, at least one
}

// Compile is the policy that the order's credential has if it is minted now, and
// its end.
func (o Order) Compile(now time.Time) (provider.Policy, time.Time, error) {
	// Targets compare in whole seconds, so the end is one: the credential lives
	// for its TTL and for less than a second more.
	bounds := o.Bounds
	bounds.ExpiresAt = now.Add(o.TTL + time.Second - time.Nanosecond).Truncate(time.Second).UTC()
	policy, err := o.Provider.Compile(o.Scope, bounds)
	if err != nil {
		return "", time.Time{}, err
	}
	if policy == "" {
		return "", time.Time{}, errors.New("the provider compiled an empty policy")
	}
	return policy, bounds.ExpiresAt, nil
}

// ErrTooLate is returned where the target took longer to mint a credential than
// the credential was to live. Nothing is left at the target.
var ErrTooLate = errors.New("the credential expired while the target was minting it")

// Issue mints a credential: one write to storage, before the target is called.
//
// The mint has a context of its own. Vault drops the answer to a caller who has
// hung up, without a lease and without a revoke; so if ctx has ended by the
// time the credential exists, the grant is ended at once.
func (m *Manager) Issue(ctx context.Context, storage logical.Storage, order Order) (Issued, error) {
	now := m.Now()
	policy, expiresAt, err := order.Compile(now)
	if err != nil {
		return Issued{}, err
	}
	id := ledger.NewID(expiresAt)
	handle, err := order.Provider.Prepare(provider.Grant{
		ID: id, Mount: order.Mount, Role: order.Role, Task: order.Task, EntityID: order.EntityID, Options: order.Bounds.Options,
	})
	if err != nil {
		return Issued{}, err
	}
	grant := ledger.Grant{
		ID: id, State: ledger.Pending, Target: order.Target, System: order.System, Role: order.Role, Task: order.Task,
		Action: order.Scope.Action(), Resource: order.Scope.Resource(),
		EntityID: order.EntityID, DisplayName: order.DisplayName,
		Handle: handle, IssuedAt: now.UTC(), ExpiresAt: expiresAt,
	}
	if err := ledger.Put(ctx, storage, grant); err != nil {
		return Issued{}, err
	}
	if order.Recorded != nil {
		order.Recorded()
	}

	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), mintTimeout)
	defer cancel()
	credential, err := order.Provider.Mint(detached, handle, policy, expiresAt)
	if err != nil {
		m.abandon(ctx, storage, order.Provider, grant, "mint failed")
		return Issued{}, fmt.Errorf("minting on target %q: %w", order.Target, err)
	}
	if err := ctx.Err(); err != nil {
		grant.Handle = credential.Handle
		m.abandon(ctx, storage, order.Provider, grant, "the caller hung up")
		return Issued{}, err
	}
	remaining := expiresAt.Sub(m.Now())
	if remaining <= 0 {
		grant.Handle = credential.Handle
		m.abandon(ctx, storage, order.Provider, grant, "minting took longer than the credential's life")
		return Issued{}, ErrTooLate
	}
	// A lease of 0 s would mean the mount's default to Vault, so the last
	// fraction of a second counts as one; the target's own end is exact.
	lease := max(remaining.Truncate(time.Second), time.Second)
	m.Log.Info("grant issued", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "expires_at", grant.ExpiresAt)
	return Issued{Grant: grant, Policy: policy, Credential: credential, Lease: lease}, nil
}

// abandon ends a grant that nobody will hold. What it can't end stays pending
// in the ledger, and dies at the target at its ExpiresAt.
func (m *Manager) abandon(ctx context.Context, storage logical.Storage, target provider.Provider, grant ledger.Grant, why string) {
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := m.kill(detached, storage, target, grant, ledger.Failed, why); err != nil {
		m.Log.Error("abandoned grant could not be ended", "grant_id", grant.ID, "target", grant.Target, "why", why, "error", err)
	}
}

// End ends a grant by its id and the handle that its lease holds: what kills
// comes first, then one write to storage. It is idempotent, and returns nil
// only when the credential is dead at the target.
func (m *Manager) End(ctx context.Context, storage logical.Storage, target provider.Provider, id string, handle provider.Handle) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	grant, err := ledger.Get(ctx, storage, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		// The lease knows enough to kill; there is no record to close.
		m.Log.Warn("ending a grant that the ledger does not know", "grant_id", id)
		return target.Revoke(ctx, handle)
	case err != nil:
		// A record that can't be read must not keep the credential alive.
		return errors.Join(err, target.Revoke(ctx, handle))
	case grant.State == ledger.Ended:
		return nil
	}
	grant.Handle = handle
	why := "lease revoked"
	if !grant.Live(m.Now()) {
		why = "lease expired"
	}
	return m.kill(ctx, storage, target, grant, ledger.Ended, why)
}

// kill ends a grant at its target and then in the ledger.
func (m *Manager) kill(ctx context.Context, storage logical.Storage, target provider.Provider, grant ledger.Grant, state ledger.State, why string) error {
	if err := target.Revoke(ctx, grant.Handle); err != nil {
		return fmt.Errorf("ending grant %s on target %q: %w", grant.ID, grant.Target, err)
	}
	grant.State, grant.Ending, grant.EndedAt = state, why, m.Now().UTC()
	if err := ledger.Put(ctx, storage, grant); err != nil {
		return err
	}
	m.Log.Info("grant ended", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "ending", why)
	return nil
}
