package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/client-go/kubernetes"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// mount is one mount of the engine in the shared Vault, with the cluster as its target
// "cluster".
type mount struct {
	t    *testing.T
	path string
	*api.Client
}

const target = "cluster"

// newMount mounts the engine, which holds what it may grant in the namespaces.
func newMount(t *testing.T, namespaces ...string) *mount {
	t.Helper()
	return newMountWith(t, needEngine(t, namespaces...))
}

// newMountWith mounts the engine with an account of its own.
func newMountWith(t *testing.T, jwt string) *mount {
	t.Helper()
	m := &mount{t: t, path: strings.ToLower(t.Name()), Client: servers.Vault.Client}
	m.mount()
	m.write("config/"+target, config(jwt))
	return m
}

func (m *mount) mount() {
	m.t.Helper()
	if err := m.Sys().MountWithContext(m.t.Context(), m.path, &api.MountInput{Type: lab.PluginName}); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := m.Sys().UnmountWithContext(context.Background(), m.path); err != nil {
			m.t.Errorf("disabling the mount: %v", err)
		}
	})
}

func config(jwt string) fields {
	return fields{"type": "kubernetes", "kubernetes_host": servers.Kubernetes.Host, "kubernetes_ca_cert": servers.Kubernetes.CA, "service_account_jwt": jwt}
}

func (m *mount) write(path string, data fields) *api.Secret {
	m.t.Helper()
	secret, err := m.Logical().WriteWithContext(m.t.Context(), m.path+"/"+path, data)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret
}

// refuses writes what is to be refused with status 400, and checks what is said.
func (m *mount) refuses(path string, data fields, says ...string) {
	m.t.Helper()
	_, err := m.Logical().WriteWithContext(m.t.Context(), m.path+"/"+path, data)
	m.wasRefused(path, err, says...)
}

func (m *mount) wasRefused(what string, err error, says ...string) {
	m.t.Helper()
	answer, ok := err.(*api.ResponseError)
	if !ok || answer.StatusCode != http.StatusBadRequest {
		m.t.Errorf("%s: %v, want status 400", what, err)
		return
	}
	for _, text := range says {
		if !strings.Contains(strings.Join(answer.Errors, "\n"), text) {
			m.t.Errorf("%s: the refusal does not say %q: %v", what, text, answer.Errors)
		}
	}
}

func (m *mount) read(path string) *api.Secret {
	m.t.Helper()
	secret, err := m.Logical().ReadWithContext(m.t.Context(), m.path+"/"+path)
	if err != nil {
		m.t.Fatal(err)
	}
	if secret == nil {
		m.t.Fatalf("%s has nothing", path)
	}
	return secret
}

// role writes a role.
func (m *mount) role(name, action, resource string, more ...fields) *api.Secret {
	m.t.Helper()
	data := fields{"target": target, "action": action, "resource": resource, "ttl": "15m", "max_ttl": "1h"}
	for _, further := range more {
		data = with(data, further)
	}
	return m.write("roles/"+name, data)
}

// credential is what a read of creds returned.
type credential struct {
	*api.Secret
	token, account string
}

func (m *mount) mint(path string) credential {
	m.t.Helper()
	minted, err := m.tryMint(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return minted
}

func (m *mount) tryMint(path string) (credential, error) {
	secret, err := m.Logical().ReadWithContext(m.t.Context(), m.path+"/creds/"+path)
	if err != nil {
		return credential{}, err
	}
	text := map[string]string{}
	for _, name := range []string{"service_account_token", "service_account_name", "service_account_namespace", "kubernetes_host", "kubernetes_ca_cert", "kubeconfig", "grant_id", "expires_at", "policy"} {
		value, ok := secret.Data[name].(string)
		if !ok || value == "" {
			return credential{}, fmt.Errorf("the answer has no %s", name)
		}
		text[name] = value
	}
	switch {
	case text["service_account_namespace"] != lab.AccountsNamespace:
		return credential{}, fmt.Errorf("the account is in %q", text["service_account_namespace"])
	case text["kubernetes_host"] != servers.Kubernetes.Host, strings.TrimSpace(text["kubernetes_ca_cert"]) != strings.TrimSpace(servers.Kubernetes.CA):
		return credential{}, fmt.Errorf("the answer names another server: %s", text["kubernetes_host"])
	}
	return credential{Secret: secret, token: text["service_account_token"], account: text["service_account_name"]}, nil
}

func (c credential) text(field string) string { return c.Data[field].(string) }

// client is a client with the credential.
func (c credential) client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(servers.Kubernetes.As(c.token))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (m *mount) revoke(minted credential) {
	m.t.Helper()
	if err := m.Sys().RevokeWithContext(m.t.Context(), minted.LeaseID); err != nil {
		m.t.Fatal(err)
	}
}

// warned says whether one of an answer's warnings has all the texts.
func warned(answer *api.Secret, texts ...string) bool {
	return answer != nil && slices.ContainsFunc(answer.Warnings, func(warning string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(warning, text) })
	})
}

// eventually fails the test unless something becomes true in time.
func eventually(t *testing.T, what string, within time.Duration, true func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !true(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
