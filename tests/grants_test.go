package tests

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// readGrants reads a path of the ledger with filters: "role=upload".
func (m *mount) readGrants(path string, filters ...string) map[string]any {
	m.t.Helper()
	query := map[string][]string{}
	for _, filter := range filters {
		name, value, _ := strings.Cut(filter, "=")
		query[name] = []string{value}
	}
	secret, err := m.Logical().ReadWithDataWithContext(m.t.Context(), m.path+"/"+path, query)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret.Data
}

// idsOf are the ids of the grants that a read answered.
func idsOf(answer map[string]any) []string {
	ids := []string{}
	for _, grant := range answer["grants"].([]any) {
		ids = append(ids, grant.(map[string]any)["id"].(string))
	}
	return ids
}

// idsIn are the ids of grants, newest first, as answers have them.
func idsIn(minted ...credential) []string {
	ids := []string{}
	for _, one := range minted {
		ids = append(ids, one.grant())
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids
}

// rawList lists with parameters, as only HTTP can.
func (m *mount) rawList(path, query string) (keys []string, next, body string) {
	m.t.Helper()
	parameters, err := url.ParseQuery(query)
	if err != nil {
		m.t.Fatal(err)
	}
	parameters.Set("list", "true")
	answer, err := m.Logical().ReadRawWithDataWithContext(m.t.Context(), m.path+"/"+path, parameters)
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Body.Close()
	var decoded struct {
		Data struct {
			Keys []string
			Next string
			Info map[string]map[string]any `json:"key_info"`
		}
	}
	var raw json.RawMessage
	if err := answer.DecodeJSON(&raw); err != nil {
		m.t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &decoded); err != nil {
		m.t.Fatal(err)
	}
	if len(decoded.Data.Info) != len(decoded.Data.Keys) {
		m.t.Errorf("%s lists %d keys with information on %d", path, len(decoded.Data.Keys), len(decoded.Data.Info))
	}
	return decoded.Data.Keys, decoded.Data.Next, string(raw)
}

// The ledger tells every grant by role, task, entity and target, to those who
// list and to those who read; what has ended, too; and never a secret.
func TestGrants(t *testing.T) {
	m := newMount(t)
	entity, err := m.Logical().WriteWithContext(t.Context(), "identity/entity", map[string]any{"name": m.path})
	if err != nil {
		t.Fatal(err)
	}
	entityID := entity.Data["id"].(string)
	caller := m.callerOf(entityID)
	session, user := m.mint(onStore+"/JIRA-1"), m.mint(onCloud+"/JIRA-1")
	own, err := m.tryMint(caller, onCloud+"/JIRA-2")
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder // all that the ledger answers
	for path, want := range map[string][]string{
		"grants": idsIn(session, user, own), "grants/by-role/" + onCloud: idsIn(user, own), "grants/by-task/JIRA-1": idsIn(session, user),
		"grants/by-entity/" + entityID: idsIn(own), "grants/by-target/store": idsIn(session),
	} {
		answer := m.readGrants(path)
		fmt.Fprintln(&shown, answer)
		if got := idsOf(answer); !slices.Equal(got, want) {
			t.Errorf("%s reads as %v, want %v", path, got, want)
		}
		keys, _, body := m.rawList(path, "")
		fmt.Fprintln(&shown, body)
		if !slices.Equal(keys, want) {
			t.Errorf("%s lists as %v, want %v", path, keys, want)
		}
		output, err := servers.Vault.Command(t.Context(), "list", "-detailed", m.path+"/"+path).CombinedOutput()
		fmt.Fprintln(&shown, string(output))
		for _, part := range slices.Concat(want, []string{"active", putObject, uploads}) {
			if err != nil || !strings.Contains(string(output), part) {
				t.Errorf("vault list -detailed %s does not say %q: %v\n%s", path, part, err, output)
			}
		}
	}

	one := m.read("grants/" + own.grant()).Data
	fmt.Fprintln(&shown, one)
	self, err := caller.Auth().Token().LookupSelfWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{
		"state": "active", "role": onCloud, "task": "JIRA-2", "target": "prod", "action": putObject, "resource": uploads,
		"entity_id": entityID, "entity_name": m.path, "display_name": self.Data["display_name"], "token_accessor": self.Data["accessor"],
		"expires_at": own.Data["expires_at"], "lease_prefix": m.path + "/creds/" + onCloud + "/JIRA-2", "ending": "", "ended_at": "",
	} {
		if one[field] != want {
			t.Errorf("%s is %v, want %v", field, one[field], want)
		}
	}
	if handle := one["handle"].(map[string]any); !strings.Contains(fmt.Sprint(handle["user_name"]), own.grant()) || handle["access_key_id"] != own.key.Access {
		t.Errorf("the handle %v does not find the user in AWS's log", handle)
	}

	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(session.LeaseID)); err != nil {
		t.Fatal(err)
	}
	if got := idsOf(m.readGrants("grants")); !slices.Equal(got, idsIn(user, own)) {
		t.Errorf("grants reads as %v after a revoke, want %v", got, idsIn(user, own))
	}
	ended := m.readGrants("grants/by-target/store", "since=1h")
	fmt.Fprintln(&shown, ended)
	if got := idsOf(ended); !slices.Equal(got, idsIn(session)) {
		t.Errorf("the store's grants of the last hour are %v, want %v", got, idsIn(session))
	}
	if grant := ended["grants"].([]any)[0].(map[string]any); grant["state"] != "revoked" || grant["ending"] != "lease revoked" || grant["ended_at"] == "" {
		t.Errorf("the revoked grant reads as %v", grant)
	}
	for _, minted := range []credential{session, user, own} {
		for _, secret := range []string{minted.key.Secret, minted.key.Token} {
			if secret != "" && strings.Contains(shown.String(), secret) {
				t.Error("the ledger shows a secret")
			}
		}
	}
	if text := m.read("tidy-status").Data; strings.Contains(fmt.Sprint(text), user.key.Secret) {
		t.Error("tidy-status shows a secret")
	}
}

