package vault

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// mount is one mount of the engine in the shared Vault, with the other Vault as its
// target "other".
type mount struct {
	t    *testing.T
	path string
	*api.Client
}

func newMount(t *testing.T) *mount {
	t.Helper()
	token, err := lab.EngineToken(t.Context(), servers.Other.Client, "1h")
	if err != nil {
		t.Fatal(err)
	}
	return newMountWith(t, map[string]any{"token": token})
}

// newMountWith has the engine come to the other Vault with these fields.
func newMountWith(t *testing.T, fields map[string]any) *mount {
	t.Helper()
	m := &mount{t: t, path: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), Client: servers.Vault.Client}
	if err := m.Sys().MountWithContext(t.Context(), m.path, &api.MountInput{Type: lab.PluginName}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Sys().UnmountWithContext(context.Background(), m.path); err != nil {
			t.Errorf("disabling the mount: %v", err)
		}
	})
	config := map[string]any{"type": "vault", "address": servers.Other.Address}
	for name, value := range fields {
		config[name] = value
	}
	if answer := m.write("config/other", config); answer != nil && len(answer.Warnings) > 0 {
		t.Errorf("the target warns: %q", answer.Warnings)
	}
	return m
}

func (m *mount) write(path string, data map[string]any) *api.Secret {
	m.t.Helper()
	secret, err := m.tryWrite(path, data)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret
}

func (m *mount) tryWrite(path string, data map[string]any) (*api.Secret, error) {
	return m.Logical().WriteWithContext(m.t.Context(), m.path+"/"+path, data)
}

// role writes a role for a pair on the other Vault.
func (m *mount) role(name, action, resource string, more map[string]any) {
	m.t.Helper()
	m.write("roles/"+name, roleOf(action, resource, more))
}

func roleOf(action, resource string, more map[string]any) map[string]any {
	fields := map[string]any{"target": "other", "action": action, "resource": resource, "ttl": "10m", "max_ttl": "30m"}
	for name, value := range more {
		fields[name] = value
	}
	return fields
}

func (m *mount) read(path string) *api.Secret {
	m.t.Helper()
	secret, err := m.Logical().ReadWithContext(m.t.Context(), m.path+"/"+path)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret
}

// mint reads a credential.
func (m *mount) mint(path string, parameters ...string) minted {
	m.t.Helper()
	made, err := m.tryMint(path, parameters...)
	if err != nil {
		m.t.Fatal(err)
	}
	return made
}

func (m *mount) tryMint(path string, parameters ...string) (minted, error) {
	query := map[string][]string{}
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		query[name] = append(query[name], value)
	}
	secret, err := m.Logical().ReadWithDataWithContext(m.t.Context(), m.path+"/creds/"+path, query)
	if err != nil {
		return minted{}, err
	}
	return minted{secret, secret.Data["token"].(string)}, nil
}

// minted is what a read of creds returned.
type minted struct {
	*api.Secret
	token string
}

func (m minted) grant() string { return m.Data["grant_id"].(string) }

// ask sends a request with the token.
func (m minted) ask(ctx context.Context, method, path, body string) error {
	return request(ctx, servers.Other.Address, m.token, method, path, body)
}

func (m *mount) revoke(made minted) {
	m.t.Helper()
	if err := m.Sys().RevokeWithOptionsWithContext(m.t.Context(), &api.RevokeOptions{LeaseID: made.LeaseID, Sync: true}); err != nil {
		m.t.Fatal(err)
	}
}

// grantRead is the ledger's record of a credential.
func (m *mount) grantRead(id string) map[string]any {
	m.t.Helper()
	secret := m.read("grants/" + id)
	if secret == nil {
		m.t.Fatalf("the ledger has no grant %s", id)
	}
	return secret.Data
}

// put writes a secret of the other Vault, of KV version 2.
func put(t testing.TB, path, value string) {
	t.Helper()
	if err := request(t.Context(), servers.Other.Address, servers.Other.Root, http.MethodPut, path, `{"data":{"password":"`+value+`"}}`); err != nil {
		t.Fatal(err)
	}
}

func allowed(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func denied(t testing.TB, what string, err error) {
	t.Helper()
	if !refused(err) {
		t.Errorf("%s is not refused: %v", what, err)
	}
}

func eventually(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

// ours lists the policies and the token roles that the engine has at the other Vault.
func ours(t testing.TB) (policies, roles []string) {
	t.Helper()
	all, err := servers.Other.Client.Sys().ListPoliciesWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "precision-") {
			policies = append(policies, name)
		}
	}
	listed, err := servers.Other.Client.Logical().ListWithContext(t.Context(), "auth/token/roles")
	if err != nil {
		t.Fatal(err)
	}
	if listed != nil {
		for _, name := range listed.Data["keys"].([]any) {
			roles = append(roles, name.(string))
		}
	}
	return policies, roles
}

func mountOf(kind string) *api.MountInput { return &api.MountInput{Type: kind} }
