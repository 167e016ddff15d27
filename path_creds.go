package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
)

func (b *backend) pathCreds() []*framework.Path {
	fields := map[string]*framework.FieldSchema{
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
	withTask := maps.Clone(fields)
	withTask["task"] = &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "What the credential is for: the id of a ticket, a pipeline run, an incident.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Task"},
	}
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
			Pattern:         "creds/(?P<role>[^/]+)",
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "credentials"},
			Fields:          fields,
			Operations:      operations("credentials"),
			HelpSynopsis:    "Mint a credential for a role.",
			HelpDescription: strings.TrimSpace(credsHelp),
		},
		{
			Pattern:         "creds/(?P<role>[^/]+)/(?P<task>(?s:.+))",
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "credentials-for-task"},
			Fields:          withTask,
			Operations:      operations("credentials-for-task"),
			HelpSynopsis:    "Mint a credential for a role and a task.",
			HelpDescription: strings.TrimSpace(credsHelp),
		},
	}
}

func (b *backend) mint(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	b.definitions.RLock()
	recorded := sync.OnceFunc(b.definitions.RUnlock)
	defer recorded()
	order, warnings, err := b.order(ctx, req, data)
	if err != nil {
		return refuse(err)
	}
	order.Recorded = recorded
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
	response := b.lease(issued, answer)
	response.Warnings = warnings
	return response, nil
}

// order reads what the caller asks for and checks it against the role.
func (b *backend) order(ctx context.Context, req *logical.Request, data *framework.FieldData) (order lifecycle.Order, warnings []string, err error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return lifecycle.Order{}, nil, err
	}
	task := ""
	if _, withTask := data.Schema["task"]; withTask {
		task = data.Get("task").(string)
		if err := checkName("task", task, maxTask); err != nil {
			return lifecycle.Order{}, nil, err
		}
	}
	stored, err := b.roles.get(name, func() (role, error) { return readRole(ctx, req.Storage, name) })
	if errors.Is(err, errNoRole) {
		return lifecycle.Order{}, nil, invalid.Field("role", name, "no such role exists", "read a role that is defined at roles/")
	}
	if err != nil {
		return lifecycle.Order{}, nil, err
	}
	opened, err := b.openTarget(ctx, req.Storage, stored.Target)
	if errors.Is(err, errNoTarget) {
		return lifecycle.Order{}, nil, invalid.Field("role", name, fmt.Sprintf("its target %q is not configured any more", stored.Target), "configure the target again, or change the role")
	}
	if err != nil {
		return lifecycle.Order{}, nil, err
	}
	granted, err := stored.scope()
	if err != nil {
		return lifecycle.Order{}, nil, err
	}
	requested := time.Duration(data.Get("ttl").(int)) * time.Second
	ttl, warnings, err := stored.lifetime(requested, b.System())
	if err != nil {
		return lifecycle.Order{}, nil, err
	}
	return lifecycle.Order{
		Provider:    opened.provider,
		Target:      stored.Target,
		System:      opened.system,
		Mount:       b.mountUUID,
		Role:        name,
		Task:        task,
		Scope:       granted,
		Options:     stored.Options,
		TTL:         ttl,
		EntityID:    req.EntityID,
		DisplayName: req.DisplayName,
	}, warnings, nil
}

const credsHelp = `
Mints a credential that can do the role's one action on its one resource, under
a lease that is not renewable. The lease lasts as long as the credential does;
"expires_at" says when the target itself stops honouring it, even if Vault is
gone by then. Revoking the lease ends it at once.

The task is part of the lease's id, so that
"vault lease revoke -prefix <mount>/creds/<role>/<task>" ends all credentials of
one task, ".../creds/<role>" all of one role, and ".../creds" all of the mount.
`
