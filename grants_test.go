package precision

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// as mints as a caller with an entity, and returns the lease and the grant's id.
func (e *engine) as(entity, path string) (*logical.Secret, string) {
	e.t.Helper()
	minted, err := e.HandleRequest(e.t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: "creds/" + path, EntityID: entity, DisplayName: "token-" + entity, ClientTokenAccessor: "accessor-" + entity, Storage: e.storage,
	})
	if err != nil || minted.IsError() {
		e.t.Fatalf("creds/%s: %v %v", path, minted, err)
	}
	return minted.Secret, minted.Data["grant_id"].(string)
}

// ask reads or lists grants, with the mount at precision/.
func (e *engine) ask(operation logical.Operation, path string, data map[string]any) map[string]any {
	e.t.Helper()
	response, err := e.HandleRequest(e.t.Context(), &logical.Request{Operation: operation, Path: path, Data: data, MountPoint: "precision/", Storage: e.storage})
	if err != nil || response == nil || response.IsError() {
		e.t.Fatalf("%s %s: %v %v", operation, path, response, err)
	}
	text, err := json.Marshal(response.Data)
	if err != nil {
		e.t.Fatal(err)
	}
	if strings.Contains(string(text), "fake secret") {
		e.t.Errorf("%s %s shows a secret: %s", operation, path, text)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		e.t.Fatal(err)
	}
	return answer
}

// idsIn are the ids of the grants that a read answers with.
func idsIn(answer map[string]any) []string {
	ids := []string{}
	for _, grant := range answer["grants"].([]any) {
		ids = append(ids, grant.(map[string]any)["id"].(string))
	}
	return ids
}

// newestFirst are ids in the order of answers.
func newestFirst(ids ...string) []string {
	slices.Sort(ids)
	slices.Reverse(ids)
	return slices.Concat([]string{}, ids)
}

func TestGrantsAreFound(t *testing.T) {
	e := newEngine(t)
	e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake"})
	e.do(logical.CreateOperation, "roles/drop", map[string]any{"target": "other", "action": "drop", "resource": "two", "ttl": "2h"})
	_, a := e.as("ann", "reset/T-1")
	lease, b := e.as("bob", "reset/T-1")
	_, c := e.as("ann", "reset/T-2")
	_, d := e.as("ann", "drop/T-2")
	_, f := e.as("", "drop")
	for path, want := range map[string][]string{
		"grants": {a, b, c, d, f}, "grants/by-role/reset": {a, b, c}, "grants/by-task/T-2": {c, d},
		"grants/by-entity/ann": {a, c, d}, "grants/by-target/other": {d, f}, "grants/by-role/none": {},
	} {
		if got := idsIn(e.ask(logical.ReadOperation, path, nil)); !slices.Equal(got, newestFirst(want...)) {
			t.Errorf("%s reads as %v, want %v", path, got, want)
		}
		listed := e.ask(logical.ListOperation, path+"/", nil)
		if got := fmt.Sprint(listed["keys"]); len(want) > 0 && got != fmt.Sprint(newestFirst(want...)) {
			t.Errorf("%s lists as %v, want %v", path, got, want)
		}
		if info, _ := listed["key_info"].(map[string]any); len(info) != len(want) {
			t.Errorf("%s has information on %d grants, want %d", path, len(info), len(want))
		}
	}
	for _, test := range []struct {
		filter map[string]any
		want   []string
	}{
		{map[string]any{"role": "reset", "entity_id": "ann"}, []string{a, c}},
		{map[string]any{"task": "T-2", "target": "db"}, []string{c}},
		{map[string]any{"role": "drop", "target": "db"}, nil},
		{map[string]any{"since": "1h"}, []string{a, b, c, d, f}},
		{map[string]any{"until": "1h"}, nil},
		{map[string]any{"since": time.Now().Add(time.Hour).Format(time.RFC3339)}, []string{d, f}},
		{map[string]any{"state": "active", "role": "drop"}, []string{d, f}},
		{map[string]any{"state": "failed"}, nil},
	} {
		if got := idsIn(e.ask(logical.ReadOperation, "grants", test.filter)); !slices.Equal(got, newestFirst(test.want...)) {
			t.Errorf("%v reads as %v, want %v", test.filter, got, test.want)
		}
	}
	if err := e.revokeLease(lease); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{"grants/by-task/T-1": {a, b}, "grants/by-entity/bob": nil, "grants/by-role/reset": {a, c}} {
		wanted := "<nil>"
		if len(want) > 0 {
			wanted = fmt.Sprint(newestFirst(want...))
		}
		if got := fmt.Sprint(e.ask(logical.ListOperation, path+"/", nil)["keys"]); got != wanted {
			t.Errorf("once a lease was revoked, %s lists as %v, want %v", path, got, want)
		}
	}
	for _, test := range []struct {
		path, state, since string
		want               []string
	}{
		{"grants/by-task/T-1", "", "", []string{a}},
		{"grants/by-task/T-1", "all", "", []string{a, b}},
		{"grants/by-task/T-1", "", "5m", []string{a, b}},
		{"grants/by-entity/bob", "revoked", "", []string{b}},
		{"grants/by-entity/ann", "revoked", "", nil},
		{"grants/by-target/db", "active", "5m", []string{a, c}},
	} {
		filter := map[string]any{"state": test.state, "since": test.since}
		maps.DeleteFunc(filter, func(_ string, value any) bool { return value == "" })
		if got := idsIn(e.ask(logical.ReadOperation, test.path, filter)); !slices.Equal(got, newestFirst(test.want...)) {
			t.Errorf("%s %v reads as %v, want %v", test.path, filter, got, test.want)
		}
	}
}

