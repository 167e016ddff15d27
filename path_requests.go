package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

func (b *backend) pathRequests() []*framework.Path {
	text := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	id := text("Request ID", "Id of the request, as requests answered it.")
	asked := mintFields()
	asked["task"] = taskField()
	asked["reason"] = text("Reason", "Why the credential is needed: one line, which who approves reads.")
	asked["ttl"].Description = "The longest that a credential of this request may live, up to the role's max_ttl. Default: the role's ttl."
	pages := map[string]*framework.FieldSchema{
		"after": text("After", "Id of the request that the answer is to go on after: the last answer's next."),
		"limit": {
			Type: framework.TypeInt, Query: true, Default: defaultLimit,
			Description:  fmt.Sprintf("How many requests the answer may have, up to %d.", maxLimit),
			DisplayAttrs: &framework.DisplayAttributes{Name: "Limit"},
		},
	}
	pages["after"].Query = true
	list := func(callback framework.OperationFunc, summary string) map[logical.Operation]framework.OperationHandler {
		return map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{Callback: callback, Summary: summary, ForwardPerformanceStandby: true},
		}
	}
	write := func(callback framework.OperationFunc, summary string) map[logical.Operation]framework.OperationHandler {
		return map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{Callback: callback, Summary: summary, ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
		}
	}
	path := func(pattern, verb, suffix, synopsis string, fields map[string]*framework.FieldSchema, operations map[logical.Operation]framework.OperationHandler) *framework.Path {
		return &framework.Path{
			Pattern:         pattern,
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: verb, OperationSuffix: suffix},
			Fields:          fields,
			Operations:      operations,
			HelpSynopsis:    synopsis,
			HelpDescription: strings.TrimSpace(requestsHelp),
		}
	}
	opening := path("requests", "open", "request", "Ask for the approvals that a role needs.", asked, write(b.openRequestFor, "Ask for the approvals that a role needs."))
	opening.TakesArbitraryInput = true // the role's parameters
	return []*framework.Path{
		opening,
		path("requests/", "list", "requests", "The requests that wait or stand.", nil, list(b.listOpenRequests, "List the requests that wait for approvals, or have them and can be used.")),
		path("requests/past/?$", "list", "past-requests", "The requests that are finished.", pages, list(b.listPastRequests, "List the requests that were used, denied or cancelled, or have lapsed.")),
		path("requests/(?P<id>[^/]+)", "read", "request", "One request: who, for what, why, and who decided.", map[string]*framework.FieldSchema{"id": id},
			map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: b.readRequest, Summary: "Read one request.", ForwardPerformanceStandby: true},
			}),
		path("requests/(?P<id>[^/]+)/approve", "approve", "request", "Approve a request.", map[string]*framework.FieldSchema{"id": id}, write(b.approveRequest, "Approve a request of somebody else.")),
		path("requests/(?P<id>[^/]+)/deny", "deny", "request", "Deny a request.", map[string]*framework.FieldSchema{
			"id": id, "reason": text("Reason", "Why it is denied. Default: none is given."),
		}, write(b.denyRequest, "Deny a request of somebody else, also after it has been approved.")),
		path("requests/(?P<id>[^/]+)/cancel", "cancel", "request", "Take a request back.", map[string]*framework.FieldSchema{"id": id}, write(b.cancelRequest, "Take a request of one's own back.")),
	}
}

// openRequestFor opens a request for what a read of creds/ with the same parameters
// would mint.
func (b *backend) openRequestFor(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	order, stored, err := b.orderFor(ctx, req, data, parametersOf(req, data))
	if err != nil {
		return refuse(err)
	}
	requested := time.Duration(data.Get("ttl").(int)) * time.Second
	var warnings []string
	if order.TTL, warnings, err = stored.lifetime(requested, b.System()); err != nil {
		return refuse(err)
	}
	// What is closed now may be open when it is approved.
	admitted := order
	_, err = b.admit(req.Storage, stored.rules, b.caller(callerAddress(req), req.EntityID), &admitted)
	if denied := new(invalid.Denied); errors.As(err, &denied) {
		warnings = append(warnings, foresee(err))
	} else if err != nil {
		return refuse(err)
	}
	policy, expiresAt, err := order.Compile(b.grants.Now())
	if err != nil {
		return refuse(err)
	}
	if err := b.checkEntity(req.EntityID); err != nil {
		return refuse(err)
	}
	parameters := parametersOf(req, data)
	binding, err := bindingOf(order, stored, parameters)
	if err != nil {
		return refuse(err)
	}
	opened, err := b.openRequest(ctx, req.Storage, approval.Request{
		Binding: binding,
		Shown:   shownOf(order, parameters, policy, expiresAt),
		Reason:  data.Get("reason").(string),
		TTL:     order.TTL,
	}, stored.Approval, approval.Actor{Entity: req.EntityID, DisplayName: req.DisplayName})
	if err != nil {
		return refuse(err)
	}
	b.Logger().Info("approval requested", "request_id", opened.ID, "role", order.Role, "task", order.Task, "entity_id", req.EntityID)
	return &logical.Response{Data: describeRequest(opened, opened.State), Warnings: warnings}, nil
}

