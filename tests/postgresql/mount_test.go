package postgresql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// target is what each mount calls its database.
const target = "shop"

// forEngines runs a test once with an engine that has the rights of
// deploy/postgresql/engine.sql and once with one that is a superuser.
func forEngines(t *testing.T, test func(*testing.T, lab.Login)) {
	t.Run("engine", func(t *testing.T) { test(t, servers.PostgreSQL.Engine) })
	t.Run("superuser", func(t *testing.T) { test(t, servers.PostgreSQL.SuperEngine) })
}

// asEngine runs a test with the first of them alone, where it would tell nothing new
// with the other.
func asEngine(t *testing.T, test func(*testing.T, lab.Login)) {
	t.Helper()
	test(t, servers.PostgreSQL.Engine)
}

// mount is a mount of the engine that is a test's own.
type mount struct {
	*api.Client
	t    testing.TB
	path string
}

func newMount(t testing.TB) *mount {
	t.Helper()
	m := &mount{Client: servers.Vault.Client, t: t, path: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))}
	if err := m.Sys().MountWithContext(t.Context(), m.path, &api.MountInput{Type: lab.PluginName}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Sys().UnmountWithContext(context.Background(), m.path); err != nil {
			t.Errorf("disabling the mount: %v", err)
		}
	})
	return m
}

// config is a target's, as an engine's login reaches a shop.
func config(s *shop, engine lab.Login) map[string]any {
	return map[string]any{
		"type": "postgresql", "username": engine.Name, "password": engine.Password,
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/%s?sslmode=disable", servers.PostgreSQL.Host, servers.PostgreSQL.Port, s.name),
	}
}

func (m *mount) configure(s *shop, engine lab.Login) {
	m.t.Helper()
	s.exec("ALTER SCHEMA precision OWNER TO " + engine.Name) // which is one engine's
	m.write("config/"+target, config(s, engine))
}

// role writes a role of the target, and returns what the engine says to it.
func (m *mount) role(name string, fields map[string]any) []string {
	m.t.Helper()
	answer, err := m.tryRole(name, fields)
	if err != nil {
		m.t.Fatal(err)
	}
	if answer == nil {
		return nil
	}
	return answer.Warnings
}

func (m *mount) tryRole(name string, fields map[string]any) (*api.Secret, error) {
	whole := map[string]any{"target": target, "ttl": "10m", "max_ttl": "30m"}
	maps.Copy(whole, fields)
	return m.tryWrite("roles/"+name, whole)
}

func (m *mount) tryWrite(path string, fields map[string]any) (*api.Secret, error) {
	return m.Logical().WriteWithContext(m.t.Context(), m.path+"/"+path, fields)
}

func (m *mount) write(path string, fields map[string]any) *api.Secret {
	m.t.Helper()
	answer, err := m.tryWrite(path, fields)
	if err != nil {
		m.t.Fatal(err)
	}
	return answer
}

// credential is what a read of creds answered.
type credential struct {
	*api.Secret
	login     lab.Login
	database  string
	command   string // to CALL; empty but for RUN
	url       string
	expiresAt time.Time
}

func (m *mount) mint(path string, parameters ...string) credential {
	m.t.Helper()
	minted, err := m.tryMint(path, parameters...)
	if err != nil {
		m.t.Fatal(err)
	}
	return minted
}

// tryMint reads a credential; each parameter is a name, "=" and a value.
func (m *mount) tryMint(path string, parameters ...string) (credential, error) {
	query := map[string][]string{}
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		query[name] = append(query[name], value)
	}
	secret, err := m.Logical().ReadWithDataWithContext(m.t.Context(), m.path+"/creds/"+path, query)
	if err != nil {
		return credential{}, err
	}
	text := func(name string) string { value, _ := secret.Data[name].(string); return value }
	minted := credential{
		Secret: secret, login: lab.Login{Name: text("username"), Password: text("password")},
		database: text("database"), command: text("command"), url: text("connection_url"),
	}
	minted.expiresAt, err = time.Parse(time.RFC3339, text("expires_at"))
	return minted, err
}

func (m *mount) revoke(minted credential) {
	m.t.Helper()
	if err := m.tryRevoke(minted); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mount) tryRevoke(minted credential) error {
	return m.Sys().RevokeWithOptionsWithContext(m.t.Context(), &api.RevokeOptions{LeaseID: minted.LeaseID, Sync: true})
}

// refusal is the text of an answer that says what the caller can mend.
func refusal(t testing.TB, err error) string {
	t.Helper()
	answer := new(api.ResponseError)
	if !errors.As(err, &answer) || answer.StatusCode != http.StatusBadRequest {
		t.Fatalf("not refused: %v", err)
	}
	return strings.Join(answer.Errors, "\n")
}

// says demands parts of a text.
func says(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %q", part, text)
		}
	}
}
