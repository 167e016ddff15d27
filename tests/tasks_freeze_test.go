package tests

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// With 32 callers that read credentials as fast as they can: what was asked for after
// the freeze had answered is refused, with its reason; no grant of the ledger was
// issued later; and revoking the role's leases leaves nothing.
func TestFreezeUnderLoad(t *testing.T) {
	m := newMount(t)
	const callers = 32
	var answered atomic.Int64 // when the freeze did, ns since 1970
	var minted, refused, late atomic.Int64
	var keep sync.Mutex
	var kept []credential
	stop := make(chan struct{})
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				asked := time.Now().UnixNano()
				secret, err := m.Logical().ReadWithContext(t.Context(), fmt.Sprintf("%s/creds/%s/LOAD-%d", m.path, onStore, caller))
				var answer *api.ResponseError
				switch at := answered.Load(); {
				case err == nil && at != 0 && asked > at:
					late.Add(1)
				case err == nil:
					minted.Add(1)
					if one, err := readCredential(secret); err == nil && i == 0 {
						keep.Lock()
						kept = append(kept, one)
						keep.Unlock()
					}
				case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden && strings.Contains(err.Error(), "INC-7: a key leaked"):
					refused.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	eventually(t, "the callers are at work", 30*time.Second, func() bool { return minted.Load() > 100 })
	m.write("freeze", map[string]any{"role": onStore, "reason": "INC-7: a key leaked"})
	at := time.Now()
	answered.Store(at.UnixNano())
	eventually(t, "the callers are refused for a while", 30*time.Second, func() bool { return refused.Load() > 200 && time.Since(at) > 2*time.Second })
	close(stop)
	all.Wait()
	if late.Load() > 0 {
		t.Errorf("%d credentials were asked for and given after the freeze", late.Load())
	}
	grants := m.readGrants("grants/by-role/"+onStore, "limit=10000", "state=all")["grants"].([]any)
	for _, grant := range grants {
		issued, err := time.Parse(time.RFC3339, grant.(map[string]any)["issued_at"].(string))
		if err != nil || issued.After(at) {
			t.Errorf("a grant was issued at %s, after the freeze at %s: %v", issued, at, err)
		}
	}
	// What was being minted has been ended, so that the leases are all that lives.
	if live := fmt.Sprint(m.readGrants("grants/by-role/" + onStore)["live"]); live != fmt.Sprint(minted.Load()) {
		t.Errorf("%s grants live, and %d were given", live, minted.Load())
	}
	allowed(t, "a session from before the freeze", kept[0].inStore(t.Context()))
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: m.path + "/creds/" + onStore, Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	if live := fmt.Sprint(m.readGrants("grants/by-role/" + onStore)["live"]); live != "0" {
		t.Errorf("%s grants live after the revoke", live)
	}
	for _, one := range kept {
		denied(t, "a session after the revoke", one.inStore(t.Context()))
	}
	figures.Log(t, "%d callers: %d credentials before the freeze, %d refusals, none after it had answered; %d grants in the ledger", callers, minted.Load(), refused.Load(), len(grants))
}

// A freeze tells who did it, when and why; it is of what it names and nothing else,
// and outlives the plugin, its role and its target. Who lifts it is recorded, too.
func TestFreeze(t *testing.T) {
	m := newMount(t)
	operator := m.people("-operators").login("oscar")
	policy := m.path + "-freezer"
	if err := m.Sys().PutPolicyWithContext(t.Context(), policy, fmt.Sprintf("path \"%[1]s/freeze\" { capabilities = [\"read\", \"update\"] }\npath \"%[1]s/unfreeze\" { capabilities = [\"update\"] }", m.path)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Logical().WriteWithContext(t.Context(), "identity/entity/id/"+operator.entity, map[string]any{"policies": policy}); err != nil {
		t.Fatal(err)
	}
	do := func(path string, data map[string]any) *api.Secret {
		t.Helper()
		answer, err := operator.Logical().WriteWithContext(t.Context(), m.path+"/"+path, data)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	refused := func(roles ...string) {
		t.Helper()
		for _, role := range []string{onStore, onCloud} {
			_, err := m.tryMint(m.Client, role+"/JIRA-1")
			status, text := answered(t, err)
			if slices.Contains(roles, role) != (status == http.StatusForbidden && strings.Contains(text, "INC-7")) || status != http.StatusOK && status != http.StatusForbidden {
				t.Errorf("%s: %d %s", role, status, text)
			}
		}
	}
	before := time.Now().Add(-time.Second)
	do("freeze", map[string]any{"role": onStore, "reason": "INC-7"})
	refused(onStore)
	killPlugin(t)
	refused(onStore)
	if _, err := m.Logical().DeleteWithContext(t.Context(), m.path+"/roles/"+onStore); err != nil {
		t.Fatal(err)
	}
	m.write("roles/"+onStore, map[string]any{"target": "store", "action": putObject, "resource": uploads})
	refused(onStore)
	do("freeze", map[string]any{"target": "prod", "reason": "INC-7, too"})
	refused(onStore, onCloud)
	do("unfreeze", map[string]any{"target": "prod", "reason": "it was the store"})
	refused(onStore)
	do("freeze", map[string]any{"all": true, "reason": "INC-7"})
	refused(onStore, onCloud)
	if answer := do("unfreeze", map[string]any{"all": true, "reason": "narrowed down"}); len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "still frozen") {
		t.Errorf("unfreeze does not say what is still frozen: %v", answer.Warnings)
	}

	read, err := operator.Logical().ReadWithContext(t.Context(), m.path+"/freeze")
	if err != nil {
		t.Fatal(err)
	}
	now, lifted := read.Data["frozen"].([]any), read.Data["lifted"].([]any)
	if len(now) != 1 || len(lifted) != 2 {
		t.Fatalf("freeze reads as %v", read.Data)
	}
	one := now[0].(map[string]any)
	at, err := time.Parse(time.RFC3339, fmt.Sprint(one["frozen_at"]))
	if one["subject"] != "role" || one["name"] != onStore || one["reason"] != "INC-7" || one["entity_id"] != operator.entity || !strings.Contains(fmt.Sprint(one["display_name"]), "oscar") || err != nil || at.Before(before) {
		t.Errorf("the freeze reads as %v", one)
	}
	found := false
	for _, past := range lifted {
		by := past.(map[string]any)["unfrozen_by"].(map[string]any)
		found = found || by["reason"] == "it was the store" && by["entity_id"] == operator.entity && past.(map[string]any)["name"] == "prod"
	}
	if !found {
		t.Errorf("what was lifted reads as %v", lifted)
	}
	do("unfreeze", map[string]any{"role": onStore, "reason": "over"})
	refused()
}
