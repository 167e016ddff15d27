package precision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ending"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// endAnswer is how long the answer waits for an end: a small one is done by then.
const endAnswer = 10 * time.Second

func (b *backend) pathEnd() []*framework.Path {
	fields := map[string]*framework.FieldSchema{
		"grant_id": {Type: framework.TypeString, Description: "Id of one grant.", DisplayAttrs: &framework.DisplayAttributes{Name: "Grant ID"}},
		"since":    {Type: framework.TypeString, Description: "Grants that were issued at this time or later: 2026-11-24T12:30:00Z, or a duration back from now, such as 2h.", DisplayAttrs: &framework.DisplayAttributes{Name: "Since"}},
		"until":    {Type: framework.TypeString, Description: "Grants that were issued at this time or before: 2026-11-24T12:30:00Z, or a duration back from now, such as 2h.", DisplayAttrs: &framework.DisplayAttributes{Name: "Until"}},
		"all":      {Type: framework.TypeBool, Description: "End all grants of the mount. Only without any other filter.", DisplayAttrs: &framework.DisplayAttributes{Name: "All"}},
		"reason":   {Type: framework.TypeString, Required: true, Description: "Why they end. It stays in the ledger with each of them.", DisplayAttrs: &framework.DisplayAttributes{Name: "Reason"}},
		"dry_run":  {Type: framework.TypeBool, Description: "Only count what would end.", DisplayAttrs: &framework.DisplayAttributes{Name: "Dry run"}},
	}
	for _, key := range grantKeys {
		fields[key.field] = &framework.FieldSchema{Type: framework.TypeString, Description: key.what + ".", DisplayAttrs: &framework.DisplayAttributes{Name: key.name}}
	}
	return []*framework.Path{
		{
			Pattern:      "end",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "end", OperationSuffix: "grants"},
			Fields:       fields,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{Callback: b.end, Summary: "End the grants that a filter names, at their targets, now.", ForwardPerformanceStandby: true},
			},
			HelpSynopsis:    "End grants by entity, target, role, task, or when they were issued.",
			HelpDescription: strings.TrimSpace(endHelp),
		},
		{
			Pattern:      "end-status",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "end-status"},
			Fields: map[string]*framework.FieldSchema{
				"end_id": {Type: framework.TypeString, Query: true, Description: "Id of an end, as end answered it. Default: all that are remembered.", DisplayAttrs: &framework.DisplayAttributes{Name: "End ID"}},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: b.endStatus, Summary: "Say how far the ends are that were requested.", ForwardPerformanceStandby: true},
			},
			HelpSynopsis:    "How far the ends are that were requested.",
			HelpDescription: strings.TrimSpace(endHelp),
		},
	}
}

func (b *backend) end(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	filter, err := b.endFilter(data)
	if err != nil {
		return refuse(err)
	}
	reason, err := reasonIn(data)
	if err != nil {
		return refuse(err)
	}
	if err := b.awaitLedger(ctx, req.Storage); err != nil {
		return refuse(err)
	}
	if err := b.checkFilterNames(ctx, req.Storage, filter); err != nil {
		return refuse(err)
	}
	if data.Get("dry_run").(bool) {
		counts := ending.Count(b.ends.Matching(filter, time.Time{}))
		response := &logical.Response{Data: map[string]any{"matched": counts.Matched, "targets": counts.Targets, "dry_run": true}}
		warnUnmatched(response, counts.Matched)
		b.addUnreadable(req, response)
		return response, nil
	}
	id, done, err := b.ends.Begin(ctx, req.Storage, filter, requester(req), reason)
	if err != nil {
		return refuse(err)
	}
	timer := time.NewTimer(endAnswer)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done(): // it goes on
	}
	end, err := b.ends.Find(ctx, req.Storage, id)
	if err != nil {
		return nil, err
	}
	response := &logical.Response{Data: describeEnd(end)}
	b.addUnreadable(req, response)
	if end.Unrecorded {
		response.AddWarning("storage does not take writes: what was ended is dead at its target, and is recorded in memory only until storage takes it. A restart, a seal or a step-down before that breaks this end off")
	}
	if !end.DoneAt.IsZero() {
		warnUnmatched(response, end.Matched)
	}
	switch {
	case end.DoneAt.IsZero():
		response.AddWarning("it goes on: read end-status end_id=" + id)
	case end.Failed > 0:
		response.AddWarning(fmt.Sprintf("%d grants could not be ended yet; the sweeper goes on with them, see tidy-status", end.Failed))
	}
	return response, nil
}