// decide has a request changed by the caller, and answers with what it becomes.
func (b *backend) decide(ctx context.Context, req *logical.Request, data *framework.FieldData, what string, change func(of approval.Request, by approval.Actor, now time.Time, version string) (approval.Request, error)) (*logical.Response, error) {
	id := data.Get("id").(string)
	by := approval.Actor{Entity: req.EntityID, DisplayName: req.DisplayName}
	err := b.checkEntity(req.EntityID)
	if err != nil {
		return refuse(err)
	}
	if by.Groups, err = b.groupsOf(req.EntityID); err != nil {
		return refuse(err)
	}
	changed, err := b.changeRequest(ctx, req.Storage, id, func(of approval.Request, version string) (approval.Request, error) {
		return change(of, by, b.grants.Now(), version)
	})
	if errors.Is(err, errNoRequest) {
		return refuse(noRequest(id))
	}
	if err != nil {
		return refuse(err)
	}
	b.Logger().Info("request "+what, "request_id", id, "role", changed.Binding.Role, "task", changed.Binding.Task, "entity_id", req.EntityID, "state", changed.State)
	return &logical.Response{Data: describeRequest(changed, changed.State)}, nil
}

func noRequest(id string) error {
	return invalid.Field("id", id, "no such request exists", "give the id that requests answered, or list requests/")
}

func (b *backend) approveRequest(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return b.decide(ctx, req, data, "approved", approval.Request.Approve)
}

func (b *backend) denyRequest(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return b.decide(ctx, req, data, "denied", func(of approval.Request, by approval.Actor, now time.Time, version string) (approval.Request, error) {
		return of.Deny(by, data.Get("reason").(string), now, version)
	})
}

func (b *backend) cancelRequest(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return b.decide(ctx, req, data, "cancelled", approval.Request.Cancel)
}

func (b *backend) readRequest(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	id := data.Get("id").(string)
	if _, err := tagIn(id); err != nil {
		return refuse(noRequest(id))
	}
	found, err := b.findRequest(ctx, req.Storage, id)
	if errors.Is(err, errNoRequest) {
		return nil, nil
	}
	if err != nil {
		return refuse(err)
	}
	version, err := b.roleVersion(ctx, req.Storage, found.Binding.Role)
	if err != nil {
		return refuse(err)
	}
	return &logical.Response{Data: describeRequest(found, found.Status(b.grants.Now(), version))}, nil
}

func (b *backend) listOpenRequests(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	open, _, unreadable, err := b.unfinishedRequests(ctx, req.Storage)
	if err != nil {
		return refuse(err)
	}
	return listRequests(open, unreadable), nil
}

func (b *backend) listPastRequests(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	after, limit := data.Get("after").(string), data.Get("limit").(int)
	if after != "" && !requestID.MatchString(after) {
		return refuse(invalid.Field("after", after, "not the id of a request", "give the last answer's next"))
	}
	if limit < 1 || limit > maxLimit {
		return refuse(invalid.Field("limit", fmt.Sprint(limit), fmt.Sprintf("not between 1 and %d", maxLimit), "ask for fewer, and go on after the last"))
	}
	page, next, unreadable, err := b.pastRequests(ctx, req.Storage, after, limit)
	if err != nil {
		return refuse(err)
	}
	response := listRequests(page, unreadable)
	if next != "" {
		response.Data["next"] = next
		response.AddWarning("there are more requests: go on with after=" + next)
	}
	return response, nil
}

