package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// revokeNow asks for a revoke that has happened when it returns.
func revokeNow(lease string) *api.RevokeOptions {
	return &api.RevokeOptions{LeaseID: lease, Sync: true}
}

// One prefix ends a task, a role, the whole mount, and nothing beside it.
func TestRevokeByPrefix(t *testing.T) {
	m := newMount(t)
	ctx := t.Context()
	m.write("roles/download", map[string]any{"target": "store", "action": "s3:GetObject", "resource": uploads})
	task, sibling := m.mint(onStore+"/INC-7"), m.mint(onStore+"/INC-77")
	other := m.mint(onCloud + "/INC-7")
	without := m.mint(onStore)

	revoke := func(prefix string) {
		t.Helper()
		if err := m.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: m.path + "/creds" + prefix, Prefix: true, Sync: true}); err != nil {
			t.Fatal(err)
		}
	}
	revoke("/" + onStore + "/INC-7")
	denied(t, "a session of the task", task.inStore(ctx))
	allowed(t, "a session of a task whose name starts alike", sibling.inStore(ctx))
	allowed(t, "a session without a task", without.inStore(ctx))
	allowed(t, "a user of the same task and another role", other.inCloud(ctx))
	revoke("/" + onStore)
	denied(t, "another session of the role", sibling.inStore(ctx))
	denied(t, "a session of the role without a task", without.inStore(ctx))
	allowed(t, "a user of another role", other.inCloud(ctx))
	revoke("")
	denied(t, "the last user of the mount", other.inCloud(ctx))
	if users := m.users(); len(users) != 0 {
		t.Errorf("users %v are left", users)
	}
}

func TestTokenRevocationEndsItsCredentials(t *testing.T) {
	m := newMount(t)
	client := m.caller()
	session, err := m.tryMint(client, onStore+"/CI-1")
	if err != nil {
		t.Fatal(err)
	}
	user, err := m.tryMint(client, onCloud+"/CI-1")
	if err != nil {
		t.Fatal(err)
	}
	allowed(t, "the session", session.inStore(t.Context()))
	allowed(t, "the user", user.inCloud(t.Context()))
	if err := m.Auth().Token().RevokeOrphanWithContext(t.Context(), client.Token()); err != nil {
		t.Fatal(err)
	}
	goneSoon(t, session.inStore)
	goneSoon(t, user.inCloud)
}

// caller is a client whose token may read creds of this mount, and nothing else.
func (m *mount) caller() *api.Client { return m.callerOf("") }

// callerOf is a caller whose token belongs to an entity.
func (m *mount) callerOf(entity string) *api.Client {
	m.t.Helper()
	policy := strings.ReplaceAll(m.path, "/", "-") + "-caller"
	if err := m.Sys().PutPolicyWithContext(m.t.Context(), policy, fmt.Sprintf(`path "%s/creds/*" { capabilities = ["read"] }`, m.path)); err != nil {
		m.t.Fatal(err)
	}
	request := &api.TokenCreateRequest{Policies: []string{policy}, TTL: "1h"}
	create := m.Auth().Token().CreateWithContext
	if entity != "" {
		alias := m.alias(entity)
		request.EntityAlias = alias
		create = func(ctx context.Context, request *api.TokenCreateRequest) (*api.Secret, error) {
			return m.Auth().Token().CreateWithRoleWithContext(ctx, request, alias)
		}
	}
	token, err := create(m.t.Context(), request)
	if err != nil {
		m.t.Fatal(err)
	}
	client, err := m.CloneWithHeaders()
	if err != nil {
		m.t.Fatal(err)
	}
	client.SetToken(token.Auth.ClientToken)
	return client
}

// alias gives an entity an alias of the token method, and a token role that may
// use it, of the same name.
func (m *mount) alias(entity string) string {
	m.t.Helper()
	methods, err := m.Sys().ListAuthWithContext(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"identity/entity-alias":      {"name": m.path, "canonical_id": entity, "mount_accessor": methods["token/"].Accessor},
		"auth/token/roles/" + m.path: {"allowed_entity_aliases": m.path, "allowed_policies_glob": "*"},
	} {
		if _, err := m.Logical().WriteWithContext(m.t.Context(), path, data); err != nil {
			m.t.Fatal(err)
		}
	}
	return m.path
}

func TestResponseWrapping(t *testing.T) {
	m := newMount(t)
	client, err := m.CloneWithHeaders()
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(m.Token())
	client.SetWrappingLookupFunc(func(string, string) string { return "60s" })
	wrapped, err := client.Logical().ReadWithContext(t.Context(), m.path+"/creds/"+onStore+"/JIRA-1")
	if err != nil {
		t.Fatal(err)
	}
	if wrapped.WrapInfo == nil || len(wrapped.Data) != 0 {
		t.Fatalf("the answer is not wrapped: %v", wrapped.Data)
	}
	opened, err := m.Logical().UnwrapWithContext(t.Context(), wrapped.WrapInfo.Token)
	if err != nil {
		t.Fatal(err)
	}
	minted, err := readCredential(opened)
	if err != nil {
		t.Fatal(err)
	}
	allowed(t, "the unwrapped session", minted.inStore(t.Context()))
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(opened.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "the unwrapped session after its lease was revoked", minted.inStore(t.Context()))
}

const agentConfig = `
vault { address = %q }
auto_auth {
  method "token_file" { config = { token_file_path = %q } }
}
template {
  contents    = "{{ with secret \"%s/creds/short/agent\" }}{{ .Data.access_key }} {{ .Data.secret_key }} {{ .Data.session_token }} {{ .Data.expires_at }}{{ end }}"
  destination = %q
}
`

// The real Vault Agent renders a template, and renders it anew before the
// credential in it has ended.
func TestAgentRendersAndRenews(t *testing.T) {
	m := newMount(t)
	m.write("roles/short", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "8s"})
	folder := t.TempDir()
	rendered, token := filepath.Join(folder, "rendered"), filepath.Join(folder, "token")
	config := filepath.Join(folder, "agent.hcl")
	for path, text := range map[string]string{
		token:  m.caller().Token(),
		config: fmt.Sprintf(agentConfig, servers.Vault.Address, token, m.path, rendered),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	agent := exec.CommandContext(ctx, servers.Vault.Binary, "agent", "-config="+config)
	agent.Cancel = func() error { return agent.Process.Signal(os.Interrupt) }
	agent.WaitDelay = 5 * time.Second
	output, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	agent.Stdout, agent.Stderr = output, output
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = agent.Wait() // interrupted
	}()

	var keys []string
	var last time.Time // when the last credential ends
	for end := time.Now().Add(60 * time.Second); len(keys) < 3; time.Sleep(shortestWait) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(output.Name())
			t.Fatalf("the agent rendered %d credentials in 60 s:\n%s", len(keys), log)
		}
		text, err := os.ReadFile(rendered)
		if err != nil || strings.Count(string(text), " ") != 3 {
			continue // not yet
		}
		parts := strings.Split(string(text), " ")
		if len(keys) > 0 && keys[len(keys)-1] == parts[0] {
			continue
		}
		keys = append(keys, parts[0])
		if !last.IsZero() && time.Now().After(last) {
			t.Errorf("credential %d was rendered after the one before had ended", len(keys))
		}
		if last, err = time.Parse(time.RFC3339, parts[3]); err != nil {
			t.Fatal(err)
		}
		minted := credential{}
		minted.key.Access, minted.key.Secret, minted.key.Token = parts[0], parts[1], parts[2]
		allowed(t, fmt.Sprintf("rendered credential %d", len(keys)), minted.inStore(t.Context()))
	}
}
