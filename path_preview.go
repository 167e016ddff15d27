package precision

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathPreview() []*framework.Path {
	fields := mintFields()
	withTask := maps.Clone(fields)
	withTask["task"] = taskField()
	operations := map[logical.Operation]framework.OperationHandler{
		logical.ReadOperation: &framework.PathOperation{Callback: b.preview, Summary: "Show the policy that a credential would have now, and mint nothing."},
	}
	return []*framework.Path{
		{
			Pattern:             "preview/(?P<role>[^/]+)",
			TakesArbitraryInput: true, // the role's parameters
			DisplayAttrs:        &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "preview", OperationSuffix: "credentials"},
			Fields:              fields,
			Operations:          operations,
			HelpSynopsis:        "Show the policy that a credential of a role would have.",
			HelpDescription:     strings.TrimSpace(previewHelp),
		},
		{
			Pattern:             "preview/(?P<role>[^/]+)/(?P<task>(?s:.+))",
			TakesArbitraryInput: true, // the role's parameters
			DisplayAttrs:        &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "preview", OperationSuffix: "credentials-for-task"},
			Fields:              withTask,
			Operations:          operations,
			HelpSynopsis:        "Show the policy that a credential of a role and a task would have.",
			HelpDescription:     strings.TrimSpace(previewHelp),
		},
	}
}

func (b *backend) preview(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	order, warnings, err := b.order(ctx, req, data, false)
	if err != nil {
		return refuse(err)
	}
	policy, expiresAt, err := order.Compile(b.grants.Now())
	if err != nil {
		return refuse(err)
	}
	return &logical.Response{
		Data: map[string]any{
			"target":     order.Target,
			"action":     order.Scope.Action(),
			"resource":   order.Scope.Resource(),
			"task":       order.Task,
			"expires_at": expiresAt.Format(time.RFC3339),
			"policy":     string(policy),
		},
		Warnings: warnings,
	}, nil
}

const previewHelp = `
Takes what "creds/" takes, and answers with the policy that a credential would
have if it were read now: the same byte for byte, but for ids and times. Nothing
is minted.
`