// Lists and reads go on where the last answer says.
func TestGrantsArePaged(t *testing.T) {
	m := newMount(t)
	var all []credential
	for i := range 7 {
		all = append(all, m.mint(fmt.Sprintf("%s/JIRA-%d", onStore, i)))
	}
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(all[3].LeaseID)); err != nil {
		t.Fatal(err)
	}
	var listed, read []string
	for after, pages := "", 0; pages < 20; pages++ {
		keys, next, _ := m.rawList("grants", "state=all&limit=3&after="+after)
		listed = append(listed, keys...)
		if after = next; next == "" {
			break
		}
	}
	for after, pages := "", 0; pages < 20; pages++ {
		answer := m.readGrants("grants/by-role/"+onStore, "state=all", "limit=2", "after="+after)
		read = append(read, idsOf(answer)...)
		if after, _ = answer["next"].(string); after == "" {
			break
		}
	}
	for how, got := range map[string][]string{"lists": listed, "reads": read} {
		if !slices.Equal(got, idsIn(all...)) {
			t.Errorf("the %s hold %v, want %v", how, got, idsIn(all...))
		}
	}
	output, err := servers.Vault.Command(t.Context(), "read", m.path+"/grants", "limit=1").CombinedOutput()
	if err != nil || !strings.Contains(string(output), "after=") {
		t.Errorf("a page does not say where to go on: %v\n%s", err, output)
	}
}

// revokePrefixes does what the ledger says ends the grants that it was asked for.
func (m *mount) revokePrefixes(answer map[string]any, live int) {
	m.t.Helper()
	if got := fmt.Sprintf("%v %v", answer["live"], answer["not_covered"]); got != fmt.Sprintf("%d 0", live) {
		m.t.Errorf("live and not covered are %s, want %d and 0", got, live)
	}
	for _, prefix := range answer["lease_prefixes"].([]any) {
		if err := m.Sys().RevokeWithOptionsWithContext(m.t.Context(), &api.RevokeOptions{LeaseID: prefix.(string), Prefix: true, Sync: true}); err != nil {
			m.t.Fatal(err)
		}
	}
}

