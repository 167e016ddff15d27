package vault

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// floor is what a token can read besides its grant that nobody can without one.
var floor = []string{
	"sys/internal/ui/namespaces",
}

// What Vault answers to everybody it answers to a token, too; of all that it answers
// nothing else but the floor.
func TestNothingButTheFloor(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/floor/db", "old")
	m.role("reset", "update", "secret/data/floor/db", nil)
	token := m.mint("reset/INC-7")
	openapi, err := servers.Other.Client.Logical().ReadRawWithContext(t.Context(), "sys/internal/specs/openapi")
	if err != nil {
		t.Fatal(err)
	}
	defer openapi.Body.Close()
	var described struct {
		Paths map[string]map[string]any
	}
	if err := json.NewDecoder(openapi.Body).Decode(&described); err != nil {
		t.Fatal(err)
	}
	if len(described.Paths) < 300 {
		t.Fatalf("Vault describes %d paths only", len(described.Paths))
	}
	var more []string
	tried := 0
	for path := range described.Paths {
		path = strings.TrimPrefix(path, "/")
		for strings.Contains(path, "{") { // an example
			before, rest, _ := strings.Cut(path, "{")
			_, after, _ := strings.Cut(rest, "}")
			path = before + "x" + after
		}
		if path == "sys/monitor" || strings.HasPrefix(path, "sys/pprof/") { // refused, and slow where it is not
			denied(t, path, token.ask(t.Context(), http.MethodGet, path, ""))
			continue
		}
		for _, method := range []string{http.MethodGet, "LIST"} {
			tried++
			with, without := token.ask(t.Context(), method, path, ""), request(t.Context(), servers.Other.Address, "", method, path, "")
			if statusOf(with) != statusOf(without) && !refused(with) && statusOf(with) != http.StatusBadRequest {
				more = append(more, path)
			}
		}
	}
	slices.Sort(more)
	more = slices.Compact(more)
	if !slices.Equal(more, floor) {
		t.Errorf("beside its grant and what is everybody's, a token can read %q, want %q", more, floor)
	}

	// It sees that the granted mount is there, and no other.
	for path, seen := range map[string]bool{"secret": true, "secret/data/floor/db": true, "kv1": false, "deep/er": false, "identity": false} {
		if err := token.ask(t.Context(), http.MethodGet, "sys/internal/ui/mounts/"+path, ""); (err == nil) != seen {
			t.Errorf("whether it sees the mount of %s: %v, want %t", path, err, seen)
		}
	}
	figures.Log(t, "paths of Vault's API that were read and listed: %d; answered beyond what is everybody's: %d", tried/2, len(more))
}

// A token can't do anything about itself, or hand on what it has.
func TestATokenCanDoNothingAboutItself(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/itself/db", "old")
	m.role("reset", "update", "secret/data/itself/db", nil)
	token := m.mint("reset/INC-7")
	accessor := token.Data["accessor"].(string)
	policies, roles := ours(t)
	body := `{"token":"` + token.token + `","accessor":"` + accessor + `","path":"secret/data/itself/db","paths":["secret/data/itself/db"],"policies":["default"],"lease_id":"x","input":"aGk="}`
	tried := [][2]string{
		{http.MethodPost, "auth/token/renew-self"}, {http.MethodPost, "auth/token/renew"}, {http.MethodPost, "auth/token/renew-accessor"},
		{http.MethodGet, "auth/token/lookup-self"}, {http.MethodPost, "auth/token/lookup-self"}, {http.MethodPost, "auth/token/lookup"}, {http.MethodPost, "auth/token/lookup-accessor"},
		{http.MethodPost, "auth/token/create"}, {http.MethodPost, "auth/token/create-orphan"}, {http.MethodPost, "auth/token/revoke-self"}, {http.MethodPost, "auth/token/revoke"}, {http.MethodPost, "auth/token/revoke-accessor"}, {http.MethodPost, "auth/token/revoke-orphan"},
		{http.MethodPost, "sys/capabilities-self"}, {http.MethodPost, "sys/capabilities"}, {http.MethodPost, "sys/capabilities-accessor"}, {http.MethodGet, "sys/internal/ui/resultant-acl"},
		{"LIST", "sys/policies/acl"}, {"LIST", "sys/policy"}, {http.MethodPut, "cubbyhole/x"}, {http.MethodPost, "sys/wrapping/wrap"}, {http.MethodPost, "sys/leases/renew"}, {http.MethodPost, "sys/leases/lookup"}, {http.MethodPost, "sys/tools/random"}, {"LIST", "auth/token/accessors"},
		{http.MethodPost, "identity/entity"}, {http.MethodGet, "identity/oidc/token/x"}, {http.MethodPost, "sys/control-group/request"},
	}
	for _, policy := range policies {
		tried = append(tried, [2]string{http.MethodGet, "sys/policies/acl/" + policy}, [2]string{http.MethodGet, "sys/policy/" + policy}, [2]string{http.MethodPut, "sys/policies/acl/" + policy})
	}
	for _, role := range roles {
		tried = append(tried, [2]string{http.MethodPost, "auth/token/create/" + role}, [2]string{http.MethodGet, "auth/token/roles/" + role})
	}
	for _, attempt := range tried {
		denied(t, attempt[0]+" "+attempt[1], token.ask(t.Context(), attempt[0], attempt[1], body))
	}
	allowed(t, "what it is for", token.ask(t.Context(), http.MethodPut, "secret/data/itself/db", reset))

	about, err := servers.Other.Client.Auth().Token().LookupAccessorWithContext(t.Context(), accessor)
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{"renewable": false, "orphan": true, "entity_id": "", "type": "service"} {
		if about.Data[field] != want {
			t.Errorf("%s of the token is %v, want %v", field, about.Data[field], want)
		}
	}
	if held := about.Data["policies"].([]any); len(held) != 1 || !strings.HasPrefix(held[0].(string), "precision-") {
		t.Errorf("the token has the policies %v", held)
	}
	figures.Log(t, "requests of a token about itself, its policy and its token role that were refused: %d", len(tried))
}