// endFilter reads which grants are to end. One that names nothing is refused.
func (b *backend) endFilter(data *framework.FieldData) (ending.Filter, error) {
	var filter ending.Filter
	for name, value := range map[string]*string{"role": &filter.Role, "task": &filter.Task, "entity_id": &filter.EntityID, "target": &filter.Target} {
		text, given := data.GetOk(name)
		if !given {
			continue
		}
		// An empty one would mean any.
		if err := checkName(name, text.(string), maxTask); err != nil {
			return filter, err
		}
		*value = text.(string)
	}
	if id, given := data.GetOk("grant_id"); given {
		if !ledger.IsID(id.(string)) {
			return filter, invalid.Field("grant_id", id.(string), "not the id of a grant", "give the grant_id that creds/ answered, or list grants/")
		}
		filter.GrantID = id.(string)
	}
	for name, at := range map[string]*time.Time{"since": &filter.Since, "until": &filter.Until} {
		if text, given := data.GetOk(name); given && text.(string) == "" {
			return filter, invalid.Field(name, "", "empty", "leave it out, or give a time")
		}
		var err error
		if *at, err = b.momentIn(data, name); err != nil {
			return filter, err
		}
		if text, given := data.GetOk(name); given && at.IsZero() { // which would mean any
			return filter, invalid.Field(name, text.(string), "no time that a grant can have been issued at", "leave it out, or give a later time")
		}
	}
	if !filter.Since.IsZero() && !filter.Until.IsZero() && filter.Until.Before(filter.Since) {
		return filter, invalid.Field("until", data.Get("until").(string), "before since", "give a later time")
	}
	all := data.Get("all").(bool)
	switch {
	case filter == (ending.Filter{}) && !all:
		return filter, invalid.Hidden("filter", "no grants are named", "give entity_id, target, role, task, grant_id, since or until, or all=true for every grant of the mount")
	case filter != (ending.Filter{}) && all:
		return filter, invalid.Field("all", "true", "another filter is given as well, which would narrow it", "leave one of them out")
	}
	filter.All = all
	return filter, nil
}

// warnUnmatched says that a filter has named no grant, which a zero among other numbers
// does not.
func warnUnmatched(response *logical.Response, matched int) {
	if matched == 0 {
		response.AddWarning("matched=0: the filter names no grant that could still be used, so nothing was revoked")
	}
}

// checkFilterNames refuses a name that nothing has ever had: in an incident a misspelt
// one would read as success. An entity is not checked, since one that has never read a
// credential is a good answer to the question.
func (b *backend) checkFilterNames(ctx context.Context, storage logical.Storage, filter ending.Filter) error {
	for _, named := range []struct {
		field, value, prefix string
		query                ledger.Query
		name                 func(ledger.Grant) string
	}{
		{"role", filter.Role, rolePrefix, ledger.Query{Role: filter.Role}, func(grant ledger.Grant) string { return grant.Role }},
		{"target", filter.Target, configPrefix, ledger.Query{Target: filter.Target}, func(grant ledger.Grant) string { return grant.Target }},
		{"task", filter.Task, "", ledger.Query{Task: filter.Task}, func(grant ledger.Grant) string { return grant.Task }},
	} {
		if named.value == "" {
			continue
		}
		known, err := b.everNamed(ctx, storage, named.prefix+named.value, named.prefix != "", named.query)
		if err != nil || known {
			if err != nil {
				return err
			}
			continue
		}
		names := []string{}
		if named.prefix != "" {
			if names, err = storage.List(ctx, named.prefix); err != nil {
				return fmt.Errorf("listing %s: %w", named.prefix, err)
			}
		}
		for _, grant := range b.grants.Index.Open(ledger.Query{}, b.grants.Now()) {
			names = append(names, named.name(grant))
		}
		slices.Sort(names)
		remedy := "list grants/ for what there is"
		if near := nearest(named.value, slices.Compact(names)); len(near) > 0 {
			remedy = "did you mean " + invalid.OneOf(near) + "?"
		}
		return invalid.Field(named.field, named.value, "no grant has ever had this "+named.field+", and nothing was revoked", remedy)
	}
	return nil
}

