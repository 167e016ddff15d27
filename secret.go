package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/sweep"
)

// secretType names the one kind of lease that this engine gives.
const secretType = "precision_credential"

// leaseData is what a lease remembers of its grant: enough to end it when its
// role has been changed or deleted, and when the ledger has lost it.
type leaseData struct {
	Version int             `json:"version"` // see stored.Version
	GrantID string          `json:"grant_id"`
	Target  string          `json:"target"`
	System  string          `json:"system"` // see ledger.Grant
	Handle  provider.Handle `json:"handle"`
	Role    string          `json:"role"` // Role and Task name the grant where its record is lost
	Task    string          `json:"task"`
	Renewal *renewal        `json:"renewal"` // nil for one that can't be renewed
}

func (b *backend) secret() *framework.Secret {
	return &framework.Secret{
		Type: secretType,
		Fields: map[string]*framework.FieldSchema{
			"access_key": {Type: framework.TypeString, Description: "Access key"},
			"secret_key": {Type: framework.TypeString, Description: "Secret key"},
			"session_token": {
				Type:        framework.TypeString,
				Description: "Session token, where the credential is a session",
			},
		},
		Renew:  b.renew,
		Revoke: b.revoke,
	}
}

// lease answers a read with an issued credential under its lease.
func (b *backend) lease(issued lifecycle.Issued, data map[string]any, renewal *renewal) *logical.Response {
	response := b.Secret(secretType).Response(data, map[string]any{
		"version":  stored.Version,
		"renewal":  renewal,
		"grant_id": issued.Grant.ID,
		"target":   issued.Grant.Target,
		"system":   issued.Grant.System,
		"handle":   issued.Credential.Handle,
		"role":     issued.Grant.Role,
		"task":     issued.Grant.Task,
	})
	response.Secret.Renewable = renewal != nil
	response.Secret.TTL = issued.Lease
	response.Secret.MaxTTL = issued.Lease
	return response
}

// revoke ends a lease's grant. An error makes Vault try again; an error
// response would not.
func (b *backend) revoke(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	data, err := readLease(req.Secret)
	if err != nil {
		return nil, err
	}
	ender, err := b.enderOf(ctx, req.Storage, ledger.Grant{ID: data.GrantID, Target: data.Target, System: data.System})
	if errors.Is(err, sweep.ErrUnreachable) {
		// One that was given up for lost must not leave a lease that can't be revoked.
		if lost, found := b.grants.Lost(ctx, req.Storage, data.GrantID); found != nil || lost {
			return nil, found
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, bare(b.grants.End(ctx, req.Storage, lifecycle.EndOrder{
		Provider: ender, ID: data.GrantID, Target: data.Target, System: data.System, Handle: data.Handle, Role: data.Role, Task: data.Task, LeaseID: req.Secret.LeaseID,
	}))
}

// enderOf opens the target that a grant lives on, if that is still there.
func (b *backend) enderOf(ctx context.Context, storage logical.Storage, grant ledger.Grant) (provider.Provider, error) {
	opened, err := b.openTarget(ctx, storage, grant.Target)
	switch {
	case errors.Is(err, errNoTarget):
		return nil, fmt.Errorf("grant %s can't be ended because target %q is not configured any more: configure it again and revoke the lease again: %w", grant.ID, grant.Target, sweep.ErrUnreachable)
	case err != nil:
		return nil, err
	case opened.system != grant.System:
		return nil, fmt.Errorf("grant %s can't be ended because target %q is another system now, or another user's: configure it as it was and revoke the lease again: %w", grant.ID, grant.Target, sweep.ErrUnreachable)
	}
	return opened.provider, nil
}

// readLease reads what lease wrote. Vault has kept it as JSON in between.
func readLease(secret *logical.Secret) (leaseData, error) {
	var data leaseData
	if secret == nil {
		return data, errors.New("the revocation carries no lease")
	}
	text, err := json.Marshal(secret.InternalData)
	if err != nil {
		return data, fmt.Errorf("encoding the lease's data: %w", err)
	}
	if err := json.Unmarshal(text, &data); err != nil {
		return data, fmt.Errorf("decoding the lease's data: %w", err)
	}
	if data.GrantID == "" || data.Target == "" || len(data.Handle) == 0 {
		return data, errors.New("the lease's data does not name its grant")
	}
	return data, nil
}
