package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// grantKeys are the fields that grants are looked for by, and what each is.
var grantKeys = []struct{ field, path, name, what string }{
	{"role", "role", "Role", "Name of a role"},
	{"task", "task", "Task", "Id of a task"},
	{"entity_id", "entity", "Entity ID", "Id of the Vault entity that read the credentials"},
	{"target", "target", "Target", "Name of a target"},
}

func (b *backend) pathGrants() []*framework.Path {
	filters := grantFilters()
	all := maps.Clone(filters)
	for _, key := range grantKeys {
		all[key.field] = &framework.FieldSchema{
			Type: framework.TypeString, Query: true,
			Description:  key.what + ". Default: any.",
			DisplayAttrs: &framework.DisplayAttributes{Name: key.name},
		}
	}
	all["lease_id"] = &framework.FieldSchema{
		Type: framework.TypeString, Query: true,
		Description:  "Id of a lease: the grants of its role and task, or exactly its own once Vault has told the id, see lease_id in the answer.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Lease ID"},
	}
	operations := func(what string) map[logical.Operation]framework.OperationHandler {
		return map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{Callback: b.listGrants, Summary: "List " + what + ".", ForwardPerformanceStandby: true},
			logical.ReadOperation: &framework.PathOperation{Callback: b.readGrants, Summary: "Read " + what + ", and the lease prefixes that end them.", ForwardPerformanceStandby: true},
		}
	}
	paths := []*framework.Path{{
		Pattern:         "grants/?$",
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "grants"},
		Fields:          all,
		Operations:      operations("grants"),
		HelpSynopsis:    "The ledger: every credential, who it is for and how it ended.",
		HelpDescription: strings.TrimSpace(grantsHelp),
	}}
	for _, key := range grantKeys {
		fields := maps.Clone(filters)
		fields[key.field] = &framework.FieldSchema{
			Type:         framework.TypeString,
			Description:  key.what + ".",
			DisplayAttrs: &framework.DisplayAttributes{Name: key.name},
		}
		paths = append(paths, &framework.Path{
			Pattern:         fmt.Sprintf("grants/by-%s/(?P<%s>[^/]+)/?$", key.path, key.field),
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "grants-by-" + key.path},
			Fields:          fields,
			Operations:      operations("the grants of one " + key.path),
			HelpSynopsis:    fmt.Sprintf("The grants of one %s.", key.path),
			HelpDescription: strings.TrimSpace(grantsHelp),
		})
	}
	return append(paths, &framework.Path{
		Pattern:      "grants/(?P<id>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "grant"},
		Fields: map[string]*framework.FieldSchema{
			"id": {
				Type:         framework.TypeString,
				Description:  "Id of the grant, as creds/ answered it.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Grant ID"},
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{Callback: b.readGrant, Summary: "Read one grant.", ForwardPerformanceStandby: true},
		},
		HelpSynopsis:    "One grant: who, for what, from when to when, and how it ended.",
		HelpDescription: strings.TrimSpace(grantsHelp),
	})
}

func grantFilters() map[string]*framework.FieldSchema {
	text := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Query: true, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	return map[string]*framework.FieldSchema{
		"state": text("State", "active, ending, expired, revoked, lost, failed or all. Default: all with since or until, and in the list of one task; otherwise those that live, or are still to be ended."),
		"since": text("Since", "Grants that could be used at this time or later: 2026-11-24T12:30:00Z, or a duration back from now, such as 2h."),
		"until": text("Until", "Grants that were issued at this time or before: 2026-11-24T12:30:00Z, or a duration back from now, such as 2h."),
		"after": text("After", "Id of the grant that the answer is to go on after: the last answer's next."),
		"limit": {
			Type: framework.TypeInt, Query: true, Default: defaultLimit,
			Description:  fmt.Sprintf("How many grants the answer may have, up to %d.", maxLimit),
			DisplayAttrs: &framework.DisplayAttributes{Name: "Limit"},
		},
	}
}

// findGrants waits for the ledger, and finds what the request asks for.
func (b *backend) findGrants(ctx context.Context, req *logical.Request, data *framework.FieldData) (grantSelection, grantPage, error) {
	want, err := b.selectionIn(req.MountPoint, data)
	if err != nil {
		return want, grantPage{}, err
	}
	if want.state == "" && req.Operation == logical.ListOperation && want.query.Task != "" {
		// Who lists what a task has had wants to know what came of it, and "vault list"
		// can't say so.
		want.state = stateAll
	}
	if err := b.awaitLedger(ctx, req.Storage); err != nil {
		return want, grantPage{}, err
	}
	page, err := b.selectGrants(ctx, req.Storage, want)
	return want, page, err
}

// awaitLedger waits until the ledger is in memory, see lifecycle.Manager.Await.
func (b *backend) awaitLedger(ctx context.Context, storage logical.Storage) error {
	b.grants.Start(storage, b.writes)
	return b.grants.Await(ctx)
}

