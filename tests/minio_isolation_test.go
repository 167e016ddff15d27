package tests

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/minio"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const others = "arn:aws:s3:::releases/other/*"

// isolating is a mount with a target that isolates roles, and two of them.
func isolating(t *testing.T) *mount {
	t.Helper()
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	m.write("config/store", m.isolatingConfig(servers.Store.Isolating))
	m.write("roles/uploads", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m"})
	m.write("roles/other", map[string]any{"target": "store", "action": putObject, "resource": others, "ttl": "10m"})
	return m
}

func (m *mount) isolatingConfig(engine lab.Key) map[string]any {
	return with(m.storeConfig(), map[string]any{"access_key": engine.Access, "secret_key": engine.Secret, "isolate_roles": true})
}

// parentOf is the user that a session is of, and what the store says that it may do.
func parentOf(t *testing.T, session credential) (name, policy string) {
	t.Helper()
	status, answer, err := servers.Store.Admin(t.Context(), session.key, http.MethodGet, "accountinfo", nil, nil)
	if err != nil || status != http.StatusOK {
		t.Fatalf("the account's information: %d %s %v", status, answer, err)
	}
	var account struct {
		AccountName string
		Policy      json.RawMessage
	}
	if err := json.Unmarshal([]byte(answer), &account); err != nil {
		t.Fatal(err)
	}
	return account.AccountName, string(account.Policy)
}

func atStore(t *testing.T, parent string) []string {
	t.Helper()
	there, err := servers.Store.Named(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	return there
}

func (m *mount) remove(path string) {
	m.t.Helper()
	if _, err := m.Logical().DeleteWithContext(m.t.Context(), m.path+"/"+path); err != nil {
		m.t.Fatal(err)
	}
}

func (c credential) inOther(ctx context.Context) error { return c.inStoreAs(ctx, "other/1.tgz") }

// A session may end those of its user; and where roles are isolated, those are of
// its own role.
func TestIsolatedSessionEndsItsOwnRolesOnly(t *testing.T) {
	m := isolating(t)
	attacker, sibling := m.mint("uploads/JIRA-1"), m.mint("uploads/JIRA-2")
	apart, again := m.mint("other/JIRA-1"), m.mint("other/JIRA-2")
	allowed(t, "a session of the role", sibling.inStore(t.Context()))
	allowed(t, "a session of another role", apart.inOther(t.Context()))
	own, _ := parentOf(t, attacker)
	second, _ := parentOf(t, apart)
	if own == second || own == servers.Store.Isolating.Access {
		t.Fatalf("sessions of two roles are of the users %s and %s", own, second)
	}

	end := func(query url.Values) int {
		status, _, err := servers.Store.Admin(t.Context(), attacker.key, http.MethodPost, "revoke-tokens/builtin", query, nil)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	for _, user := range []string{second, servers.Store.Isolating.Access} {
		if status := end(url.Values{"user": {user}, "fullRevoke": {"true"}}); status != http.StatusForbidden {
			t.Errorf("ending the sessions of %s: status %d", user, status)
		}
	}
	if status := end(url.Values{"fullRevoke": {"true"}}); status/100 != 2 {
		t.Errorf("ending its own user's sessions: status %d: there would be nothing to isolate", status)
	}
	denied(t, "a session of the same role", sibling.inStore(t.Context()))
	denied(t, "the session itself", attacker.inStore(t.Context()))
	allowed(t, "a session of another role", apart.inOther(t.Context()))
	allowed(t, "another session of another role", again.inOther(t.Context()))
	allowed(t, "a new session of the role", m.mint("uploads/JIRA-3").inStore(t.Context()))
}

// What a session is shown of its user is no more than its role's, and its user is
// told nothing of others.
func TestIsolatedSessionIsShownItsRoleOnly(t *testing.T) {
	m := isolating(t)
	m.write("roles/object", map[string]any{"target": "store", "action": "s3:GetObject", "resource": "arn:aws:s3:::releases/app/there", "ttl": "10m"})
	m.write("roles/bucket", map[string]any{"target": "store", "action": "s3:ListBucket", "resource": "arn:aws:s3:::releases", "ttl": "10m"})
	for role, want := range map[string]string{
		"uploads": `[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::releases/app/*"]},`,
		"object":  `[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::releases/app/there"]},`,
		"bucket":  `[{"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::releases"]},`,
	} {
		_, policy := parentOf(t, m.mint(role+"/JIRA-1"))
		if !strings.Contains(policy, want) || strings.Count(policy, "Allow") != 1 {
			t.Errorf("%s: the session is shown %s", role, policy)
		}
	}
}

// The users go with the last role and the last grant that need them.
func TestIsolatedRolesLeaveNoUsers(t *testing.T) {
	m := isolating(t)
	m.write("roles/same", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "5m"})
	m.write("roles/slot", map[string]any{"target": "store", "action": putObject, "resource": "arn:aws:s3:::releases/{{app}}/*", "ttl": "10m", "parameters": map[string]any{"app": "[a-z]+"}})
	minted := m.mint("uploads/JIRA-1")
	filled := m.mint("slot/JIRA-1", "app=tool")
	parent, _ := parentOf(t, minted)
	slot, _ := parentOf(t, filled)
	if same, _ := parentOf(t, m.mint("same/JIRA-1")); same != parent {
		t.Errorf("two roles of one scope have the users %s and %s", same, parent)
	}
	if slot == parent {
		t.Errorf("two values of a parameter share the user %s", slot)
	}
	m.remove("roles/uploads")
	if got := atStore(t, parent); len(got) != 2 {
		t.Errorf("of the user that a role needs there is %v", got)
	}
	for _, role := range []string{"uploads", "same", "slot"} {
		m.revokePrefix("/" + role)
	}
	denied(t, "a revoked session", minted.inStore(t.Context()))
	m.remove("roles/same")
	m.remove("roles/slot")
	for _, user := range []string{parent, slot} {
		eventually(t, "the user is gone", 30*time.Second, func() bool {
			m.write("tidy", nil)
			return len(atStore(t, user)) == 0
		})
	}
}

// Somebody has removed the user, or its secret is another since the engine's is: the
// next mint makes it anew.
func TestIsolatedRoleIsMadeAnew(t *testing.T) {
	m := isolating(t)
	engine, err := servers.Store.AddIsolating(t.Context(), "anew", "secret-of-the-first", lab.IsolatingRights...)
	if err != nil {
		t.Fatal(err)
	}
	m.write("config/anew", m.isolatingConfig(engine))
	m.write("roles/anew", map[string]any{"target": "anew", "action": putObject, "resource": uploads, "ttl": "10m"})
	before := m.mint("anew/JIRA-1")
	parent, _ := parentOf(t, before)
	if status, answer, err := servers.Store.Admin(t.Context(), servers.Store.Root, http.MethodDelete, "remove-user", url.Values{"accessKey": {parent}}, nil); err != nil || status != http.StatusOK {
		t.Fatalf("removing the user: %d %s %v", status, answer, err)
	}
	denied(t, "a session whose user is gone", before.inStore(t.Context()))
	m.revokeLease(before.LeaseID)
	kept := m.mint("anew/JIRA-2")
	allowed(t, "a session of the user that was made anew", kept.inStore(t.Context()))
	denied(t, "the session from before", before.inStore(t.Context()))

	if engine, err = servers.Store.AddIsolating(t.Context(), "anew", "secret-of-the-second", lab.IsolatingRights...); err != nil {
		t.Fatal(err)
	}
	m.write("config/anew", m.isolatingConfig(engine))
	allowed(t, "a session by the new secret", m.mint("anew/JIRA-3").inStore(t.Context()))
	m.revokeLease(kept.LeaseID)
	denied(t, "a session from before the new secret", kept.inStore(t.Context()))

	// Without isolation, what hung on the user is still ended, and the user removed.
	last := m.mint("anew/JIRA-4")
	m.write("config/anew", with(m.isolatingConfig(engine), map[string]any{"isolate_roles": false}))
	m.revokePrefix("/anew")
	denied(t, "a session from before roles were no more isolated", last.inStore(t.Context()))
	eventually(t, "the user is gone", 30*time.Second, func() bool {
		m.write("tidy", nil)
		return len(atStore(t, parent)) == 0
	})
}

// Who has given the user more is told, and not the session's holder.
func TestIsolatedUserOfAGroupIsRefused(t *testing.T) {
	m := isolating(t)
	parent, _ := parentOf(t, m.mint("uploads/JIRA-1"))
	root := func(method, call string, query url.Values, content string) {
		if status, answer, err := servers.Store.Admin(t.Context(), servers.Store.Root, method, call, query, []byte(content)); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s %v", call, status, answer, err)
		}
	}
	members := func(remove string) string {
		return `{"group":"everybody","members":["` + parent + `"],"isRemove":` + remove + `}`
	}
	root(http.MethodPut, "update-group-members", nil, members("false"))
	root(http.MethodPut, "set-user-or-group-policy", url.Values{"policyName": {"readwrite"}, "userOrGroup": {"everybody"}, "isGroup": {"true"}}, "")
	text := refusal(t, m.tryWrite("roles/uploads", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m"}))
	if !strings.Contains(text, parent) || !strings.Contains(text, "group") {
		t.Errorf("the refusal says %s", text)
	}
	root(http.MethodPut, "update-group-members", nil, members("true"))
	m.write("roles/uploads", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m"})
}

// Each right that isolation needs is asked for by name, and trying them leaves nothing.
func TestIsolationNeedsItsRights(t *testing.T) {
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	if !slices.Equal(minio.Rights(), lab.IsolatingRights) {
		t.Errorf("the engine says that it needs %v", minio.Rights())
	}
	for at, lacking := range lab.IsolatingRights {
		engine, err := servers.Store.AddIsolating(t.Context(), "lacking", "secret-of-lacking", slices.Delete(slices.Clone(lab.IsolatingRights), at, at+1)...)
		if err != nil {
			t.Fatal(err)
		}
		text := refusal(t, m.tryWrite("config/store", m.isolatingConfig(engine)))
		if !strings.Contains(text, "isolate_roles needs "+lacking+",") || !strings.Contains(text, "give it admin:DeletePolicy, ") {
			t.Errorf("without %s the refusal says %s", lacking, text)
		}
	}
	if warnings := m.write("config/store", m.isolatingConfig(servers.Store.Isolating)); warnings != nil && len(warnings.Warnings) > 0 {
		t.Errorf("the least rights are warned of: %v", warnings.Warnings)
	}
	answer := m.write("config/root", m.isolatingConfig(servers.Store.Root))
	if answer == nil || !strings.Contains(strings.Join(answer.Warnings, " "), "beyond what isolate_roles needs") {
		t.Errorf("an administrator is not warned of: %v", answer)
	}
}
