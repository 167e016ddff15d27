package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// RenewOrder asks for more time for a grant.
type RenewOrder struct {
	// Order is what the grant's role would grant now to who has the grant. Its TTL
	// counts from now, and its Longest from the grant's issue.
	Order
	ID     string
	Handle provider.Handle
	Minted Minted
}

// Minted tells what was minted, for comparison: a renewal changes nothing but
// the end.
type Minted struct {
	Policy    string    `json:"policy"`     // a hash of the policy that the credential was minted with
	ExpiresAt time.Time `json:"expires_at"` // the end that is in it
}

// Minted is what a later renewal has to know.
func (i Issued) Minted() Minted { return Minted{Policy: Hash(i.Policy), ExpiresAt: i.Grant.ExpiresAt} }

// Hash is the SHA-256 of a policy, in hexadecimal.
func Hash(policy provider.Policy) string {
	sum := sha256.Sum256([]byte(policy))
	return hex.EncodeToString(sum[:])
}

// ErrStillRenewing is returned to one who has waited long enough, while the
// renewal goes on.
var ErrStillRenewing error = logical.CodedError(http.StatusServiceUnavailable, "the target has not renewed the credential yet; try again")

func notRenewed(problem string) error {
	return invalid.Hidden("lease", problem, "read a new credential")
}

// Find returns the grant of an id. The error is an *invalid.Error where the
// ledger does not know it.
func (m *Manager) Find(ctx context.Context, storage logical.Storage, id string) (ledger.Grant, error) {
	grant, err := m.find(ctx, storage, id)
	if errors.Is(err, ledger.ErrNotFound) {
		return ledger.Grant{}, notRenewed("the ledger does not know its grant any more")
	}
	return grant, err
}

// Renew moves a grant's end to the order's TTL from now, but never past its
// Longest from when the grant was issued, and never to before the end that it
// has. It waits for an end of the grant that is under way, and an end waits for
// it. What the caller can mend is an *invalid.Error.
func (m *Manager) Renew(ctx context.Context, storage logical.Storage, order RenewOrder) (ledger.Grant, error) {
	var renewed ledger.Grant
	err := m.act(ctx, EndOrder{ID: order.ID, Target: order.Target}, renews, func(ctx context.Context) error {
		var err error
		renewed, err = m.renew(ctx, storage, order)
		return err
	})
	if errors.Is(err, ErrStillEnding) {
		return ledger.Grant{}, ErrStillRenewing
	}
	if err != nil {
		return ledger.Grant{}, err
	}
	return renewed, nil
}

// renew is Renew without its waiting. The ledger comes first: whatever fails, no
// credential lives longer than the ledger says.
func (m *Manager) renew(ctx context.Context, storage logical.Storage, order RenewOrder) (ledger.Grant, error) {
	target, able := order.Provider.(provider.Renewer)
	if !able {
		return ledger.Grant{}, notRenewed("its target can't move a credential's end")
	}
	grant, err := m.Find(ctx, storage, order.ID)
	if err != nil {
		return ledger.Grant{}, err
	}
	now := m.Now()
	if grant.State != ledger.Pending || !now.Before(grant.ExpiresAt) {
		return ledger.Grant{}, notRenewed("its grant is " + string(grant.Status(now)))
	}
	own, err := m.LedgerID(ctx, storage)
	if err != nil {
		return ledger.Grant{}, err
	}
	if err := order.same(ctx, grant, own); err != nil {
		return ledger.Grant{}, err
	}
	end, err := order.end(grant, now)
	if err != nil {
		return ledger.Grant{}, err
	}
	policy, err := order.compile(end)
	if err != nil {
		return ledger.Grant{}, err
	}
	if err := m.lane(order.Target).Refuses(circuit.Mint); err != nil { // before anything is written
		return ledger.Grant{}, unavailable(order.Target, err)
	}
	if order.Confirm != nil { // it may have waited
		if err := order.Confirm(ctx); err != nil {
			return ledger.Grant{}, err
		}
	}
	grant.Handle = order.Handle
	if !end.Equal(grant.ExpiresAt) {
		grant.ExpiresAt = end
		err := m.writePending(ctx, storage, grant)
		if errors.Is(err, ErrOvertaken) {
			return ledger.Grant{}, notRenewed("its grant is to end")
		}
		if err != nil {
			return ledger.Grant{}, err
		}
	}
	// Even where the end stays: a renewal that failed may have moved it in the
	// ledger alone.
	called := false
	err = m.lane(order.Target).Do(ctx, circuit.Mint, func(ctx context.Context) error {
		called = true
		return target.Renew(ctx, order.Handle, policy, end)
	})
	switch {
	case err != nil && !called:
		return ledger.Grant{}, unavailable(order.Target, err)
	case err != nil:
		return ledger.Grant{}, fmt.Errorf("renewing grant %s on target %q: %w", grant.ID, order.Target, err)
	}
	m.Log.Info("grant renewed", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "expires_at", grant.ExpiresAt)
	return grant, nil
}

// same refuses where the role would not grant now, to the letter, what it granted
// then: but for its end the policy is the same, and so is all that Prepare says
// of the credential. own is the ledger's id.
func (o RenewOrder) same(ctx context.Context, grant ledger.Grant, own string) error {
	if o.Target != grant.Target || o.System != grant.System {
		return notRenewed("its role names another target now, or its target is another system")
	}
	policy, err := o.compile(o.Minted.ExpiresAt)
	if err != nil {
		return err
	}
	if Hash(policy) != o.Minted.Policy {
		return notRenewed("its role has changed, and would grant something else now")
	}
	prepared, err := o.Provider.Prepare(ctx, provider.Grant{
		ID: grant.ID, Mount: o.Mount, Ledger: own, Role: grant.Role, Task: grant.Task, EntityID: grant.EntityID, ExpiresAt: o.Minted.ExpiresAt, Options: o.Bounds.Options,
	})
	if err != nil {
		return err
	}
	for key, value := range prepared {
		if o.Handle[key] != value {
			return notRenewed("its role has changed, and would mint another kind of credential now")
		}
	}
	for key, value := range grant.Handle { // as it was prepared, or as it was minted
		if prepared[key] != value && o.Handle[key] != value {
			return notRenewed("its lease is not of its grant")
		}
	}
	return nil
}

// end is when the grant is to end. The ledger finds a grant by the latest end that
// it was said to have when it was issued.
func (o RenewOrder) end(grant ledger.Grant, now time.Time) (time.Time, error) {
	latest, err := ledger.LatestEnd(grant.ID)
	if err != nil {
		return time.Time{}, err
	}
	latest = latest.Add(-time.Second)
	if allowed := grant.IssuedAt.Add(o.Longest).Truncate(time.Second).UTC(); allowed.Before(latest) {
		latest = allowed
	}
	end := o.endAt(now)
	if end.After(latest) {
		end = latest
	}
	if end.Before(grant.ExpiresAt) {
		end = grant.ExpiresAt
	}
	return end, nil
}
