package kubernetes

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// entityReader is a client of an entity of that name, which may read credentials.
func (m *mount) entityReader(name string) *api.Client {
	m.t.Helper()
	ctx := m.t.Context()
	write := func(path string, data fields) *api.Secret {
		m.t.Helper()
		secret, err := m.Logical().WriteWithContext(ctx, path, data)
		if err != nil {
			m.t.Fatal(err)
		}
		return secret
	}
	methods, err := m.Sys().ListAuthWithContext(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	policy := m.path + "-reader"
	if err := m.Sys().PutPolicyWithContext(ctx, policy, `path "`+m.path+`/creds/*" { capabilities = ["read"] }`); err != nil {
		m.t.Fatal(err)
	}
	entity := write("identity/entity", fields{"name": name}).Data["id"].(string)
	alias := m.path + "-" + strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			return '-'
		}
		return r
	}, name)
	write("identity/entity-alias", fields{"name": alias, "canonical_id": entity, "mount_accessor": methods["token/"].Accessor})
	write("auth/token/roles/"+alias, fields{"allowed_entity_aliases": alias, "allowed_policies_glob": "*"})
	token, err := m.Auth().Token().CreateWithRoleWithContext(ctx, &api.TokenCreateRequest{Policies: []string{policy}, EntityAlias: alias, TTL: "1h"}, alias)
	if err != nil {
		m.t.Fatal(err)
	}
	client, err := m.CloneWithHeaders()
	if err != nil {
		m.t.Fatal(err)
	}
	client.SetToken(token.Auth.ClientToken)
	m.t.Cleanup(func() {
		for _, path := range []string{"identity/entity/id/" + entity, "auth/token/roles/" + alias} {
			if _, err := m.Logical().DeleteWithContext(context.Background(), path); err != nil {
				m.t.Error(err)
			}
		}
	})
	return client
}

// Account and binding bear what a role's labels become; what becomes no label is
// refused before anything is made.
func TestLabelsAreFilledIn(t *testing.T) {
	const namespace = "labels"
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("labelled", "read", namespace+"/configmaps", fields{
		"labels":     map[string]any{"example.com/change": "{{task}}", "team": "team-{{team}}", "who": "{{identity.entity.name}}", "fixed": "yes"},
		"parameters": `{"team": {"pattern": "(?s).*"}}`,
	})
	alice, mallory := m.entityReader("alice"), m.entityReader("mallory/prod")
	read := func(client *api.Client, task, team string) (*api.Secret, error) {
		return client.Logical().ReadWithDataWithContext(ctx, m.path+"/creds/labelled"+task, map[string][]string{"team": {team}})
	}
	secret, err := read(alice, "/CHG-1", "web")
	if err != nil {
		t.Fatal(err)
	}
	name := secret.Data["service_account_name"].(string)
	account, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	binding, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"example.com/change": "CHG-1", "team": "team-web", "who": "alice", "fixed": "yes", "precision/task": "CHG-1", "precision/grant": secret.Data["grant_id"].(string)}
	for what, labels := range map[string]map[string]string{"account": account.Labels, "binding": binding.Labels} {
		for key, value := range want {
			if labels[key] != value {
				t.Errorf("the %s is labelled %v, want %s=%s", what, maps.Clone(labels), key, value)
			}
		}
	}
	m.revoke(credential{Secret: secret})
	if left := m.bindings(namespace, name); left != 0 {
		t.Errorf("%d bindings are left", left)
	}

	refusals := 0
	for _, hostile := range []struct {
		client     *api.Client
		task, team string
	}{
		{alice, "/CHG-1", "a/b"}, {alice, "/CHG-1", "a b"}, {alice, "/CHG-1", "a\nb"}, {alice, "/CHG-1", "a\x00"}, {alice, "/CHG-1", "-"},
		{alice, "/CHG-1", "web,precision/grant=x"}, {alice, "/CHG-1", "{{task}}"}, {alice, "/CHG-1", "ä"}, {alice, "/CHG-1", strings.Repeat("a", 60)},
		{alice, "/CHG-1", "*"}, {alice, "/" + strings.Repeat("C", 64), "web"}, {alice, "/CHG:1", "web"}, {alice, "", "web"}, {mallory, "/CHG-1", "web"}, {m.Client, "/CHG-1", "web"},
	} {
		_, err := read(hostile.client, hostile.task, hostile.team)
		answer, ok := err.(*api.ResponseError)
		if !ok || answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%q of task %q: %v, want status 400", hostile.team, hostile.task, err)
		}
		refusals++
	}
	for _, labels := range []map[string]any{
		{"precision/grant": "x"}, {"precision/mount": "{{task}}"}, {"precision/any": "x"}, {"app.kubernetes.io/managed-by": "x"}, {"kubernetes.io/x": "x"},
		{"a b": "x"}, {"": "x"}, {"team": "a/b"}, {"team": "{{other}}"}, {"{{task}}": "x"}, {"team": strings.Repeat("a", 64)},
	} {
		m.refuses("roles/bad", fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "ttl": "15m", "labels": labels})
		refusals++
	}
	accounts, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).List(ctx, meta.ListOptions{LabelSelector: "precision/role=labelled"})
	if err != nil || len(accounts.Items) != 0 {
		t.Errorf("something was made: %v, %v", accounts, err)
	}
	if found, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).List(ctx, meta.ListOptions{LabelSelector: "precision/grant"}); err != nil || len(found.Items) != 0 {
		t.Errorf("something was bound: %v, %v", found, err)
	}
	figures.Log(t, "%d labels on an account and its binding, %d refused before anything was made", len(want), refusals)
}
