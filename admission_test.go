package precision

import (
	"context"
	"errors"
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

const (
	someEntity = "11111111-1111-1111-1111-111111111111"
	someGroup  = "33333333-3333-3333-3333-333333333333"
)

// clocked is an engine whose clock the test sets.
func clocked(t *testing.T) (*engine, *time.Time) {
	t.Helper()
	e := newEngine(t)
	clock := time.Date(2026, 11, 27, 23, 0, 0, 250_000_000, time.UTC) // Friday, midnight in Berlin
	e.grants.Now = func() time.Time { return clock }
	return e, &clock
}

// from reads a credential as somebody.
func (e *engine) from(path, entity, address string) (*logical.Response, error) {
	return e.HandleRequest(e.t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: path, Storage: e.storage, EntityID: entity, Connection: &logical.Connection{RemoteAddr: address},
	})
}

// forbidden demands a refusal with status 403.
func forbidden(t *testing.T, err error, says string) {
	t.Helper()
	coded, is := err.(logical.HTTPCodedError) // as it is: wrapped, Vault would not know it
	if !is || coded.Code() != http.StatusForbidden || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want a 403 that says %q", err, says)
	}
}

// What a role says of admission reads as it was written, stays where a write leaves
// it out, and goes where a patch says null.
func TestRulesAreKept(t *testing.T) {
	e := newEngine(t)
	want := map[string]any{
		"require_task": true, "task_pattern": "JIRA-[0-9]+", "window": "0 22 * * 5", "window_duration": int64(14400), "window_timezone": "Europe/Berlin",
		"not_before": "2026-11-27T22:00:00+01:00", "not_after": "2999-11-27T22:00:00Z", "max_active": int64(3), "max_active_per_task": int64(1), "on_limit": "refuse",
		"bound_cidrs": []string{"10.0.0.0/8", "192.0.2.7"}, "bound_entity_ids": []string{someEntity}, "bound_group_ids": []string{someGroup},
	}
	if names := slices.Sorted(maps.Keys(admissionFields())); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("fields %v", names)
	}
	written := maps.Clone(want)
	written["window_duration"], written["bound_cidrs"] = "4h", "10.0.0.0/8, 192.0.2.7" // as on a command line
	e.do(logical.UpdateOperation, "roles/reset", written)
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"ttl": "5m"})
	read := e.do(logical.ReadOperation, "roles/reset", nil).Data
	for name, value := range want {
		if fmt.Sprint(read[name]) != fmt.Sprint(value) {
			t.Errorf("%s reads as %v, want %v", name, read[name], value)
		}
	}
	again := maps.Clone(read)
	e.do(logical.CreateOperation, "roles/copy", again)
	if copied := e.do(logical.ReadOperation, "roles/copy", nil).Data; fmt.Sprint(copied) != fmt.Sprint(read) {
		t.Errorf("what was read and written reads as %v, want %v", copied, read)
	}

	nothing := map[string]any{}
	for name := range want {
		nothing[name] = nil
		if text, is := want[name].(string); is {
			response, err := e.try(logical.UpdateOperation, "roles/reset", map[string]any{name: strings.Repeat(" ", len(text)%2)})
			if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "invalid "+name) {
				t.Errorf("%s was taken empty: %v, %v", name, response, err)
			}
		}
	}
	for name, empty := range map[string]any{"bound_cidrs": "", "bound_entity_ids": ",", "bound_group_ids": []any{""}, "require_task": "", "max_active": "", "window_duration": "0"} {
		if response, err := e.try(logical.UpdateOperation, "roles/reset", map[string]any{name: empty}); err != nil || !response.IsError() {
			t.Errorf("%s was taken as %q: %v, %v", name, empty, response, err)
		}
	}
	if after := e.do(logical.ReadOperation, "roles/reset", nil).Data; fmt.Sprint(after) != fmt.Sprint(read) {
		t.Errorf("what was refused has changed the role to %v", after)
	}
	e.do(logical.PatchOperation, "roles/reset", nothing)
	for name := range want {
		if value, is := e.do(logical.ReadOperation, "roles/reset", nil).Data[name]; is {
			t.Errorf("%s is still %v", name, value)
		}
	}
}