// The pages hold each grant once, finished or not, and say where to go on.
func TestGrantsArePaged(t *testing.T) {
	e := newEngine(t)
	var want []string
	for i := range 25 {
		lease, id := e.as("ann", fmt.Sprintf("reset/T-%d", i))
		want = append(want, id)
		if i%3 == 0 {
			if err := e.revokeLease(lease); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, operation := range []logical.Operation{logical.ReadOperation, logical.ListOperation} {
		for _, limit := range []any{1, "4", json.Number("25"), 10_000} {
			var got []string
			data := map[string]any{"state": "all", "limit": limit}
			for pages := 0; pages < 60; pages++ {
				answer := e.ask(operation, "grants", data)
				if operation == logical.ReadOperation {
					got = append(got, idsIn(answer)...)
				} else if keys, some := answer["keys"].([]any); some {
					for _, key := range keys {
						got = append(got, key.(string))
					}
				}
				next, _ := answer["next"].(string)
				if next == "" {
					break
				}
				data["after"] = next
			}
			if !slices.Equal(got, newestFirst(want...)) {
				t.Errorf("%s by %v: the pages hold %d grants, want %d", operation, limit, len(got), len(want))
			}
		}
	}
}

// A lease prefix that is given ends what was asked for, and nothing else.
func TestLeasePrefixesAreExact(t *testing.T) {
	e := newEngine(t)
	e.do(logical.CreateOperation, "roles/drop", map[string]any{"target": "db", "action": "drop", "resource": "two"})
	for _, grant := range [][2]string{
		{"ann", "reset/T-1"}, {"bob", "reset/T-1"}, {"ann", "reset/T-2"}, {"ann", "drop/T-2"}, {"ann", "drop"}, {"bob", "reset"}, {"eve", "reset/T-3"},
	} {
		e.as(grant[0], grant[1])
	}
	for path, want := range map[string]string{
		"grants":                        "7 [precision/creds/drop precision/creds/reset] 0",
		"grants/by-role/reset":          "5 [precision/creds/reset] 0",
		"grants/by-task/T-1":            "2 [precision/creds/reset/T-1] 0",
		"grants/by-task/T-2":            "2 [precision/creds/drop/T-2 precision/creds/reset/T-2] 0",
		"grants/by-target/db":           "7 [precision/creds/drop precision/creds/reset] 0",
		"grants/by-entity/ann":          "4 [precision/creds/drop precision/creds/reset/T-2] 1", // T-1 is bob's, too
		"grants/by-entity/bob":          "2 [] 2",
		"grants/by-entity/eve":          "1 [precision/creds/reset/T-3] 0", // and not the whole role
		"grants/by-entity/nobody":       "0 [] 0",
		"grants?role=reset&task=T-1":    "2 [precision/creds/reset/T-1] 0",
		"grants?role=drop&target=other": "0 [] 0",
	} {
		path, query, _ := strings.Cut(path, "?")
		data := map[string]any{}
		for pair := range strings.SplitSeq(query, "&") {
			if name, value, some := strings.Cut(pair, "="); some {
				data[name] = value
			}
		}
		answer := e.ask(logical.ReadOperation, path, data)
		if got := fmt.Sprint(answer["live"], answer["lease_prefixes"], answer["not_covered"]); got != want {
			t.Errorf("%s %v: %s, want %s", path, data, got, want)
		}
	}
}

// What of a grant only its lease or its target knew has no role: no prefix is
// given for it, least of all the whole mount's.
func TestAGrantWithoutARoleHasNoLeasePrefix(t *testing.T) {
	now := time.Now()
	end := now.Add(time.Hour)
	lost := ledger.Grant{ID: ledger.NewID(end), State: ledger.Ending, Target: "db", ExpiresAt: end}
	index := ledger.NewIndex()
	index.Update(lost, now)
	for _, query := range []ledger.Query{{}, {Target: "db"}} {
		if got := prefixesOf(index, query, now); got.live != 1 || len(got.exact) > 0 || got.left != 1 {
			t.Errorf("%+v: got %+v, want one grant that no prefix names", query, got)
		}
	}
	if got := describe(&logical.Request{MountPoint: "precision/"}, lost, now)["lease_prefix"]; got != "" {
		t.Errorf("its lease prefix is %q", got)
	}
}

// One grant says all that is known of it, from memory, from its record, and from
// another process.
func TestOneGrant(t *testing.T) {
	e := newEngine(t)
	lease, id := e.as("ann", "reset/T-1")
	wanted := map[string]any{
		"id": id, "state": "active", "target": "db", "role": "reset", "task": "T-1", "action": "reset", "resource": "one",
		"entity_id": "ann", "display_name": "token-ann", "token_accessor": "accessor-ann", "lease_prefix": "precision/creds/reset/T-1",
		"ending": "", "ended_at": "", "source_ip": "", "companions": []any{}, "conditions": map[string]any{}, "handle": map[string]any{"fake_grant": id},
	}
	check := func(when string) map[string]any {
		t.Helper()
		answer := e.ask(logical.ReadOperation, "grants/"+id, nil)
		for field, want := range wanted {
			if got := answer[field]; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %s is %v, want %v", when, field, got, want)
			}
		}
		for _, field := range []string{"issued_at", "expires_at"} {
			if _, err := time.Parse(time.RFC3339, answer[field].(string)); err != nil {
				t.Errorf("%s: %s: %v", when, field, err)
			}
		}
		return answer
	}
	check("live")
	first := e.backend
	e.backend = e.open(e.System())
	check("from its record")
	e.backend = first
	if err := e.revokeLease(lease); err != nil {
		t.Fatal(err)
	}
	wanted["state"], wanted["ending"] = "revoked", "lease revoked"
	delete(wanted, "ended_at")
	if answer := check("revoked"); answer["ended_at"] == "" {
		t.Error("the grant does not say when it ended")
	}
	if response, err := e.try(logical.ReadOperation, "grants/"+ledger.NewID(time.Now()), nil); response != nil || err != nil {
		t.Errorf("a grant that does not exist reads as %v, %v", response, err)
	}
}

func TestBadGrantQueries(t *testing.T) {
	e := newEngine(t)
	for _, test := range []struct {
		path, field string
		value       any
		says        []string
	}{
		{"grants", "rolle", "x", []string{"rolle", "entity_id", "role"}},
		{"grants", "role", "a b", []string{"role", "a b", "letters"}},
		{"grants", "state", "dead", []string{"state", "dead", "revoked"}},
		{"grants", "since", "yesterday", []string{"since", "yesterday", "2026-11-24T12:30:00Z"}},
		{"grants", "until", "-2h", []string{"until", "-2h", "duration"}},
		{"grants", "after", "x", []string{"after", `"x"`, "next"}},
		{"grants", "limit", "0", []string{"limit", `"0"`, "10000"}},
		{"grants", "limit", "10001", []string{"limit", "10001"}},
		{"grants", "limit", "1e3", []string{"limit", "1e3", "digits"}},
		{"grants", "limit", []string{"1", "2"}, []string{"limit", "a number", "a list"}},
		{"grants/by-role/a..b", "", nil, []string{"role", "a..b", "letters"}},
		{"grants/by-task/" + strings.Repeat("x", 200), "", nil, []string{"task", "128"}},
		{"grants/by-task/x", "task", "y", []string{"task", "part of the path"}},
		{"grants/by-task/x", "role", "y", []string{"role", "no such field"}},
		{"grants/x", "", nil, []string{"id", `"x"`, "grant_id"}},
		{"grants/by-role", "", nil, []string{"id", "by-role"}},
	} {
		data := map[string]any{}
		if test.field != "" {
			data[test.field] = test.value
		}
		response, err := e.try(logical.ReadOperation, test.path, data)
		if err != nil || response == nil || !response.IsError() {
			t.Errorf("%s %v: not refused: %v %v", test.path, data, response, err)
			continue
		}
		for _, part := range test.says {
			if text := response.Error().Error(); !strings.Contains(text, part) {
				t.Errorf("%s %v: %q does not say %q", test.path, data, text, part)
			}
		}
	}
	if response, err := e.try(logical.ReadOperation, "grants", map[string]any{"since": "1h", "until": "2h"}); err != nil || !response.IsError() {
		t.Errorf("a span that ends before it begins is not refused: %v %v", response, err)
	}
}

// A standby asks the node that knows.
func TestGrantsOnAStandby(t *testing.T) {
	e := newEngine(t)
	e.backend = e.open(&logical.StaticSystemView{ReplicationStateVal: consts.ReplicationPerformanceStandby})
	e.initialize()
	for path, operation := range map[string]logical.Operation{
		"grants": logical.ReadOperation, "grants/": logical.ListOperation, "grants/by-role/reset": logical.ReadOperation,
		"tidy": logical.UpdateOperation, "tidy-status": logical.ReadOperation,
	} {
		for !e.grants.Ready() { // until it knows that it is one
			if _, err := e.try(operation, path, nil); err == logical.ErrReadOnly { //nolint:errorlint // Vault compares it so
				break
			} else if err == nil || t.Context().Err() != nil {
				t.Fatalf("%s %s on a standby: %v", operation, path, err)
			}
		}
		properties := e.Route(path).Operations[operation].Properties()
		if !properties.ForwardPerformanceStandby {
			t.Errorf("%s %s is not forwarded", operation, path)
		}
	}
}

// While the ledger is not in memory, whoever asks for it waits, and is then told
// to come again.
func TestGrantsWaitForTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		_, id := e.as("ann", "reset/T-1")
		e.backend = e.open(&logical.StaticSystemView{}) // which does not say what this node may do
		defer e.Cleanup(context.Background())
		for path, operation := range map[string]logical.Operation{
			"grants": logical.ReadOperation, "grants/": logical.ListOperation, "tidy": logical.UpdateOperation, "tidy-status": logical.ReadOperation,
		} {
			_, err := e.try(operation, path, nil)
			if coded, ok := err.(logical.HTTPCodedError); !ok || coded.Code() != http.StatusServiceUnavailable { //nolint:errorlint // Vault looks at it so
				t.Errorf("%s %s: got %v, want status 503", operation, path, err)
			}
		}
		if got := e.ask(logical.ReadOperation, "grants/"+id, nil)["role"]; got != "reset" {
			t.Errorf("one grant has role %v, want reset", got)
		}
	})
}

