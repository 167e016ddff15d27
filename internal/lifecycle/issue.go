package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/telemetry"
)

// recordTimeout bounds the writing down of a grant before its mint.
const recordTimeout = 30 * time.Second

// Order is what a caller asked for, checked and admitted.
type Order struct {
	Provider    provider.Provider
	Target      string // the target's name
	System      string // which system the target is, see ledger.Grant
	Mount       string // the mount's UUID
	Role        string
	Task        string
	Scope       scope.Scope
	Bounds      provider.Bounds // but for ExpiresAt and TTL, which follow from TTL
	TTL         time.Duration   // at least 1 s
	Longest     time.Duration   // how long it may live in all if it is renewed; 0 if it can't be
	Until       time.Time       // what it must not outlive, whatever its TTL; zero for nothing
	EntityID    string
	EntityName  func() (string, error) // see provider.Grant
	DisplayName string
	Accessor    string // of the caller's token
	Approval    string // see ledger.Grant
	RoleVersion string // see ledger.Grant
	Filled      string // see ledger.Grant
	// Claim takes, if set, what the grant uses up, once there is room for the grant
	// and before it is written down. What it takes stays taken whatever becomes of
	// the grant.
	Claim func(context.Context, ledger.Grant) error
	// Confirm is asked, if set, once the credential exists: what it refuses is ended
	// at once. Of a renewal it is asked right before the end is moved.
	Confirm func(context.Context) error
	// Limit refuses, if set, a grant for which there is no room among those that
	// live: with a *FullError where one of them may give way, if there is Replace. It
	// is called while nothing else is admitted, and must be quick.
	Limit func(ledger.Counts) error
	// Replace ends, if set, a grant at its target, and returns nil once it is dead.
	Replace func(context.Context, ledger.Grant) error
	// Hold is called, if set, before the grant is put into the ledger's index, and
	// refuses where its target is not any more what it was; what it returns is
	// called after. It must be quick.
	Hold func() (release func(), err error)
}

// Issued is a grant whose credential works, and what the caller gets of it.
type Issued struct {
	Grant      ledger.Grant
	Policy     provider.Policy
	Credential provider.Credential
	Lease      time.Duration // whole seconds, at least one
}

var (
	// ErrTooLate is returned where the target took longer to mint a credential
	// than the credential was to live. Nothing is left at the target.
	ErrTooLate = errors.New("the credential expired while the target was minting it")
	// ErrOvertaken is returned where a grant was ended while it was being minted.
	ErrOvertaken = errors.New("the grant was ended while the target was minting its credential")
)

// Compile is the policy that the order's credential has if it is minted now, and
// its end.
func (o Order) Compile(now time.Time) (provider.Policy, time.Time, error) {
	expiresAt := o.endAt(now)
	policy, err := o.compile(expiresAt)
	return policy, expiresAt, err
}

// endAt is the end of what is minted or renewed now. Targets compare in whole
// seconds, so it is one: the credential lives for its TTL and for less than a
// second more.
func (o Order) endAt(now time.Time) time.Time {
	end := now.Add(o.TTL + time.Second - time.Nanosecond).Truncate(time.Second).UTC()
	if !o.Until.IsZero() && end.After(o.Until) {
		end = o.Until.Truncate(time.Second).UTC()
	}
	return end
}

func (o Order) compile(expiresAt time.Time) (provider.Policy, error) {
	bounds := o.Bounds
	bounds.TTL = o.TTL
	bounds.ExpiresAt = expiresAt
	policy, err := o.Provider.Compile(o.Scope, bounds)
	if err != nil {
		return "", err
	}
	if policy == "" {
		return "", errors.New("the provider compiled an empty policy")
	}
	return policy, nil
}