// everNamed says whether something is stored under a key, or a grant that the ledger
// remembers has the name that the query asks for.
func (b *backend) everNamed(ctx context.Context, storage logical.Storage, key string, stored bool, query ledger.Query) (bool, error) {
	if stored {
		entry, err := storage.Get(ctx, key)
		if err != nil || entry != nil {
			return err == nil, err
		}
	}
	want := grantSelection{query: query, state: stateAll, limit: 1}
	for {
		page, err := b.selectGrants(ctx, storage, want)
		if err != nil || len(page.grants) > 0 || page.damaged > 0 || page.next == "" {
			return len(page.grants) > 0 || page.damaged > 0, err // what can't be read may have had the name
		}
		want.after = page.next
	}
}

// requester is who makes a request, for the record: what Vault calls him, and the id
// that stays his.
func requester(req *logical.Request) string {
	switch {
	case req.EntityID == "":
		return req.DisplayName
	case req.DisplayName == "":
		return req.EntityID
	default:
		return req.DisplayName + " (" + req.EntityID + ")"
	}
}

func (b *backend) endStatus(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	if err := b.awaitLedger(ctx, req.Storage); err != nil {
		return refuse(err)
	}
	if id := data.Get("end_id").(string); id != "" {
		if err := checkName("end_id", id, maxTask); err != nil {
			return refuse(err)
		}
		end, err := b.ends.Find(ctx, req.Storage, id)
		if errors.Is(err, ending.ErrNoEnd) {
			return nil, nil
		}
		if err != nil {
			return refuse(err)
		}
		return &logical.Response{Data: describeEnd(end)}, nil
	}
	all, unreadable, err := b.ends.Ends(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	described := make([]map[string]any, 0, len(all))
	for _, end := range all {
		described = append(described, describeEnd(end))
	}
	response := &logical.Response{Data: map[string]any{"ends": described}}
	if len(unreadable) > 0 {
		response.AddWarning("records of ends that can't be read, and that do not go on: " + invalid.OneOf(unreadable))
	}
	return response, nil
}

func describeEnd(end ending.End) map[string]any {
	filter := map[string]any{}
	for name, value := range map[string]string{
		"role": end.Filter.Role, "task": end.Filter.Task, "entity_id": end.Filter.EntityID, "target": end.Filter.Target, "grant_id": end.Filter.GrantID,
		"since": stamp(end.Filter.Since), "until": stamp(end.Filter.Until),
	} {
		if value != "" {
			filter[name] = value
		}
	}
	if end.Filter.All {
		filter["all"] = true
	}
	return map[string]any{
		"end_id": end.ID, "filter": filter, "requested_by": end.By, "reason": end.Reason, "requested_at": stamp(end.At),
		"recorded": !end.Unrecorded, "running": end.DoneAt.IsZero(), "done_at": stamp(end.DoneAt),
		"matched": end.Matched, "ended": end.Ended, "failed": end.Failed, "targets": end.Targets, "problems": append([]string{}, end.Problems...),
	}
}

const endHelp = `
Ends every live grant that all given filters name, at its target, at once:
"vault write <mount>/end entity_id=… reason=…". The sessions that hang on one base
role end with one commit. "since" and "until" are about when a grant was issued;
grants that are issued after the request are not meant: freeze first. "all=true"
ends all grants of the mount, and is the fast way to take it down.

A role, target or task that no grant has ever had is refused, so that a misspelt
name never reads as success.

The answer says how many grants were named, ended and failed. A large end goes on
behind the request, and after a restart; "end-status" follows it. What could not be
ended in several tries is left to the sweeper, which does not give up. The leases
lapse later, and find everything gone. The ledger says of each grant who ended it
and why.
`
