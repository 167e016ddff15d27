package precision

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

func (b *backend) pathCheck() []*framework.Path {
	text := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Query: true, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	object := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeMap, Query: true, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	task := taskField()
	task.Query = true
	return []*framework.Path{{
		Pattern:      "check/(?P<role>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "check", OperationSuffix: "role"},
		Fields: map[string]*framework.FieldSchema{
			"role": {
				Type:         framework.TypeString,
				Description:  "Name of the role.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Role"},
			},
			"task":            task,
			"parameters":      object("Parameters", "The role's parameters, as an object of names and values."),
			"action":          text("Action", "The action that is asked about, such as s3:GetObject."),
			"resource":        text("Resource", "The one resource that it is asked about, such as arn:aws:s3:::releases/app/1.tgz."),
			"source_ip":       text("Source IP", "The address that the request would come from. Default: not known to the target."),
			"time":            text("Time", "When the request would be made, as 2026-11-24T12:30:00Z. Default: now."),
			"context":         object("Context", `Further condition keys of the request: {"aws:SecureTransport": "true"}. A key with several values has a list.`),
			"resource_policy": text("Resource policy", "The resource's own policy, such as a bucket policy, as JSON. Default: it has none."),
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{Callback: b.check, Summary: "Say whether a role's credential would be allowed an action on a resource."},
		},
		HelpSynopsis:    "Say whether a role's credential would be allowed an action on a resource.",
		HelpDescription: strings.TrimSpace(checkHelp),
	}}
}

func (b *backend) check(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	verdict, err := b.judge(ctx, req, data)
	if err != nil {
		return refuse(err)
	}
	return &logical.Response{Data: map[string]any{
		"allowed":   verdict.Allowed,
		"effect":    verdict.Effect,
		"reason":    verdict.Reason,
		"statement": verdict.Clause,
		"policy":    verdict.Of,
	}}, nil
}

func (b *backend) judge(ctx context.Context, req *logical.Request, data *framework.FieldData) (provider.Verdict, error) {
	parameters := map[string]string{}
	if given, ok := data.GetOk("parameters"); ok {
		for name, raw := range given.(map[string]any) {
			value, ok := raw.(string)
			if !ok {
				return provider.Verdict{}, notA("a string", "parameters."+invalid.Clip(name), raw)
			}
			parameters[name] = value
		}
	}
	order, stored, err := b.orderFor(ctx, req, data, parameters)
	if err != nil {
		return provider.Verdict{}, err
	}
	if order.TTL, _, err = stored.lifetime(0, b.System()); err != nil {
		return provider.Verdict{}, err
	}
	checker, able := order.Provider.(provider.Checker)
	if !able {
		return provider.Verdict{}, invalid.Field("role", order.Role, fmt.Sprintf("what a credential of target %q may do can't be worked out here", order.Target), "try it with a credential")
	}
	question, err := b.question(data)
	if err != nil {
		return provider.Verdict{}, err
	}
	question.Options = order.Bounds.Options
	policy, _, err := order.Compile(b.grants.Now())
	if err != nil {
		return provider.Verdict{}, err
	}
	return checker.Check(policy, question)
}

// question reads the request that is asked about.
func (b *backend) question(data *framework.FieldData) (provider.Question, error) {
	question := provider.Question{
		Action:         data.Get("action").(string),
		Resource:       data.Get("resource").(string),
		Time:           b.grants.Now(),
		Context:        map[string][]string{},
		ResourcePolicy: data.Get("resource_policy").(string),
	}
	for name, value := range map[string]string{"action": question.Action, "resource": question.Resource} {
		if value == "" {
			return provider.Question{}, invalid.Field(name, value, "missing", "say which "+name+" is asked about")
		}
	}
	var err error
	if text := data.Get("time").(string); text != "" {
		if question.Time, err = time.Parse(time.RFC3339, text); err != nil {
			return provider.Question{}, invalid.Field("time", text, "not a point in time", "write it as 2026-11-24T12:30:00Z")
		}
	}
	if text := data.Get("source_ip").(string); text != "" {
		if question.SourceIP, err = netip.ParseAddr(text); err != nil || question.SourceIP.Zone() != "" {
			return provider.Question{}, invalid.Field("source_ip", text, "not an address", "write it as 203.0.113.7 or 2001:db8::7")
		}
	}
	if given, ok := data.GetOk("context"); ok {
		for key, raw := range given.(map[string]any) {
			values, ok := raw.([]any)
			if !ok {
				values = []any{raw}
			}
			for _, value := range values {
				text, ok := value.(string)
				if !ok {
					return provider.Question{}, notA("a string or a list of strings", "context."+invalid.Clip(key), value)
				}
				question.Context[key] = append(question.Context[key], text)
			}
		}
	}
	return question, nil
}

const checkHelp = `
Would a credential of this role, read now, be allowed "action" on "resource"?
The answer names the statement that decides, in the credential's policy or in the
resource's own, if that is given as "resource_policy": so one sees whether a
policy that lets everybody in adds to the grant. Nothing is minted and the target
is not asked.
`