// Issue mints a credential: one write to storage, before the target is called, and
// another after that where only the target could say what the credential is ended by.
//
// The mint has a context of its own. Vault drops the answer to a caller who has
// hung up, without a lease and without a revoke; so if ctx has ended by the
// time the credential exists, the grant is ended at once.
func (m *Manager) Issue(ctx context.Context, storage logical.Storage, order Order) (Issued, error) {
	issued, err := m.makeRoom(ctx, storage, order)
	outcome := outcomeOf(order.Provider, err)
	if err != nil && ctx.Err() != nil {
		outcome = telemetry.HungUp
	}
	m.Metrics.Count(order.Target, telemetry.Mint, outcome)
	return issued, err
}

func (m *Manager) issue(ctx context.Context, storage logical.Storage, order Order) (Issued, error) {
	now := m.Now()
	policy, expiresAt, err := order.Compile(now)
	if err != nil {
		return Issued{}, err
	}
	if !now.Before(expiresAt) {
		return Issued{}, ErrTooLate
	}
	if err := m.lane(order.Target).Refuses(circuit.Mint); err != nil { // before anything is written
		return Issued{}, unavailable(order.Target, err)
	}
	own, err := m.LedgerID(ctx, storage)
	if err != nil {
		return Issued{}, err
	}
	needed, err := m.need(ctx, storage, order, policy)
	if err != nil {
		return Issued{}, err
	}
	latest := expiresAt
	if renewed := now.Add(order.Longest); renewed.After(latest) {
		latest = renewed
	}
	id := ledger.NewID(latest)
	handle, err := order.Provider.Prepare(ctx, provider.Grant{
		ID: id, Mount: order.Mount, Ledger: own, Role: order.Role, Task: order.Task, EntityID: order.EntityID, EntityName: order.EntityName, ExpiresAt: expiresAt, Options: order.Bounds.Options, Policy: policy,
	})
	if err != nil {
		return Issued{}, m.unprepared(ctx, order, err)
	}
	grant := ledger.Grant{
		ID: id, State: ledger.Pending, Target: order.Target, System: order.System, Base: baseOf(order.Provider, handle),
		Role: order.Role, Task: order.Task, Action: order.Scope.Action(), Resource: order.Scope.Resource(),
		EntityID: order.EntityID, DisplayName: order.DisplayName, Accessor: order.Accessor,
		Installed: needed.Key, Approval: order.Approval, Handle: handle, IssuedAt: now.UTC(), ExpiresAt: expiresAt,
	}
	order.describe(&grant)
	if err := order.describePolicy(&grant, policy); err != nil {
		return Issued{}, err
	}
	defer m.minting(id)()
	if err := m.record(ctx, storage, grant, order); err != nil {
		forget(order.Provider, handle)
		return Issued{}, err
	}
	if ctx.Err() != nil {
		m.withdraw(ctx, storage, order, grant, ledger.CallerHungUp)
		return Issued{}, ctx.Err()
	}

	if err := m.install(ctx, storage, needed, false); err != nil {
		m.withdraw(ctx, storage, order, grant, ledger.MintFailed)
		return Issued{}, err
	}
	credential, called, err := m.mint(ctx, order, grant, policy)
	if errors.As(err, new(*provider.NotMade)) && errors.Is(err, provider.ErrNotInstalled) {
		if err = m.install(ctx, storage, needed, true); err == nil {
			credential, called, err = m.mint(ctx, order, grant, policy)
		}
	}
	switch {
	case err != nil && !called:
		m.withdraw(ctx, storage, order, grant, ledger.MintFailed)
		return Issued{}, err // which means something to Vault as it is
	case errors.As(err, new(*provider.NotMade)):
		m.Log.Warn("mint refused", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "outcome", outcomeOf(order.Provider, err), "error", err)
		m.withdraw(ctx, storage, order, grant, ledger.MintFailed)
		return Issued{}, fmt.Errorf("minting on target %q: %w", order.Target, err)
	case err != nil:
		m.Log.Warn("mint failed", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "outcome", outcomeOf(order.Provider, err), "error", err)
		m.abandon(ctx, storage, order, grant, ledger.MintFailed)
		return Issued{}, fmt.Errorf("minting on target %q: %w", order.Target, err)
	}
	grant.Handle = credential.Handle
	if credential.Unforeseen {
		err = m.keepHandle(ctx, storage, grant)
	}
	if err == nil && order.Confirm != nil {
		err = order.Confirm(ctx) // last, so that little time is left for what it asks about
	}
	remaining := expiresAt.Sub(m.Now())
	switch {
	case err != nil:
		cause := ledger.MintFailed
		if errors.As(err, new(*invalid.Denied)) {
			cause = ledger.Frozen
		}
		m.abandon(ctx, storage, order, grant, cause)
		return Issued{}, err
	case ctx.Err() != nil:
		m.abandon(ctx, storage, order, grant, ledger.CallerHungUp)
		return Issued{}, ctx.Err()
	case remaining <= 0:
		m.abandon(ctx, storage, order, grant, ledger.MintTooLate)
		return Issued{}, ErrTooLate
	case !m.Index.Minted(grant):
		m.abandon(ctx, storage, order, grant, ledger.MintFailed)
		return Issued{}, ErrOvertaken
	}
	// A lease of 0 s would mean the mount's default to Vault, so the last
	// fraction of a second counts as one; the target's own end is exact.
	lease := max(expiresAt.Sub(m.Now()).Truncate(time.Second), time.Second)
	m.Log.Info("grant issued", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "expires_at", grant.ExpiresAt)
	return Issued{Grant: grant, Policy: policy, Credential: credential, Lease: lease}, nil
}