// The lease prefixes that the ledger names end what they are to end, at the
// targets, and nothing beside it.
func TestLeasePrefixesRevoke(t *testing.T) {
	m := newMount(t)
	ctx := t.Context()
	task, onBoth := m.mint(onStore+"/INC-1"), m.mint(onCloud+"/INC-1")
	beside, without := m.mint(onStore+"/INC-11"), m.mint(onStore)
	user := m.mint(onCloud + "/INC-2")
	m.revokePrefixes(m.readGrants("grants/by-task/INC-1"), 2)
	denied(t, "a session of the task", task.inStore(ctx))
	denied(t, "a user of the task", onBoth.inCloud(ctx))
	allowed(t, "a session of another task", beside.inStore(ctx))
	allowed(t, "a session without a task", without.inStore(ctx))
	m.revokePrefixes(m.readGrants("grants/by-target/store"), 2)
	denied(t, "another session on the target", beside.inStore(ctx))
	denied(t, "a session on the target without a task", without.inStore(ctx))
	allowed(t, "a user on another target", user.inCloud(ctx))
	m.revokePrefixes(m.readGrants("grants/by-role/"+onCloud), 1)
	denied(t, "a user of the role", user.inCloud(ctx))
	if left := idsOf(m.readGrants("grants")); len(left) != 0 {
		t.Errorf("grants %v are left", left)
	}
}

// What an entity holds is ended by its prefixes, and nothing of another caller.
func TestLeasePrefixesOfAnEntity(t *testing.T) {
	m := newMount(t)
	entity, err := m.Logical().WriteWithContext(t.Context(), "identity/entity", map[string]any{"name": m.path})
	if err != nil {
		t.Fatal(err)
	}
	own, err := m.tryMint(m.callerOf(entity.Data["id"].(string)), onStore+"/INC-3")
	if err != nil {
		t.Fatal(err)
	}
	other := m.mint(onStore + "/INC-4")
	m.revokePrefixes(m.readGrants("grants/by-entity/"+entity.Data["id"].(string)), 1)
	denied(t, "the entity's session", own.inStore(t.Context()))
	allowed(t, "another caller's session", other.inStore(t.Context()))
}

// What a role narrows a grant to is in the ledger.
func TestAGrantSaysWhatItIsNarrowedTo(t *testing.T) {
	m := newMount(t)
	m.write("roles/narrow", map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "bound_source_ip": true,
		"conditions": map[string]any{"Bool": map[string]any{"aws:SecureTransport": true}},
	})
	one := m.read("grants/" + m.mint("narrow/JIRA-1").grant()).Data
	if got := fmt.Sprintf("%v %v", one["conditions"], one["source_ip"]); got != "map[Bool:map[aws:SecureTransport:[true]]] 127.0.0.1" {
		t.Errorf("the grant says %s", got)
	}
}

// Bad questions have status 400 and say what would be right.
func TestBadGrantQuestions(t *testing.T) {
	m := newMount(t)
	for query, says := range map[string]string{
		"grants?role=a b": "letters", "grants?rolle=x": "role", "grants?limit=0": "10000", "grants?limit=x": "digits", "grants?state=dead": "revoked",
		"grants?since=soon": "2h", "grants?after=x": "next", "grants/by-task/a..b?": "letters", "grants/none?": "grant_id", "tidy-status?x=y": "x",
	} {
		path, parameters, _ := strings.Cut(query, "?")
		name, value, _ := strings.Cut(parameters, "=")
		data := map[string][]string{name: {value}}
		maps.DeleteFunc(data, func(name string, _ []string) bool { return name == "" })
		_, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/"+path, data)
		if text := refusal(t, err); !strings.Contains(text, says) {
			t.Errorf("%s: %q does not say %q", query, text, says)
		}
	}
	answer, err := m.Logical().ReadRawWithContext(t.Context(), m.path+"/grants/"+oldID(time.Now()))
	if answer == nil || answer.StatusCode != http.StatusNotFound {
		t.Errorf("a grant that does not exist: %v", err)
	}
}

// oldID is the id of a grant that no ledger knows, and that had its latest end
// then, to ten minutes.
func oldID(end time.Time) string { return fmt.Sprintf("%08x", end.Unix()/600) + "abcdefghijklmnop" }
