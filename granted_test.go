package precision

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// A grant shows the policy that it was minted with and the role of then, after the role has changed or gone.
func TestAGrantShowsItsPolicyAfterItsRoleIsGone(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	e.do(logical.CreateOperation, "roles/keyed", map[string]any{
		"target": "db", "action": "reset", "resource": "{{key}}/{{task}}", "parameters": map[string]any{"key": map[string]any{"one_of": []any{"one", "two"}}}, "ttl": "10m",
	})
	plain := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	keyed := e.do(logical.ReadOperation, "creds/keyed/T-1", map[string]any{"key": "two"})
	shows := func(minted *logical.Response, resource string, definition string) {
		t.Helper()
		answer := e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil)
		want := "reset on " + resource + " until <expires_at>"
		if answer.Data["policy"] != want || answer.Data["policy_sha256"] != lifecycle.Hash(provider.Policy(want)) {
			t.Errorf("the grant shows %v, %v, %v", answer.Data["policy"], answer.Data["policy_sha256"], answer.Warnings)
		}
		if got := answer.Data["role_definition"].(map[string]any)["resource"]; got != definition || answer.Data["role_version"] == "" {
			t.Errorf("the role was of %v, version %v", got, answer.Data["role_version"])
		}
	}
	for _, change := range []func(){
		func() {},
		func() {
			e.do(logical.UpdateOperation, "roles/reset", map[string]any{"resource": "three"})
			e.do(logical.UpdateOperation, "roles/keyed", map[string]any{"resource": "three/{{key}}"})
		},
		func() {
			e.do(logical.DeleteOperation, "roles/reset", nil)
			e.do(logical.DeleteOperation, "roles/keyed", nil)
		},
		func() { // after a restart, and once it has ended
			e.backend = e.open(e.System())
			e.initialize()
			if err := e.revokeLease(keyed.Secret); err != nil {
				t.Error(err)
			}
		},
	} {
		change()
		shows(plain, "one", "one")
		shows(keyed, "two/T-1", "{{key}}/{{task}}")
	}
	parameters := string(e.do(logical.ReadOperation, "grants/"+keyed.Data["grant_id"].(string), nil).Data["parameters"].(json.RawMessage))
	if parameters != `{"key":"two"}` {
		t.Errorf("the parameters are %s", parameters)
	}
}

// The text of a policy is stored once for each version of a role, and by no mint.
func TestAVersionIsStoredOnce(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	versions := func() int {
		names, err := e.storage.List(t.Context(), versionPrefix)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	for range 5 {
		e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	}
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"ttl": "10m"}) // the same
	if got := versions(); got != 1 {
		t.Errorf("%d versions are stored, want 1", got)
	}
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"ttl": "5m"})
	if got := versions(); got != 2 {
		t.Errorf("%d versions are stored, want 2", got)
	}
	now := e.grants.Now()
	for _, before := range []time.Time{now, now.Add(23 * time.Hour)} { // no lease of the mount is over by then
		if _, err := e.tidyVersions(t.Context(), e.storage, before); err != nil {
			t.Fatal(err)
		}
	}
	if got := versions(); got != 2 {
		t.Errorf("%d versions are left, want 2", got)
	}
	if _, err := e.tidyVersions(t.Context(), e.storage, now.Add(25*time.Hour)); err != nil || versions() != 1 {
		t.Errorf("%d versions are left, want 1: %v", versions(), err)
	}
}

// Whoever approves sees the policy and each option that the approval is for; the grant has the same hash.
func TestARequestShowsWhatIsApproved(t *testing.T) {
	e := newApprovalEngine(t)
	id := e.approved("T-1")
	shown := must(e.by("bob", logical.ReadOperation, "requests/"+id, nil)).Data
	if shown["policy"] != "reset on one until <expires_at>" {
		t.Errorf("the policy is shown as %v", shown["policy"])
	}
	minted := must(e.by("alice", logical.ReadOperation, "creds/two/T-1", nil))
	grant := e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil).Data
	if grant["policy_sha256"] != shown["policy_sha256"] || grant["policy"] != shown["policy"] {
		t.Errorf("the grant has %v, the request %v", grant["policy_sha256"], shown["policy_sha256"])
	}
	if _, there := shown["options"].(map[string]any); !there || strings.Contains(fmt.Sprint(shown["policy"]), "until 2") {
		t.Errorf("the request shows %v", shown)
	}
}