// mint has the target make a grant's credential. called says whether it was asked.
func (m *Manager) mint(ctx context.Context, order Order, grant ledger.Grant, policy provider.Policy) (credential provider.Credential, called bool, err error) {
	err = m.call(ctx, order.Target, order.Provider, circuit.Mint, func(ctx context.Context) error {
		called = true
		credential, err = order.Provider.Mint(ctx, grant.Handle, policy, grant.ExpiresAt)
		return err
	})
	return credential, called, err
}

// Narrowed is what else than the action on its resource the order narrows a grant
// to, as a grant has it.
func (o Order) Narrowed() ledger.Grant {
	var grant ledger.Grant
	o.describe(&grant)
	return grant
}

// describe writes down what else the order narrows the grant to.
func (o Order) describe(grant *ledger.Grant) {
	for _, companion := range o.Scope.Companions() {
		grant.Companions = append(grant.Companions, companion.String())
	}
	if conditions := o.Scope.Conditions(); len(conditions) > 0 {
		block := map[string]map[string][]string{}
		for _, condition := range conditions {
			if block[condition.Operator] == nil {
				block[condition.Operator] = map[string][]string{}
			}
			block[condition.Operator][condition.Key] = condition.Values
		}
		text, err := json.Marshal(block)
		if err != nil {
			panic(err) // strings can always be marshalled
		}
		grant.Conditions = string(text)
	}
	if o.Bounds.SourceIP.IsValid() {
		grant.SourceIP = o.Bounds.SourceIP.String()
	}
}

// describePolicy records what the grant was compiled from and to.
func (o Order) describePolicy(grant *ledger.Grant, policy provider.Policy) error {
	grant.RoleVersion, grant.Filled, grant.PolicySHA256 = o.RoleVersion, o.Filled, Hash(Blank(policy, grant.ExpiresAt, o.Bounds.SourceIP))
	if len(o.Bounds.Options) == 0 {
		return nil
	}
	options, err := json.Marshal(o.Bounds.Options)
	if err != nil {
		return fmt.Errorf("encoding the role's options: %w", err)
	}
	grant.Options = string(options)
	return nil
}

