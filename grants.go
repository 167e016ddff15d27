package precision

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// How many grants an answer may have, and has where nothing else is said.
const (
	defaultLimit = 1000
	maxLimit     = 10_000
)

// maxPrefixes is how many lease prefixes an answer may have.
const maxPrefixes = 1000

// stateAll asks for grants in any state.
const stateAll ledger.State = "all"

// states are what can be asked for, and whether the finished ones have to be
// looked at for it.
var states = map[ledger.State]bool{
	ledger.Active: false, ledger.Ending: false, ledger.Expired: true, ledger.Revoked: true, ledger.Lost: true, ledger.Failed: true, stateAll: true,
}

// grantSelection is which grants a request asks for.
type grantSelection struct {
	query        ledger.Query
	state        ledger.State // empty for those that aren't finished
	since, until time.Time    // zero for any
	after        string
	limit        int
	lease        string // id of the lease; empty for any
}

// selectionIn reads what a request asks for. The error is an *invalid.Error.
func (b *backend) selectionIn(mount string, data *framework.FieldData) (grantSelection, error) {
	var want grantSelection
	for _, key := range grantKeys {
		if _, takes := data.Schema[key.field]; !takes {
			continue
		}
		value := data.Get(key.field).(string)
		if err := checkName(key.field, value, maxTask); err != nil && value != "" {
			return want, err
		}
		switch key.field {
		case "role":
			want.query.Role = value
		case "task":
			want.query.Task = value
		case "entity_id":
			want.query.EntityID = value
		case "target":
			want.query.Target = value
		}
	}
	if err := want.readLease(mount, data); err != nil {
		return want, err
	}
	var err error
	if want.since, err = b.momentIn(data, "since"); err != nil {
		return want, err
	}
	if want.until, err = b.momentIn(data, "until"); err != nil {
		return want, err
	}
	if !want.since.IsZero() && !want.until.IsZero() && want.until.Before(want.since) {
		return want, invalid.Field("until", data.Get("until").(string), "before since", "give a later time")
	}
	want.state = ledger.State(data.Get("state").(string))
	if _, known := states[want.state]; !known && want.state != "" {
		return want, invalid.Field("state", string(want.state), "not a state", "write active, ending, expired, revoked, lost, failed or all")
	}
	if want.state == "" && (!want.since.IsZero() || !want.until.IsZero() || want.lease != "") {
		want.state = stateAll
	}
	if want.after = data.Get("after").(string); want.after != "" && !ledger.IsID(want.after) {
		return want, invalid.Field("after", want.after, "not the id of a grant", "give the last answer's next")
	}
	if want.limit = data.Get("limit").(int); want.limit < 1 || want.limit > maxLimit {
		return want, invalid.Field("limit", fmt.Sprint(want.limit), fmt.Sprintf("not between 1 and %d", maxLimit), "ask for fewer, and go on after the last")
	}
	return want, nil
}

// readLease reads which lease is asked for. Its id names its role and task. Vault tells
// an engine the whole id only when it revokes a lease that was renewed before.
func (s *grantSelection) readLease(mount string, data *framework.FieldData) error {
	if _, takes := data.Schema["lease_id"]; !takes {
		return nil
	}
	id := data.Get("lease_id").(string)
	if id == "" {
		return nil
	}
	path, below := strings.CutPrefix(id, mount+"creds/")
	parts := strings.Split(path, "/") // role, task if there is one, and Vault's own part
	if !below || len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return invalid.Field("lease_id", id, "not a lease of this mount", "give the lease_id that creds/ answered, such as "+mount+"creds/<role>/<task>/<id>")
	}
	named := ledger.Query{Role: parts[0]}
	if len(parts) == 3 {
		named.Task = parts[1]
	}
	if (s.query.Role != "" && s.query.Role != named.Role) || (s.query.Task != "" && s.query.Task != named.Task) {
		return invalid.Field("lease_id", id, "the lease has another role or task than the one given", "leave role and task out")
	}
	s.lease, s.query.Role, s.query.Task = id, named.Role, named.Task
	return nil
}