// A lease's id finds the grants of its role and task, and its own grant alone once Vault
// has told it.
func TestGrantsAreFoundByLease(t *testing.T) {
	e := newEngine(t)
	first, firstID := e.as("ann", "reset/T-1")
	_, secondID := e.as("ann", "reset/T-1")
	_, _ = e.as("ann", "reset/T-2")
	const lease = "precision/creds/reset/T-1/43sqbGdpcnzc3tYSC1k7cvu0"
	find := func() (ids []string, warnings []string) {
		t.Helper()
		answer := e.ask(logical.ReadOperation, "grants/", map[string]any{"lease_id": lease, "limit": 10})
		response, err := e.by("", logical.ReadOperation, "grants/", map[string]any{"lease_id": lease})
		if err != nil {
			t.Fatal(err)
		}
		return idsIn(answer), response.Warnings
	}
	ids, warnings := find()
	if want := newestFirst(firstID, secondID); !slices.Equal(ids, want) || len(warnings) != 1 {
		t.Errorf("found %v with %q, want %v and a warning", ids, warnings, want)
	}
	first.LeaseID = lease // as Vault tells it when the lease has been renewed
	if err := e.revokeLease(first); err != nil {
		t.Fatal(err)
	}
	if record := e.ask(logical.ReadOperation, "grants/"+firstID, nil); record["lease_id"] != lease {
		t.Errorf("the record has lease id %v", record["lease_id"])
	}
	if ids, _ = find(); !slices.Contains(ids, firstID) {
		t.Errorf("found %v, want %s among them", ids, firstID)
	}
	other := e.ask(logical.ReadOperation, "grants/", map[string]any{"lease_id": lease + "x"})
	if slices.Contains(idsIn(other), firstID) {
		t.Error("another lease's id finds a grant whose lease is known")
	}
	for _, bad := range []string{"x", "elsewhere/creds/reset/T-1/x", "precision/creds/reset", "precision/creds/reset//x", "precision/creds/a/b/c/d"} {
		if response, err := e.by("", logical.ReadOperation, "grants/", map[string]any{"lease_id": bad}); err != nil || !response.IsError() {
			t.Errorf("lease_id=%s: %v %v", bad, response, err)
		}
	}
}

// Looking for the grants of a task reads the records of those that have ended, and of no others.
func TestALookupReadsNoOtherRecord(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	ended := map[string]string{}
	for i := range 60 {
		lease, id := e.as("ann", fmt.Sprintf("reset/T-%d", i))
		if err := e.revokeLease(lease); err != nil {
			t.Fatal(err)
		}
		ended[fmt.Sprintf("T-%d", i)] = id
	}
	for range 2 { // the second time after a restart
		e.storage.records.Store(0)
		got := fmt.Sprint(e.ask(logical.ListOperation, "grants/by-task/T-7/", nil)["keys"])
		if got != fmt.Sprint([]string{ended["T-7"]}) {
			t.Errorf("the list is %s, want %s", got, ended["T-7"])
		}
		if reads := e.storage.records.Load(); reads != 1 {
			t.Errorf("the list reads %d records", reads)
		}
		if got := idsIn(e.ask(logical.ReadOperation, "grants", map[string]any{"state": "all"})); len(got) != len(ended) {
			t.Errorf("all are %d grants, want %d", len(got), len(ended))
		}
		e.backend = e.open(e.System())
		e.initialize()
		if err := e.grants.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