// Blank is a policy with its expiry and the reader's address left out: what it shares with other policies of the same
// scope.
func Blank(policy provider.Policy, expiresAt time.Time, reader netip.Addr) provider.Policy {
	text := strings.ReplaceAll(string(policy), expiresAt.UTC().Format(time.RFC3339), "<expires_at>")
	if reader.IsValid() {
		text = strings.ReplaceAll(text, reader.String(), "<source_ip>")
	}
	return provider.Policy(text)
}

// unprepared has the circuit know of a target that did not answer while a mint was
// being prepared, so that those who come next don't wait for it. That a mint was
// prepared says nothing, since most of them ask nobody.
func (m *Manager) unprepared(ctx context.Context, order Order, err error) error {
	if ctx.Err() == nil && verdictOf(err) == circuit.Unanswered {
		_ = m.lane(order.Target).Do(ctx, circuit.Mint, func(context.Context) error { return err }) // the error is its own
	}
	return err
}

// record admits a grant and writes it down.
func (m *Manager) record(ctx context.Context, storage logical.Storage, grant ledger.Grant, order Order) error {
	if order.Limit != nil {
		if err := m.Await(ctx); err != nil {
			return err
		}
	}
	if err := m.admit(grant, order); err != nil {
		return err
	}
	// A caller who hangs up must not leave open whether storage has taken it.
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if order.Claim != nil {
		if err := order.Claim(detached, grant); err != nil {
			m.Index.Remove(grant.ID)
			return err
		}
	}
	if err := ledger.Put(detached, storage, grant); err != nil {
		// Storage may have taken it. Nothing is minted, and the sweeper meets it.
		m.Index.Remove(grant.ID)
		return err
	}
	return nil
}

func (m *Manager) admit(grant ledger.Grant, order Order) error {
	if order.Hold != nil {
		release, err := order.Hold()
		if err != nil {
			return err
		}
		defer release()
	}
	return m.Index.Admit(grant, grant.IssuedAt, order.Limit)
}

// abandon ends a grant that nobody will hold. What it can't end is left to the
// sweeper, and dies at the target at its ExpiresAt.
func (m *Manager) abandon(ctx context.Context, storage logical.Storage, order Order, grant ledger.Grant, cause ledger.Cause) {
	ended := EndOrder{Provider: order.Provider, ID: grant.ID, Target: grant.Target, System: grant.System, Handle: grant.Handle, Cause: cause}
	err := m.act(context.WithoutCancel(ctx), ended, abandons, func(ctx context.Context) error {
		return m.end(ctx, storage, ended, true)
	})
	if errors.Is(err, ErrStillEnding) {
		m.Log.Warn("an abandoned grant is still being ended", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "ending", cause)
	} else if err != nil {
		m.Log.Error("an abandoned grant could not be ended", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "ending", cause, "error", err)
	}
}

// withdraw closes the record of a grant of which the target has made nothing. It
// hangs on no base any more: there, one that was ended before its time would be
// denied after a restart. What it can't write, the sweeper meets.
func (m *Manager) withdraw(ctx context.Context, storage logical.Storage, order Order, grant ledger.Grant, cause ledger.Cause) {
	forget(order.Provider, grant.Handle)
	ended := EndOrder{Provider: order.Provider, ID: grant.ID, Target: grant.Target}
	err := m.act(context.WithoutCancel(ctx), ended, begins, func(ctx context.Context) error {
		if known, err := m.find(ctx, storage, grant.ID); err == nil && known.Finished() {
			return nil // somebody has ended it meanwhile
		}
		grant.State, grant.Ending, grant.EndedAt, grant.Base = cause.State(), cause, m.Now().UTC(), ""
		return m.write(ctx, storage, grant)
	})
	if err != nil {
		m.Log.Error("a grant that was not minted could not be withdrawn", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "error", err)
	}
}

// forget tells a provider that nothing is minted with a handle.
func forget(target provider.Provider, handle provider.Handle) {
	if keeper, able := target.(provider.Keeper); able {
		keeper.Forget(handle)
	}
}