func TestWindowOfARole(t *testing.T) {
	e, clock := clocked(t)
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"window": "0 22 * * 5", "window_duration": "4h", "window_timezone": "Europe/Berlin", "ttl": "1h", "max_ttl": "8h"})
	closing := time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)

	minted := e.do(logical.ReadOperation, "creds/reset", map[string]any{"ttl": "3h"})
	if end := minted.Data["expires_at"]; end != closing.Format(time.RFC3339) || minted.Secret.TTL > 2*time.Hour {
		t.Errorf("ends at %v, with a lease of %s; the window closes at %s", end, minted.Secret.TTL, closing)
	}
	const cut = "ttl of 3h0m0s was cut to 1h59m59s: the role's window closes at 2026-11-28T02:00:00+01:00"
	if !slices.Contains(minted.Warnings, cut) {
		t.Errorf("warnings %v, want %q", minted.Warnings, cut)
	}
	if minted := e.do(logical.ReadOperation, "creds/reset", nil); len(minted.Warnings) != 0 {
		t.Errorf("warned of what was not cut: %v", minted.Warnings)
	}
	preview := e.do(logical.ReadOperation, "preview/reset", map[string]any{"ttl": "3h"})
	if preview.Data["expires_at"] != closing.Format(time.RFC3339) || !slices.Contains(preview.Warnings, cut) {
		t.Errorf("the preview ends at %v: %v", preview.Data["expires_at"], preview.Warnings)
	}

	*clock = closing.Add(-time.Second)
	if minted := e.do(logical.ReadOperation, "creds/reset", nil); minted.Secret.TTL != time.Second || minted.Data["expires_at"] != closing.Format(time.RFC3339) {
		t.Errorf("in the last second: a lease of %s, until %v", minted.Secret.TTL, minted.Data["expires_at"])
	}
	live := e.target.Live()
	for _, closed := range []time.Time{closing, closing.Add(24 * time.Hour), closing.Add(-4*time.Hour - time.Second)} {
		*clock = closed
		_, err := e.try(logical.ReadOperation, "creds/reset", nil)
		forbidden(t, err, "the role's window is closed; it opens at ")
		preview := e.do(logical.ReadOperation, "preview/reset", nil)
		if len(preview.Warnings) != 1 || !strings.Contains(preview.Warnings[0], "a credential would be refused now: not allowed: the role's window is closed") {
			t.Errorf("the preview warns of %v", preview.Warnings)
		}
	}
	if e.target.Live() != live {
		t.Error("a credential was minted outside of the window")
	}
}

// A renewal ends with the window, and is refused where a read would be.
func TestRenewWithinTheWindow(t *testing.T) {
	e, clock := clocked(t)
	window := map[string]any{"window": "0 22 * * 5", "window_duration": "4h", "window_timezone": "Europe/Berlin", "ttl": "1h", "max_ttl": "23h", "renewable": true}
	e.do(logical.UpdateOperation, "roles/reset", window)
	closing := time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)
	const reader = "22222222-2222-2222-2222-222222222222"
	minted, err := e.from("creds/reset/T-1", reader, "10.1.2.3:4567")
	if err != nil {
		t.Fatal(err)
	}
	grant := minted.Data["grant_id"].(string)
	renew := func() (*logical.Response, error) {
		renewed := kept(t, minted.Secret)
		renewed.Increment = 5 * time.Hour
		return e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RenewOperation, Path: "creds/reset", Secret: renewed, Storage: e.storage})
	}
	response, err := renew()
	if err != nil {
		t.Fatal(err)
	}
	if end := e.target.End(grant); !end.Equal(closing) || clock.Add(response.Secret.TTL).After(closing) {
		t.Errorf("renewed until %s at the target, with a lease of %s; the window closes at %s", end, response.Secret.TTL, closing)
	}
	if len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "was cut to 1h59m59s: the role's window closes at") {
		t.Errorf("warnings %v", response.Warnings)
	}

	refused := func(says string, change map[string]any) {
		t.Helper()
		e.do(logical.PatchOperation, "roles/reset", change)
		_, err := renew()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want a refusal that says %q", change, err, says)
		}
		for name := range change {
			change[name] = window[name]
		}
		e.do(logical.PatchOperation, "roles/reset", change)
		if _, err := renew(); err != nil {
			t.Fatalf("the role is as it was: %v", err)
		}
	}
	refused("window is closed", map[string]any{"window": "0 12 * * 5"})
	refused("window is closed", map[string]any{"not_after": "2026-11-27T23:00:00Z"})
	refused("invalid task", map[string]any{"task_pattern": "JIRA-[0-9]+"})
	refused("not for callers from 10.1.2.3", map[string]any{"bound_cidrs": "10.2.0.0/16"})
	refused("not for the caller's entity", map[string]any{"bound_entity_ids": someEntity})
	refused("not for the caller's groups", map[string]any{"bound_group_ids": someGroup})
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"bound_cidrs": "10.1.0.0/16", "bound_entity_ids": reader, "max_active": 1})
	if _, err := renew(); err != nil {
		t.Errorf("a renewal of who may read, at the limit: %v", err)
	}
	if end := e.target.End(grant); !end.Equal(closing) {
		t.Errorf("in the end until %s, want %s", end, closing)
	}
}

