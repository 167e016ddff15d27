package tests

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/docs"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// documented is a mount at the path that the documentation has, with the target that
// it presumes.
func documented(t *testing.T) *mount {
	t.Helper()
	m := &mount{t: t, path: "precision", Client: servers.Vault.Client, grants: map[string]bool{}}
	m.enable(&api.MountInput{Type: lab.PluginName})
	m.write("config/store", m.storeConfig())
	return m
}

// cast makes people of these names who log in, belong to an entity each, and have
// the policy that is named "cast"; and returns what docs.Stage takes, and the ids of
// their entities.
func (m *mount) cast(policy string, names ...string) (people map[string][]string, entities map[string]string) {
	m.t.Helper()
	ctx := m.t.Context()
	if err := m.Sys().PutPolicyWithContext(ctx, "cast", policy); err != nil {
		m.t.Fatal(err)
	}
	if err := m.Sys().EnableAuthWithOptionsWithContext(ctx, "cast", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := m.Sys().DisableAuthWithContext(context.Background(), "cast"); err != nil {
			m.t.Error(err)
		}
	})
	people, entities = map[string][]string{"": {"VAULT_TOKEN=" + servers.Vault.Root}}, map[string]string{}
	for _, name := range names {
		if _, err := m.Logical().WriteWithContext(ctx, "auth/cast/users/"+name, map[string]any{"password": "lab-password", "token_policies": "cast"}); err != nil {
			m.t.Fatal(err)
		}
		login, err := m.Logical().WriteWithContext(ctx, "auth/cast/login/"+name, map[string]any{"password": "lab-password"})
		if err != nil {
			m.t.Fatal(err)
		}
		people[name], entities[name] = []string{"VAULT_TOKEN=" + login.Auth.ClientToken}, login.Auth.EntityID
	}
	return people, entities
}

// assemble makes a group of that name.
func (m *mount) assemble(name string, entities ...string) {
	m.t.Helper()
	if _, err := m.Logical().WriteWithContext(m.t.Context(), "identity/group/name/"+name, map[string]any{"member_entity_ids": entities}); err != nil {
		m.t.Fatal(err)
	}
}

// The page on tasks is true: it is run.
func TestTasksPage(t *testing.T) {
	m := documented(t)
	people, entities := m.cast(`path "precision/creds/*" { capabilities = ["read"] } path "precision/preview/*" { capabilities = ["read"] } path "precision/requests*" { capabilities = ["create", "read", "update", "list"] }`, "ci", "alice", "bob", "carol")
	m.assemble("leads", entities["bob"], entities["carol"])
	m.assemble("pipelines", entities["ci"])
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// The page's window is moved, so that it is closed or open whatever day it is.
	docs.Play(t, "tasks.md", docs.Stage{
		Environment: docs.Vault(servers.Vault),
		People:      people,
		Scenes: map[string]func(*testing.T){
			"it is Tuesday": func(*testing.T) {
				m.write("roles/release", map[string]any{"window": fmt.Sprintf("0 22 * * %d", time.Now().In(zone).AddDate(0, 0, 3).Weekday())})
			},
			"it is Friday night": func(*testing.T) {
				now := time.Now().In(zone)
				m.write("roles/release", map[string]any{"window": fmt.Sprintf("%d %d * * *", now.Minute(), now.Hour())})
			},
		},
	})
}
