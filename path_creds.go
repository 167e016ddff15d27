package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/telemetry"
)

func (b *backend) pathCreds() []*framework.Path {
	fields := mintFields()
	withTask := maps.Clone(fields)
	withTask["task"] = taskField()
	operations := func(suffix string) map[logical.Operation]framework.OperationHandler {
		return map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:                  b.mint,
				Summary:                   "Mint a credential for one action on one resource.",
				ForwardPerformanceStandby: true,
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                  b.mint,
				Summary:                   "Mint a credential for one action on one resource, with parameters in the body.",
				ForwardPerformanceStandby: true,
				DisplayAttrs:              &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: suffix + "-with-parameters"},
			},
		}
	}
	return []*framework.Path{
		{
			Pattern:             "creds/(?P<role>[^/]+)",
			TakesArbitraryInput: true, // the role's parameters
			DisplayAttrs:        &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "credentials"},
			Fields:              fields,
			Operations:          operations("credentials"),
			HelpSynopsis:        "Mint a credential for a role.",
			HelpDescription:     strings.TrimSpace(credsHelp),
		},
		{
			Pattern:             "creds/(?P<role>[^/]+)/(?P<task>(?s:.+))",
			TakesArbitraryInput: true, // the role's parameters
			DisplayAttrs:        &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "credentials-for-task"},
			Fields:              withTask,
			Operations:          operations("credentials-for-task"),
			HelpSynopsis:        "Mint a credential for a role and a task.",
			HelpDescription:     strings.TrimSpace(credsHelp),
		},
	}
}

// mintFields are the fields of a read that mints, or shows what would be minted.
func mintFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"role": {
			Type:         framework.TypeString,
			Description:  "Name of the role.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Role"},
		},
		"ttl": {
			Type:         framework.TypeDurationSecond,
			Query:        true,
			Description:  "How long the credential is to live, up to the role's max_ttl. Default: the role's ttl.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "TTL"},
		},
	}
}

func taskField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "What the credential is for: the id of a ticket, a pipeline run, an incident.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Task"},
	}
}

func (b *backend) mint(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	order, warnings, err := b.order(ctx, req, data, true)
	if err != nil {
		b.countRefusal(ctx, req, data, err)
		return refuse(err)
	}
	order.Confirm = func(ctx context.Context) error {
		if err := b.fitsLease(order.TTL); err != nil {
			return err
		}
		return b.checkFrozen(ctx, req.Storage, order)
	}
	order.Hold = func() (func(), error) { return b.holdTarget(ctx, req.Storage, order) }
	issued, err := b.grants.Issue(ctx, req.Storage, order)
	if err != nil {
		return refuse(err)
	}
	answer := maps.Clone(issued.Credential.Fields)
	maps.Copy(answer, map[string]any{
		"action":     issued.Grant.Action,
		"resource":   issued.Grant.Resource,
		"task":       issued.Grant.Task,
		"grant_id":   issued.Grant.ID,
		"expires_at": issued.Grant.ExpiresAt.Format(time.RFC3339),
		"policy":     string(issued.Policy),
	})
	var renewal *renewal
	if order.Longest > 0 {
		renewal = renewalOf(issued, order, parametersOf(req, data), callerAddress(req))
	}
	response := b.lease(issued, answer, renewal)
	response.Warnings = append(warnings, issued.Credential.Warnings...)
	b.observed.note(order.Role, issued.Credential)
	return response, nil
}

// fitsLease refuses what would outlive its lease at the target: Vault cuts a lease to what the mount is tuned to now, and
// that may be less than when the credential was ordered.
func (b *backend) fitsLease(ttl time.Duration) error {
	if most := b.system.maxLeaseTTLNow(); ttl > most {
		return fmt.Errorf("%w: the mount's max_lease_ttl is %s since a moment ago, and the credential was to live for %s; read it again", provider.ErrUnavailable, most, ttl)
	}
	return nil
}

// holdTarget keeps an order's target from being deleted or moved to another system
// until release is called, if that has not happened since the order was filled in,
// and nor has it been frozen.
// Until then nothing is held: what a target is asked before a mint can take long,
// and who writes a target meanwhile would stop the mints on all of them.
func (b *backend) holdTarget(ctx context.Context, storage logical.Storage, order lifecycle.Order) (release func(), err error) {
	b.definitions.RLock()
	opened, err := b.openTarget(ctx, storage, order.Target)
	if err == nil && opened.system == order.System {
		if err = b.checkFrozen(ctx, storage, order); err == nil {
			return b.definitions.RUnlock, nil
		}
		b.definitions.RUnlock()
		return nil, err
	}
	b.definitions.RUnlock()
	if err == nil || errors.Is(err, errNoTarget) {
		err = logical.CodedError(http.StatusServiceUnavailable, fmt.Sprintf("target %q was changed or deleted while the credential was being prepared; try again", order.Target))
	}
	return nil, err
}

// countRefusal counts an order that was refused before it got to its target.
func (b *backend) countRefusal(ctx context.Context, req *logical.Request, data *framework.FieldData, err error) {
	name, misnamed := nameIn(data, "role")
	if misnamed != nil || !refuses(err) {
		return
	}
	if stored, err := b.openRole(ctx, req.Storage, name); err == nil {
		b.grants.Metrics.Count(stored.Target, telemetry.Mint, telemetry.Refused)
	}
}

const credsHelp = `
Mints a credential that can do the role's one action on its one resource, under
a lease that is not renewable, unless the role says so. The lease lasts as long as the credential does;
"expires_at" says when the target itself stops honouring it, even if Vault is
gone by then. Revoking the lease ends it at once.

Beside "ttl" it takes the role's parameters, as fields of their own names:
"vault read <mount>/creds/<role>/<task> key=app/1.tgz". All have to be given.

The task is part of the lease's id, so that
"vault lease revoke -prefix <mount>/creds/<role>/<task>" ends all credentials of
one task, ".../creds/<role>" all of one role, and ".../creds" all of the mount.
`