// momentIn reads a point in time, or how long ago it is; zero where it is not given.
func (b *backend) momentIn(data *framework.FieldData, field string) (time.Time, error) {
	text := data.Get(field).(string)
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return b.grants.Now().Add(-ago), nil
	}
	return time.Time{}, invalid.Field(field, text, "not a point in time", "write it as 2026-11-24T12:30:00Z, or as a duration back from now, such as 2h")
}

// wanted says whether a grant is one that is asked for.
func (s grantSelection) wanted(grant ledger.Grant, now time.Time) bool {
	end := grant.ExpiresAt
	if !grant.EndedAt.IsZero() && grant.EndedAt.Before(end) {
		end = grant.EndedAt
	}
	switch {
	case s.query.Role != "" && grant.Role != s.query.Role,
		s.query.Task != "" && grant.Task != s.query.Task,
		s.query.EntityID != "" && grant.EntityID != s.query.EntityID,
		s.query.Target != "" && grant.Target != s.query.Target:
		return false
	case s.state == "" && grant.Finished(), s.state != "" && s.state != stateAll && grant.Status(now) != s.state:
		return false
	case !s.since.IsZero() && end.Before(s.since), !s.until.IsZero() && grant.IssuedAt.Truncate(time.Second).After(s.until):
		return false
	case s.lease != "" && (grant.Task != s.query.Task || (grant.LeaseID != "" && grant.LeaseID != s.lease)):
		return false
	default:
		return s.after == "" || grant.ID < s.after
	}
}

// leaseWarning says that a lease's own grant can't be told from the others of its role
// and task; it is empty where it can.
func (s grantSelection) leaseWarning(grants []ledger.Grant) string {
	unknown := 0
	for _, grant := range grants {
		if grant.LeaseID == "" {
			unknown++
		}
	}
	if s.lease == "" || unknown == 0 {
		return ""
	}
	return fmt.Sprintf("Vault has not told the lease ids of %d of these grants: they have the lease's role and task, and one of them may be its own", unknown)
}

// grantPage is an answer, or a part of it.
type grantPage struct {
	grants  []ledger.Grant
	next    string // where the rest begins after; empty if there is none
	damaged int
}

func (p grantPage) warnings(want grantSelection) []string {
	var warnings []string
	if warning := want.leaseWarning(p.grants); warning != "" {
		warnings = append(warnings, warning)
	}
	if p.next != "" {
		warnings = append(warnings, fmt.Sprintf("there may be more grants: go on with after=%s", p.next))
	}
	if p.damaged > 0 {
		warnings = append(warnings, fmt.Sprintf("records of the ledger's past that can't be read: %d", p.damaged))
	}
	return warnings
}

// shownUnreadable is how many records that can't be read an answer names.
const shownUnreadable = 20

// unreadableGrants describes the records that can't be read: no answer has their grants. Those that have expired by now
// are among them, since the clock may be ahead. The warning is empty where there are none.
func (b *backend) unreadableGrants(mount string) (described []map[string]any, warning string) {
	described = []map[string]any{}
	var latest time.Time
	var ids []string
	for _, one := range b.grants.Index.Unreadable() {
		problem := stored.ErrDamaged.Error()
		if one.Newer {
			problem = stored.ErrNewer.Error()
		}
		described = append(described, map[string]any{"id": one.ID, "expires_by": stamp(one.ExpiresBy), "problem": problem, "lease_prefix": mount + "creds"})
		if ids = append(ids, one.ID); one.ExpiresBy.After(latest) {
			latest = one.ExpiresBy
		}
	}
	if len(ids) == 0 {
		return described, ""
	}
	return described, fmt.Sprintf("records of grants that can't be read: %d (%s). These grants are not in this answer. Their credentials expire at their targets by %s; "+
		"their leases revoke them before: vault lease revoke -prefix %screds", len(ids), strings.Join(ids[:min(len(ids), shownUnreadable)], ", "), stamp(latest), mount)
}

// addUnreadable adds to an answer what it may miss.
func (b *backend) addUnreadable(req *logical.Request, response *logical.Response) {
	described, warning := b.unreadableGrants(req.MountPoint)
	response.Data["unreadable"] = described
	if warning != "" {
		response.AddWarning(warning)
	}
}