func TestCallersOfARole(t *testing.T) {
	e := newEngine(t)
	known := func(groups ...*logical.Group) *backend {
		return e.open(&logical.StaticSystemView{
			DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour, GroupsVal: groups,
			ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
		})
	}
	bounds := map[string]map[string]any{
		"bound_cidrs":      {"bound_cidrs": "10.0.0.0/8"},
		"bound_entity_ids": {"bound_entity_ids": someEntity},
		"bound_group_ids":  {"bound_group_ids": someGroup},
	}
	for field, bound := range bounds {
		e.backend = known(&logical.Group{ID: someGroup, Name: "ops"})
		e.do(logical.PatchOperation, "roles/reset", map[string]any{"bound_cidrs": nil, "bound_entity_ids": nil, "bound_group_ids": nil})
		e.do(logical.UpdateOperation, "roles/reset", bound)
		if response, err := e.from("creds/reset", someEntity, "10.1.2.3:4567"); err != nil || response.IsError() {
			t.Errorf("%s: who may is refused: %v, %v", field, response, err)
		}
		live := e.target.Live()
		for name, other := range map[string]struct{ entity, address, of string }{
			"another address": {someEntity, "11.1.2.3:4567", "bound_cidrs"},
			"no address":      {someEntity, "", "bound_cidrs"},
			"odd address":     {someEntity, "nowhere", "bound_cidrs"},
			"another entity":  {"22222222-2222-2222-2222-222222222222", "10.1.2.3:4567", "bound_entity_ids"},
			"no entity":       {"", "10.1.2.3:4567", "bound_entity_ids"},
			"of no entity":    {"", "10.1.2.3:4567", "bound_group_ids"},
		} {
			if other.of != field {
				continue
			}
			if _, err := e.from("creds/reset", other.entity, other.address); err == nil {
				t.Errorf("%s: %s is admitted", field, name)
			} else {
				forbidden(t, err, "the role is")
			}
		}
		if field == "bound_group_ids" {
			e.backend = known(&logical.Group{ID: "another", Name: someGroup})
			_, err := e.from("creds/reset", someEntity, "10.1.2.3:4567")
			forbidden(t, err, "not for the caller's groups")
		}
		if e.target.Live() != live {
			t.Errorf("%s: a credential was minted all the same", field)
		}
	}
}

