package precision

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
)

func (b *backend) pathCatalog() []*framework.Path {
	service := &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "Prefix of an AWS service, such as s3.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Service"},
	}
	action := &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "Name of an action of that service, such as PutObject.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Action"},
	}
	return []*framework.Path{
		{
			Pattern:      "catalog/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "catalog"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: listServices, Summary: "List the AWS services.",
					DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "catalog-services"},
				},
				logical.ReadOperation: &framework.PathOperation{Callback: readCatalog, Summary: "Say what the catalogue was made from."},
			},
			HelpSynopsis:    "The AWS actions that roles can name.",
			HelpDescription: strings.TrimSpace(catalogHelp),
		},
		{
			Pattern:      "catalog/(?P<service>[^/]+)/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "catalog-service"},
			Fields:       map[string]*framework.FieldSchema{"service": service},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: listActions, Summary: "List a service's actions.",
					DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "catalog-actions"},
				},
				logical.ReadOperation: &framework.PathOperation{Callback: readService, Summary: "Read a service: its resource types and their ARNs."},
			},
			HelpSynopsis:    "The actions and resource types of an AWS service.",
			HelpDescription: strings.TrimSpace(catalogHelp),
		},
		{
			Pattern:      "catalog/(?P<service>[^/]+)/(?P<action>[^/]+)",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "catalog-action"},
			Fields:       map[string]*framework.FieldSchema{"service": service, "action": action},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: readAction, Summary: "Read an action: what it works on and what it depends on."},
			},
			HelpSynopsis:    "What an AWS action works on.",
			HelpDescription: strings.TrimSpace(catalogHelp),
		},
	}
}

func listServices(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return logical.ListResponse(catalog.Services()), nil
}

func readCatalog(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	var sources []map[string]any
	for _, source := range catalog.Sources() {
		sources = append(sources, map[string]any{"package": source.Package, "version": source.Version, "date": source.Date, "licence": source.Licence})
	}
	return &logical.Response{Data: map[string]any{"services": len(catalog.Services()), "sources": sources}}, nil
}

// serviceIn is the service that the path names.
func serviceIn(data *framework.FieldData) (catalog.Service, error) {
	prefix := data.Get("service").(string)
	service, known := catalog.ServiceByPrefix(prefix)
	if !known {
		return catalog.Service{}, invalid.Field("service", prefix, "the catalogue has no such service", "list catalog/ for all of them")
	}
	return service, nil
}

func listActions(_ context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	service, err := serviceIn(data)
	if err != nil {
		return refuse(err)
	}
	var names []string
	for _, action := range service.Actions() {
		_, name, _ := strings.Cut(action.Name, ":")
		names = append(names, name)
	}
	for _, action := range aws.NamedActions(service.Prefix) {
		_, name, _ := strings.Cut(action, ":")
		names = append(names, name)
	}
	return logical.ListResponse(names), nil
}

func readService(_ context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	service, err := serviceIn(data)
	if err != nil {
		return refuse(err)
	}
	types := map[string]any{}
	for _, kind := range service.ResourceTypes() {
		types[kind.Name] = map[string]any{"arn_patterns": kind.Patterns, "condition_keys": kind.ConditionKeys}
	}
	return &logical.Response{Data: map[string]any{
		"service": service.Prefix, "name": service.Name, "actions": len(service.Actions()), "resource_types": types,
		"named_actions": aws.NamedActions(service.Prefix),
	}}, nil
}

func readAction(_ context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	service, err := serviceIn(data)
	if err != nil {
		return refuse(err)
	}
	name := service.Prefix + ":" + data.Get("action").(string)
	if named, known := aws.FindNamed(name); known {
		return &logical.Response{Data: describeNamed(named)}, nil
	}
	action, known := catalog.Find(name)
	if !known {
		_, err := aws.FindAction(name)
		return refuse(err)
	}
	types := map[string]any{}
	keys := map[string]bool{}
	for _, use := range action.Resources {
		kind, _ := service.ResourceType(use.Type)
		types[use.Type] = map[string]any{"arn_patterns": kind.Patterns, "required": use.Required}
		for _, key := range use.ConditionKeys {
			keys[key] = true
		}
	}
	for _, key := range action.ConditionKeys {
		keys[key] = true
	}
	answer := map[string]any{
		"action":            action.Name,
		"access_levels":     action.AccessLevels,
		"resource_types":    types,
		"condition_keys":    slices.Sorted(maps.Keys(keys)),
		"dependent_actions": action.DependentActions,
	}
	if escalation, escalates := catalog.EscalationOf(action); escalates {
		answer["escalation"] = map[string]any{"verdict": escalation.Verdict, "class": escalation.Class, "reason": escalation.Reason, "source": escalation.Source}
	}
	return &logical.Response{Data: answer}, nil
}

// describeNamed shows what a named action is made of.
func describeNamed(named aws.Named) map[string]any {
	var members []map[string]any
	for _, member := range named.Members {
		shown := map[string]any{"action": member.Action, "why": member.Why, "on": member.On}
		if member.On == "" {
			shown["on"] = "the role's resource"
		}
		members = append(members, shown)
	}
	return map[string]any{"action": named.Name, "resource": named.Resource, "members": members}
}

const catalogHelp = `
The catalogue knows every AWS action: the resource types that it works on with
the patterns of their ARNs, the condition keys it can be narrowed by, its access
levels and the actions that it depends on. It is built into the engine: reading
it asks nobody. A role of an aws target names an action of it, or a named action:
a closed list of actions that one task needs of one resource, such as s3:sync-up.
Their names are in lower case. A read of one lists its members and says why each is there.
`
