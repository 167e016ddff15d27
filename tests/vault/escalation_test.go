package vault

import (
	"net/http"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What could hand out further power is refused unless the role says that it is meant,
// and then the role and each mint say so.
func TestEscalation(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	if err := servers.Other.Client.Sys().MountWithContext(t.Context(), "pki", mountOf("pki")); err != nil {
		t.Fatal(err)
	}
	if err := servers.Other.Client.Sys().MountWithContext(t.Context(), "transit", mountOf("transit")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ action, path string }{
		{"update", "sys/policies/acl/admin"}, {"read", "sys/mounts"}, {"update", "sys/seal"}, {"update", "sys/leases/revoke-prefix/secret"}, {"read", "sys/*"},
		{"update", "auth/token/create"}, {"update", "auth/approle/role/engine/secret-id"}, {"list", "auth/token/accessors"}, {"update", "auth/*"},
		{"update", "identity/entity"}, {"read", "identity/*"},
		{"delete", "pki/root"}, {"update", "pki/roles/x"}, {"update", "pki/*"}, {"update", "transit/keys/x"},
	} {
		_, err := m.tryWrite("roles/power", roleOf(test.action, test.path, map[string]any{"allow_escalation": false}))
		if err == nil || !strings.Contains(err.Error(), "allow_escalation=true") || !strings.Contains(err.Error(), "Code: 400") {
			t.Errorf("%s on %s: %v", test.action, test.path, err)
		}
		answer := m.write("roles/power", roleOf(test.action, test.path, map[string]any{"allow_escalation": true}))
		if answer == nil || !strings.Contains(strings.Join(answer.Warnings, "\n"), "further power") {
			t.Errorf("%s on %s: no warning of it in %v", test.action, test.path, answer)
		}
	}
	for _, test := range []struct{ action, path string }{{"update", "transit/encrypt/x"}, {"read", "pki/cert/ca"}} {
		answer := m.write("roles/engine", roleOf(test.action, test.path, nil))
		if answer == nil || !strings.Contains(strings.Join(answer.Warnings, "\n"), "of type") {
			t.Errorf("%s on %s: no word of what it is in %v", test.action, test.path, answer)
		}
	}
	m.role("lookup", "list", "auth/token/accessors", map[string]any{"allow_escalation": true})
	made := m.mint("lookup/INC-7")
	if !strings.Contains(strings.Join(made.Warnings, "\n"), "further power") {
		t.Errorf("the mint warns of %q", made.Warnings)
	}
	allowed(t, "a path that needs sudo", made.ask(t.Context(), "LIST", "auth/token/accessors", ""))
	denied(t, "another path that needs sudo", made.ask(t.Context(), http.MethodGet, "sys/audit", ""))
	denied(t, "another request for the path", made.ask(t.Context(), http.MethodPut, "auth/token/accessors", ""))
}

// The Vault that the engine runs in can be the target; the engine's own mount there is
// not.
func TestTheSameVault(t *testing.T) {
	t.Parallel()
	if err := lab.AdmitEngine(t.Context(), servers.Vault.Client); err != nil {
		t.Fatal(err)
	}
	token, err := lab.EngineToken(t.Context(), servers.Vault.Client, "1h")
	if err != nil {
		t.Fatal(err)
	}
	if err := servers.Vault.Client.Sys().MountWithContext(t.Context(), "kv", mountOf("kv")); err != nil {
		t.Fatal(err)
	}
	m := newMountWith(t, map[string]any{"address": servers.Vault.Address, "token": token})
	for _, path := range []string{m.path + "/creds/reset", m.path + "/roles/x", m.path + "/*"} {
		if _, err := m.tryWrite("roles/own", roleOf("read", path, nil)); err == nil || !strings.Contains(err.Error(), "is this engine's") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := request(t.Context(), servers.Vault.Address, servers.Vault.Root, http.MethodPut, "kv/db", `{"password":"old"}`); err != nil {
		t.Fatal(err)
	}
	m.role("reset", "update", "kv/db", nil)
	made := m.mint("reset/INC-7")
	use := func() error {
		return request(t.Context(), servers.Vault.Address, made.token, http.MethodPut, "kv/db", `{"password":"new"}`)
	}
	allowed(t, "a token of the engine's own Vault", use())
	denied(t, "reading a credential with it", request(t.Context(), servers.Vault.Address, made.token, http.MethodGet, m.path+"/creds/reset", ""))
	m.revoke(made)
	denied(t, "the token once revoked", use())
}