func TestLimitsOfARole(t *testing.T) {
	e := newEngine(t)
	e.grants.Start(e.storage, e.writes)
	if err := e.grants.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"max_active": 3, "max_active_per_task": 2, "require_task": true})
	one := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	two := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	_, err := e.try(logical.ReadOperation, "creds/reset/T-1", nil)
	forbidden(t, err, "the role's live grants for this task: 2, and max_active_per_task is 2")
	if warnings := e.do(logical.ReadOperation, "preview/reset/T-1", nil).Warnings; len(warnings) != 1 || !strings.Contains(warnings[0], "would be refused now") {
		t.Errorf("the preview warns of %v", warnings)
	}
	e.do(logical.ReadOperation, "creds/reset/T-2", nil)
	_, err = e.try(logical.ReadOperation, "creds/reset/T-3", nil)
	forbidden(t, err, "the role's live grants: 3, and max_active is 3")
	response, err := e.try(logical.ReadOperation, "creds/reset", nil)
	if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "invalid task: missing") {
		t.Errorf("a read without a task: %v, %v", response, err)
	}
	if refused := e.operations("db"); !strings.Contains(refused, "refused") {
		t.Errorf("the refusals are not counted: %s", refused)
	}

	// The oldest of the task gives way for the task, and of the role for another.
	answer := e.do(logical.UpdateOperation, "roles/reset", map[string]any{"on_limit": "replace"})
	if answer == nil || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "can end another's") {
		t.Errorf("no warning of what replace means: %v", answer)
	}
	if warnings := e.do(logical.ReadOperation, "preview/reset/T-1", nil).Warnings; len(warnings) != 0 {
		t.Errorf("the preview warns of %v", warnings)
	}
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	if !e.target.End(one.Data["grant_id"].(string)).IsZero() || e.target.End(two.Data["grant_id"].(string)).IsZero() {
		t.Error("not the oldest of the task gave way")
	}
	e.do(logical.ReadOperation, "creds/reset/T-3", nil)
	if !e.target.End(two.Data["grant_id"].(string)).IsZero() || e.target.Live() != 3 {
		t.Errorf("not the oldest of the role gave way; %d live", e.target.Live())
	}
	read := e.do(logical.ReadOperation, "grants/"+two.Data["grant_id"].(string), nil).Data
	if read["state"] != ledger.Revoked || read["ending"] != ledger.Replaced {
		t.Errorf("the ledger says %v, %v", read["state"], read["ending"])
	}
	for _, minted := range []*logical.Response{one, two} { // its lease ends what is dead already
		if err := e.revokeLease(minted.Secret); err != nil {
			t.Error(err)
		}
	}

	// Another process knows the same grants.
	after := e.open(e.System())
	after.grants.Start(e.storage, after.writes)
	e.backend = after
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"on_limit": "refuse"})
	_, err = e.try(logical.ReadOperation, "creds/reset/T-4", nil)
	forbidden(t, err, "max_active is 3")
}

// A list that is empty drops no restriction, either, as of a script that has found
// nothing.
func TestEmptyListsDropNothing(t *testing.T) {
	e := newEngine(t)
	for _, field := range []string{"bound_cidrs", "bound_entity_ids", "bound_group_ids", "approver_group_ids"} {
		for _, empty := range []any{[]any{}, []string{}, "", " ", []any{""}} {
			if answer, err := e.try(logical.UpdateOperation, "roles/reset", map[string]any{field: empty, "approvals": 1}); err != nil || !answer.IsError() || !strings.Contains(answer.Error().Error(), field) {
				t.Errorf("%s: %#v is taken: %v %v", field, empty, answer, err)
			}
		}
	}
}

// As after a plugin's restart of which Vault says nothing, the first read that has to
// know what lives has the ledger read.
func TestLimitsHaveTheLedgerRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		t.Cleanup(func() { e.Cleanup(context.Background()) })
		e.do(logical.UpdateOperation, "roles/reset", map[string]any{"max_active": 1})
		e.do(logical.ReadOperation, "creds/reset/T-1", nil)
		e.backend = e.open(e.System())
		t.Cleanup(func() { e.Cleanup(context.Background()) })
		_, err := e.try(logical.ReadOperation, "creds/reset/T-1", nil)
		forbidden(t, err, "max_active is 1")
	})
}

// What can't be ended, since its target is another by now, leaves no room.
func TestReplaceOnAnotherTarget(t *testing.T) {
	e := newEngine(t)
	e.grants.Start(e.storage, e.writes)
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"max_active": 1, "on_limit": "replace"})
	first := e.do(logical.ReadOperation, "creds/reset", nil)
	e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake", "password": "hunter2"})
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"target": "other"})
	e.do(logical.ReadOperation, "creds/reset", nil)
	if !e.target.End(first.Data["grant_id"].(string)).IsZero() || e.target.Live() != 1 {
		t.Errorf("the one on the target before lives on; %d live", e.target.Live())
	}
	e.target.OnRevoke = func() error { return errors.New("on fire") }
	if _, err := e.try(logical.ReadOperation, "creds/reset", nil); err == nil || e.target.Live() != 1 {
		t.Errorf("got %v, and %d live", err, e.target.Live())
	}
}