// selectGrants finds grants, those with the latest ends first. Those that aren't finished are in memory, and the others
// in storage. The former are looked for first, so that none is missed that ends meanwhile.
func (b *backend) selectGrants(ctx context.Context, storage logical.Storage, want grantSelection) (grantPage, error) {
	now := b.grants.Now()
	found := map[string]ledger.Grant{}
	for _, grant := range b.grants.Index.Open(want.query, now) {
		if want.wanted(grant, now) {
			found[grant.ID] = grant
		}
	}
	for _, grant := range b.grants.AllHeld() { // storage does not know yet
		if want.wanted(grant, now) {
			found[grant.ID] = grant
		}
	}
	var page grantPage
	if states[want.state] {
		finished, err := ledger.Finished(ctx, storage, ledger.Selection{
			Query: want.query, From: want.since, After: want.after, Limit: want.limit,
			Skip:   func(id string) bool { return b.grants.Index.Passes(id, want.query) },
			Wanted: func(grant ledger.Grant) bool { return want.wanted(grant, now) },
		})
		if err != nil {
			return page, err
		}
		page.next, page.damaged = finished.Next, finished.Damaged
		for _, grant := range finished.Grants {
			found[grant.ID] = grant
		}
	}
	for id, grant := range found {
		if page.next == "" || id >= page.next {
			page.grants = append(page.grants, grant)
		}
	}
	slices.SortFunc(page.grants, func(a, b ledger.Grant) int { return cmp.Compare(b.ID, a.ID) })
	if len(page.grants) > want.limit {
		page.grants = page.grants[:want.limit]
		page.next = page.grants[want.limit-1].ID
	}
	return page, nil
}

// leasePrefix is what the leases of a role and a task start with, below the mount.
func leasePrefix(role, task string) string {
	return strings.TrimSuffix("creds/"+role+"/"+task, "/")
}

// leasePrefixOf is what a grant's lease starts with, or empty where that is not
// known: a record that was lost has no role, and "creds/" would be the mount's.
func leasePrefixOf(mount string, grant ledger.Grant) string {
	if grant.Role == "" {
		return ""
	}
	return mount + leasePrefix(grant.Role, grant.Task)
}

// leasePrefixes end the live grants of a query, and no other live grant.
type leasePrefixes struct {
	live  int      // grants of the query
	exact []string // below the mount, at most maxPrefixes
	left  int      // grants that these don't name
}

// prefixesOf finds the lease prefixes of a query. A role's is only taken where
// all its live grants are meant, and where the query is about the role or its
// target; else, where a grant has no task. A task's is taken where all of its
// grants under the role are meant.
func prefixesOf(index *ledger.Index, query ledger.Query, now time.Time) leasePrefixes {
	type key struct{ role, task string }
	tasks := map[string]map[string]int{} // grants, by role and task
	found := leasePrefixes{exact: []string{}}
	for _, grant := range index.Live(query, now) {
		if tasks[grant.Role] == nil {
			tasks[grant.Role] = map[string]int{}
		}
		tasks[grant.Role][grant.Task]++
		found.live++
	}
	take := func(what key, grants int) {
		if len(found.exact) == maxPrefixes {
			found.left += grants
			return
		}
		found.exact = append(found.exact, leasePrefix(what.role, what.task))
	}
	ofRole := query.Task == "" && query.EntityID == ""
	for role, byTask := range tasks {
		all := 0
		for _, grants := range byTask {
			all += grants
		}
		if role == "" { // see leasePrefixOf
			found.left += all
			continue
		}
		_, without := byTask[""]
		if (ofRole || without) && all == index.Count(ledger.Query{Role: role}, now) {
			take(key{role, ""}, all)
			continue
		}
		for task, grants := range byTask {
			if task == "" || grants != index.Count(ledger.Query{Role: role, Task: task}, now) {
				found.left += grants
				continue
			}
			take(key{role, task}, grants)
		}
	}
	slices.Sort(found.exact)
	return found
}

// orEmpty is a JSON object that may be missing.
func orEmpty(object string) string { return cmp.Or(object, "{}") }