// listRequests lists requests in the state that is stored with them.
func listRequests(listed []approval.Request, unreadable []string) *logical.Response {
	var keys []string
	info := map[string]any{}
	for _, one := range listed {
		keys = append(keys, one.ID)
		info[one.ID] = map[string]any{
			"state": one.State, "role": one.Binding.Role, "task": one.Binding.Task, "action": one.Shown.Action, "resource": one.Shown.Resource,
			"reason": one.Reason, "entity_id": one.Binding.Entity, "display_name": one.DisplayName,
			"approvals": fmt.Sprintf("%d of %d", len(one.Approvals), one.Rule.Needed), "expires_at": stamp(one.ExpiresAt),
		}
	}
	response := logical.ListResponseWithInfo(keys, info)
	if len(unreadable) > 0 {
		response.AddWarning("records of requests that can't be read, and whose requests admit nothing: " + invalid.OneOf(unreadable))
	}
	return response
}

// describeRequest is a request for people, in a state.
func describeRequest(one approval.Request, state approval.State) map[string]any {
	answer := map[string]any{
		"id":                 one.ID,
		"state":              state,
		"role":               one.Binding.Role,
		"task":               one.Binding.Task,
		"target":             one.Binding.Target,
		"action":             one.Shown.Action,
		"resource":           one.Shown.Resource,
		"companions":         append([]string{}, one.Shown.Companions...),
		"conditions":         json.RawMessage(orEmpty(one.Shown.Conditions)),
		"bound_source_ip":    one.Shown.SourceIP,
		"parameters":         orNone(one.Shown.Parameters),
		"options":            orNothing(one.Shown.Options),
		"policy":             one.Shown.Policy,
		"policy_sha256":      one.Shown.PolicySHA256,
		"ttl":                int64(one.TTL / time.Second),
		"reason":             one.Reason,
		"entity_id":          one.Binding.Entity,
		"display_name":       one.DisplayName,
		"opened_at":          stamp(one.OpenedAt),
		"expires_at":         stamp(one.ExpiresAt),
		"finished_at":        stamp(one.FinishedAt),
		"approvals_needed":   one.Rule.Needed,
		"approver_group_ids": append([]string{}, one.Rule.Groups...),
		"approvals":          describeDecisions(one.Approvals...),
		"uses_allowed":       one.Rule.Mints(),
	}
	uses := make([]map[string]any, 0, len(one.Uses))
	for _, use := range one.Uses {
		uses = append(uses, map[string]any{"grant_id": use.Grant, "at": stamp(use.At)})
	}
	answer["uses"] = uses
	if one.Closed != nil {
		answer["closed_by"] = describeDecisions(*one.Closed)[0]
	}
	return answer
}

func orNone(parameters map[string]string) map[string]string {
	if parameters == nil {
		return map[string]string{}
	}
	return maps.Clone(parameters)
}

func orNothing(options map[string]any) map[string]any {
	if options == nil {
		return map[string]any{}
	}
	return maps.Clone(options)
}

func describeDecisions(made ...approval.Decision) []map[string]any {
	described := make([]map[string]any, 0, len(made))
	for _, one := range made {
		entry := map[string]any{"entity_id": one.Entity, "display_name": one.DisplayName, "at": stamp(one.At)}
		if one.Reason != "" {
			entry["reason"] = one.Reason
		}
		described = append(described, entry)
	}
	return slices.Clip(described)
}

const requestsHelp = `
A role with "approvals" mints for a task only once so many others have approved
that. Who wants the credential writes "requests" with the role, the task, a reason
and the role's parameters; others read "requests/<id>" and write
"requests/<id>/approve" or "requests/<id>/deny"; then the one who asked, and nobody
else, reads "creds/<role>/<task>" with the same parameters.

An approval is for one role as it was then, one task, one scope to the letter and
one entity. It is used up by the first credential (or approval_uses of them), also
where minting that failed; it lapses after approval_ttl, and is void once the role
is written anew or deleted. Who approves has to be another entity than the one who
asks, and in one of the role's approver_group_ids where it has any.

"requests/" lists what waits or stands, "requests/past" what is finished, as long
as tidy-config keeps it. Who asked may write "requests/<id>/cancel"; who may approve
may also deny what has been approved.
`