func (b *backend) listGrants(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	want, page, err := b.findGrants(ctx, req, data)
	if err != nil {
		return refuse(err)
	}
	now := b.grants.Now()
	var keys []string
	info := map[string]any{}
	for _, grant := range page.grants {
		keys = append(keys, grant.ID)
		info[grant.ID] = map[string]any{
			"state": grant.Status(now), "target": grant.Target, "role": grant.Role, "task": grant.Task,
			"action": grant.Action, "resource": grant.Resource, "entity_id": grant.EntityID, "display_name": grant.DisplayName,
			"issued_at": stamp(grant.IssuedAt), "expires_at": stamp(grant.ExpiresAt),
		}
	}
	response := logical.ListResponseWithInfo(keys, info)
	if page.next != "" {
		response.Data["next"] = page.next
	}
	response.Warnings = page.warnings(want)
	b.addUnreadable(req, response)
	return response, nil
}

func (b *backend) readGrants(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	want, page, err := b.findGrants(ctx, req, data)
	if err != nil {
		return refuse(err)
	}
	now := b.grants.Now()
	described := make([]map[string]any, 0, len(page.grants))
	for _, grant := range page.grants {
		described = append(described, describe(req, grant, now))
	}
	prefixes := prefixesOf(b.grants.Index, want.query, now)
	for i, prefix := range prefixes.exact {
		prefixes.exact[i] = req.MountPoint + prefix
	}
	response := &logical.Response{
		Data: map[string]any{
			"grants":         described,
			"next":           page.next,
			"live":           prefixes.live,
			"lease_prefixes": prefixes.exact,
			"not_covered":    prefixes.left,
		},
		Warnings: page.warnings(want),
	}
	b.addUnreadable(req, response)
	return response, nil
}

func (b *backend) readGrant(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	id := data.Get("id").(string)
	if !ledger.IsID(id) {
		return refuse(invalid.Field("id", id, "not the id of a grant", "give the grant_id that creds/ answered, or list grants/"))
	}
	grant, known := b.grants.Index.Get(id)
	if !known {
		grant, known = b.grants.Held(id)
	}
	if !known {
		var err error
		if grant, err = ledger.Find(ctx, req.Storage, id); errors.Is(err, ledger.ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return refuse(err)
		}
	}
	answer := describe(req, grant, b.grants.Now())
	if grant.EntityID != "" {
		// What the entity is called now; that it is gone is no failure.
		if entity, err := b.System().EntityInfo(grant.EntityID); err == nil && entity != nil {
			answer["entity_name"] = entity.Name
		}
	}
	response := &logical.Response{Data: answer}
	warning, err := b.describeGranted(ctx, req.Storage, grant, answer)
	if err != nil {
		return refuse(err)
	}
	if warning != "" {
		response.AddWarning(warning)
	}
	return response, nil
}

// describe is a grant for people. It has no secret, since the ledger has none.
func describe(req *logical.Request, grant ledger.Grant, now time.Time) map[string]any {
	return map[string]any{
		"id":             grant.ID,
		"state":          grant.Status(now),
		"ending":         grant.Ending,
		"target":         grant.Target,
		"role":           grant.Role,
		"task":           grant.Task,
		"action":         grant.Action,
		"resource":       grant.Resource,
		"companions":     append([]string{}, grant.Companions...),
		"conditions":     json.RawMessage(orEmpty(grant.Conditions)),
		"source_ip":      grant.SourceIP,
		"entity_id":      grant.EntityID,
		"display_name":   grant.DisplayName,
		"token_accessor": grant.Accessor,
		"approval":       grant.Approval,
		"role_version":   grant.RoleVersion,
		"policy_sha256":  grant.PolicySHA256,
		"options":        json.RawMessage(orEmpty(grant.Options)),
		"parameters":     json.RawMessage(orEmpty(grant.Filled)),
		"issued_at":      stamp(grant.IssuedAt),
		"expires_at":     stamp(grant.ExpiresAt),
		"ended_at":       stamp(grant.EndedAt),
		"ended_by":       grant.EndedBy,
		"end_reason":     grant.EndReason,
		"unconfirmed":    grant.Unconfirmed,
		"lease_id":       grant.LeaseID,
		"untidy":         grant.State == ledger.Dead,
		"at_end":         grant.AtEnd,
		"handle":         grant.Handle,
		"lease_prefix":   leasePrefixOf(req.MountPoint, grant),
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

const grantsHelp = `
The ledger has every credential that was minted: who read it, for which task,
what it may do exactly, from when to when, how it ended, and the handle to find
it by in the target's own log. It never has a secret. "at_end" is what a target
that can tell knew of the credential right before it was ended. "unconfirmed" says
why a target could not confirm that the credential is dead; such a grant is never
called revoked.

One grant also has the policy that it was minted with, its expiry and the reader's
address left out, and the role as it was then. Both stay after the role has changed
or gone. "policy_sha256" is the policy's hash, which the request shows that was approved.

A list or a read answers with the grants that live or are still to be ended;
"since", "until" and "state" reach what has ended, as long as tidy-config keeps
it, and the list of one task has all that it had. Grants come newest first, by
their ids, which begin with their latest expiry; an answer that has no room for all
says where to go on: after=<next>.
HTTP's LIST, and GET with list=true, take these; "vault list" sends none, so a read of the
same path takes them too.

A read also says which lease prefixes end the live grants that were asked for,
and no others: "vault lease revoke -sync -prefix <lease prefix>" for each.
"not_covered" counts those that no prefix ends alone.
`
