package vault

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// policyOf is the one policy of a token at the other Vault, and its text.
func policyOf(t testing.TB, made minted) (name, text string) {
	t.Helper()
	about, err := servers.Other.Client.Auth().Token().LookupAccessorWithContext(t.Context(), made.Data["accessor"].(string))
	if err != nil {
		t.Fatal(err)
	}
	held := about.Data["policies"].([]any)
	if len(held) != 1 {
		t.Fatalf("the token has the policies %v", held)
	}
	name = held[0].(string)
	if text, err = servers.Other.Client.Sys().GetPolicyWithContext(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name, text
}

func policyThere(t testing.TB, name string) bool {
	t.Helper()
	policies, _ := ours(t)
	return slices.Contains(policies, name)
}

// tidyUntil has the sweeper run until something holds.
func (m *mount) tidyUntil(what string, holds func() bool) {
	m.t.Helper()
	eventually(m.t, what, 20*time.Second, func() bool {
		m.write("tidy", nil)
		return holds()
	})
}

// A revoked token is dead, and nothing of it is left; equal grants share a policy, which
// goes with the last role and the last grant that need it.
func TestDeadAtRevokeAndGoneWithItsRoles(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/end/db", "old")
	m.role("first", "update", "secret/data/end/db", nil)
	m.role("second", "update", "secret/data/end/db", map[string]any{"uses": 5})
	one, other := m.mint("first/INC-7"), m.mint("second/INC-7")
	use := func(made minted) error {
		return made.ask(t.Context(), http.MethodPut, "secret/data/end/db", reset)
	}
	allowed(t, "a token", use(one))
	name, text := policyOf(t, one)
	if shared, _ := policyOf(t, other); shared != name {
		t.Errorf("equal grants have the policies %s and %s", name, shared)
	}
	if want := `{"path":{"secret/data/end/db":{"capabilities":["update"]}}}`; text != want {
		t.Errorf("the policy is %s, want %s", text, want)
	}
	if preview := m.read("preview/second/INC-7").Data["policy"]; preview != other.Data["policy"] || !strings.HasPrefix(preview.(string), strings.TrimSuffix(text, "}")) {
		t.Errorf("the preview is %v, the mint said %v, the Vault has %s", preview, other.Data["policy"], text)
	}
	m.revoke(one)
	denied(t, "a revoked token", use(one))
	allowed(t, "another token of the same policy", use(other))
	if _, err := servers.Other.Client.Auth().Token().LookupAccessorWithContext(t.Context(), one.Data["accessor"].(string)); err == nil {
		t.Error("the Vault still knows the revoked token")
	}
	_, roles := ours(t)
	for _, role := range roles {
		if strings.HasSuffix(role, one.grant()) {
			t.Errorf("the token role %s is left", role)
		}
	}

	for _, role := range []string{"first", "second"} {
		if _, err := m.Logical().DeleteWithContext(t.Context(), m.path+"/roles/"+role); err != nil {
			t.Fatal(err)
		}
		m.write("tidy", nil)
	}
	time.Sleep(time.Second) // for the sweeper to do what it must not
	if !policyThere(t, name) {
		t.Fatal("the policy is gone although a grant hangs on it")
	}
	allowed(t, "a token whose role is gone", use(other))
	m.revoke(other)
	denied(t, "the last token", use(other))
	m.tidyUntil("the policy is gone", func() bool { return !policyThere(t, name) })
}

// What is filled in makes a policy of its own, with the first read, and no role keeps it.
func TestPoliciesOfParametersComeAndGo(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, team := range []string{"red", "blue"} {
		put(t, "secret/data/teams/"+team+"/db", "old")
	}
	m.role("team", "update", "secret/data/teams/{{team}}/db", map[string]any{"parameters": map[string]any{"team": "[a-z]+"}})
	before, _ := ours(t)
	red := m.mint("team/INC-7", "team=red")
	name, _ := policyOf(t, red)
	if slices.Contains(before, name) {
		t.Errorf("the policy %s was there before anybody had said which team", name)
	}
	allowed(t, "its own team", red.ask(t.Context(), http.MethodPut, "secret/data/teams/red/db", reset))
	denied(t, "another team", red.ask(t.Context(), http.MethodPut, "secret/data/teams/blue/db", reset))
	m.revoke(red)
	m.tidyUntil("the policy is gone", func() bool { return !policyThere(t, name) })
}

// All that is below a path, and nothing beside it.
func TestEverythingBelow(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, path := range []string{"below/a", "below/b/c", "belowx", "below"} {
		put(t, "secret/data/"+path, "old")
	}
	m.role("all", "read", "secret/data/below/*", nil)
	token := m.mint("all/INC-7")
	for path, works := range map[string]bool{"below/a": true, "below/b/c": true, "belowx": false, "below": false, "other": false} {
		if err := token.ask(t.Context(), http.MethodGet, "secret/data/"+path, ""); (err == nil) != works {
			t.Errorf("reading %s: %v, want %t", path, err, works)
		}
	}
	denied(t, "writing", token.ask(t.Context(), http.MethodPut, "secret/data/below/a", reset))
	denied(t, "listing", token.ask(t.Context(), "LIST", "secret/metadata/below", ""))
	m.role("names", "list", "secret/metadata/below/*", nil)
	names := m.mint("names/INC-7")
	allowed(t, "listing below", names.ask(t.Context(), "LIST", "secret/metadata/below/b", ""))
	denied(t, "listing above", names.ask(t.Context(), "LIST", "secret/metadata/", ""))
}

// A policy that is gone is written again before a mint; one that somebody has changed
// mints nothing, and is not put right under those who hold tokens of it.
func TestPoliciesThatOthersHaveTouched(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/touched/db", "old")
	m.role("reset", "update", "secret/data/touched/db", nil)
	name, text := policyOf(t, m.mint("reset/INC-7"))
	sys := servers.Other.Client.Sys()
	if err := sys.DeletePolicyWithContext(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	made := m.mint("reset/INC-7")
	allowed(t, "a token after the policy was deleted", made.ask(t.Context(), http.MethodPut, "secret/data/touched/db", reset))

	if err := sys.PutPolicyWithContext(t.Context(), name, `path "*" { capabilities = ["read", "update", "sudo"] }`); err != nil {
		t.Fatal(err)
	}
	_, before := ours(t)
	if _, err := m.tryMint("reset/INC-7"); err == nil || !strings.Contains(err.Error(), "somebody has changed the policy") {
		t.Errorf("a mint of a changed policy says %v", err)
	}
	if _, err := m.tryWrite("roles/reset", roleOf("update", "secret/data/touched/db", nil)); err == nil {
		t.Error("a role of a changed policy was written")
	}
	if _, after := ours(t); len(after) > len(before) {
		t.Errorf("the refused mint has left token roles: %v", after)
	}
	if changed, err := sys.GetPolicyWithContext(t.Context(), name); err != nil || changed == text {
		t.Errorf("the policy was put right under its tokens: %v", err)
	}
	if err := sys.PutPolicyWithContext(t.Context(), name, text); err != nil {
		t.Fatal(err)
	}
	m.mint("reset/INC-7")
}

// A prefix revoke ends what a task has, whatever the role.
func TestATaskEnds(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/task/db", "old")
	m.role("reset", "update", "secret/data/task/db", nil)
	var tokens []minted
	for range 10 {
		tokens = append(tokens, m.mint("reset/INC-7"))
	}
	other := m.mint("reset/INC-8")
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: m.path + "/creds/reset/INC-7", Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		denied(t, "a token of the task", token.ask(t.Context(), http.MethodPut, "secret/data/task/db", reset))
	}
	allowed(t, "a token of another task", other.ask(t.Context(), http.MethodPut, "secret/data/task/db", reset))
}

// The target's own end of a token is no later than its grant's, however short that is.
func TestTheTargetsOwnEnd(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/alone/db", "old")
	m.role("reset", "update", "secret/data/alone/db", nil)
	for _, ttl := range []string{"1s", "3s", "10m"} {
		made := m.mint("reset/INC-7", "ttl="+ttl)
		about, err := servers.Other.Client.Auth().Token().LookupAccessorWithContext(t.Context(), made.Data["accessor"].(string))
		if err != nil {
			t.Fatal(err)
		}
		end, err := time.Parse(time.RFC3339Nano, about.Data["expire_time"].(string))
		if err != nil {
			t.Fatal(err)
		}
		expiresAt, err := time.Parse(time.RFC3339, made.Data["expires_at"].(string))
		if err != nil {
			t.Fatal(err)
		}
		if end.After(expiresAt) {
			t.Errorf("ttl %s: the Vault ends the token at %s, after %s", ttl, end, expiresAt)
		}
	}
}

// No secret is in what is written down: the audit logs have hashes, and the engine's
// own words name grants.
func TestNoSecretIsWrittenDown(t *testing.T) {
	t.Parallel()
	token, err := lab.EngineToken(t.Context(), servers.Other.Client, "1h")
	if err != nil {
		t.Fatal(err)
	}
	m := newMountWith(t, map[string]any{"token": token})
	put(t, "secret/data/quiet/db", "old")
	m.role("reset", "update", "secret/data/quiet/db", nil)
	made := m.mint("reset/INC-7")
	allowed(t, "a reset", made.ask(t.Context(), http.MethodPut, "secret/data/quiet/db", reset))
	if _, err := m.tryWrite("config/mistaken", map[string]any{"type": "vault", "address": servers.Other.Address, "token": token + "x"}); err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("a wrong token: %v", err)
	}
	m.revoke(made)
	record, err := json.Marshal(m.grantRead(made.grant()))
	if err != nil {
		t.Fatal(err)
	}
	written := map[string][]byte{"the record": record}
	for _, path := range []string{servers.Vault.Log, servers.Vault.Audit, servers.Other.Log, servers.Other.Audit} {
		if written[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	for place, text := range written {
		for what, secret := range map[string]string{"the engine's token": token, "the minted token": made.token, "the AppRole's secret": servers.Other.SecretID} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s is in %s", what, place)
			}
		}
	}
}
