package precision

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// renewal is what a renewable lease remembers beside its grant: what the role was
// filled in with, and what came of it.
type renewal struct {
	Parameters map[string]string `json:"parameters,omitempty"`
	SourceIP   netip.Addr        `json:"source_ip,omitzero"` // invalid where the role did not bind it
	Caller     netip.Addr        `json:"caller,omitzero"`    // where it was read from; invalid where that is not known
	Minted     lifecycle.Minted  `json:"minted"`
}

func renewalOf(issued lifecycle.Issued, order lifecycle.Order, parameters map[string]string, caller netip.Addr) *renewal {
	return &renewal{Parameters: parameters, SourceIP: order.Bounds.SourceIP, Caller: caller, Minted: issued.Minted()}
}

// renew moves the end of a lease's credential, and the lease's with it. The role
// as it is now decides: whether it would still grant the same, and for how long.
// Refusals are errors, since Vault shows an error response as a Go value.
func (b *backend) renew(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	data, err := readLease(req.Secret)
	if err != nil {
		return nil, err
	}
	const remedy = "read a new credential"
	if data.Version > stored.Version {
		return nil, bare(fmt.Errorf("the lease was %w", stored.ErrNewer))
	}
	if data.Renewal == nil {
		return nil, invalid.Hidden("lease", "its role did not say renewable=true when it was read", remedy)
	}
	grant, err := b.grants.Find(ctx, req.Storage, data.GrantID)
	if err != nil {
		return nil, bare(err)
	}
	order, current, err := b.fill(ctx, req.Storage, wish{
		role: grant.Role, task: grant.Task, parameters: data.Renewal.Parameters, address: data.Renewal.SourceIP, entityID: grant.EntityID, displayName: grant.DisplayName,
	})
	if err != nil {
		return nil, bare(err)
	}
	if err := b.checkFrozen(ctx, req.Storage, order); err != nil {
		return nil, bare(err)
	}
	if !current.Renewable {
		return nil, invalid.Hidden("lease", "its role does not say renewable=true any more", remedy)
	}
	b.system.maxTTL.forget() // Vault cuts the lease to what the mount is tuned to now
	if order.Longest, err = current.longest(b.System()); err != nil {
		return nil, err
	}
	wanted := min(max(req.Secret.Increment, 0), order.Longest)
	if order.TTL, _, err = current.lifetime(wanted, b.System()); err != nil {
		return nil, bare(err)
	}
	cut, err := b.admitRenewal(current.rules, grant, data.Renewal.Caller, &order)
	if err != nil {
		return nil, bare(err)
	}
	order.Confirm = func(ctx context.Context) error { return b.checkFrozen(ctx, req.Storage, order) }
	renewed, err := b.grants.Renew(ctx, req.Storage, lifecycle.RenewOrder{Order: order, ID: data.GrantID, Handle: data.Handle, Minted: data.Renewal.Minted})
	if err != nil {
		return nil, bare(err)
	}
	response := b.renewedLease(req.Secret, renewed)
	if cut != "" {
		response.Warnings = []string{cut}
	}
	return response, nil
}

// admitRenewal holds a renewal to its role's rules, as if the credential were read
// anew by who has it: only its limits are met by the grant itself. Vault does not
// say who asks.
func (b *backend) admitRenewal(rules admission.Rules, grant ledger.Grant, caller netip.Addr, order *lifecycle.Order) (cut string, err error) {
	now := b.grants.Now()
	request := admission.Request{Task: grant.Task, Caller: b.caller(caller, grant.EntityID)}
	if order.Until, err = rules.Admit(request, now, now.Add(order.TTL+time.Second)); err != nil {
		return "", err
	}
	order.TTL, cut = rules.Cut(order.TTL, now, order.Until)
	return cut, nil
}

// renewedLease ends with its credential. Vault gives a caller what it asks for up
// to the lease's maximum, which counts from when the lease began.
func (b *backend) renewedLease(lease *logical.Secret, renewed ledger.Grant) *logical.Response {
	began := lease.IssueTime
	if began.IsZero() {
		began = renewed.IssuedAt
	}
	lease.TTL = max(renewed.ExpiresAt.Sub(b.grants.Now()).Truncate(time.Second), time.Second)
	lease.MaxTTL = max(renewed.ExpiresAt.Sub(began).Truncate(time.Second), time.Second)
	return &logical.Response{Secret: lease}
}
