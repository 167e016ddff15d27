package tests

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

const limitCallers = 64

// readTogether has many callers, of one token, read credentials of a path at once.
func (m *mount) readTogether(client *api.Client, path string, parameters map[string][]string) (minted []credential, refusals []error) {
	m.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	start := make(chan struct{})
	for range limitCallers {
		all.Go(func() {
			<-start
			secret, err := client.Logical().ReadWithDataWithContext(m.t.Context(), m.path+"/creds/"+path, parameters)
			var read credential
			if err == nil {
				read, err = readCredential(secret)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refusals = append(refusals, err)
			} else {
				minted = append(minted, read)
			}
		})
	}
	close(start)
	all.Wait()
	return minted, refusals
}

// inStoreOf counts the sessions that work at the store.
func inStoreOf(t *testing.T, minted []credential) int {
	t.Helper()
	live := 0
	for _, session := range minted {
		switch err := session.inStore(t.Context()); {
		case err == nil:
			live++
		case !refused(err):
			t.Errorf("a session neither works nor is refused: %v", err)
		}
	}
	return live
}

// No two of 64 callers get the last slot, and where the oldest gives way, no more
// live at the store than may.
func TestTasksLimits(t *testing.T) {
	m := newMount(t)
	role := map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m", "require_task": true}
	for _, test := range []struct {
		name    string
		changes map[string]any
		live    int
		all     bool // are answered
	}{
		{"one", map[string]any{"max_active": 1}, 1, false},
		{"five", map[string]any{"max_active": 5}, 5, false},
		{"three-per-task", map[string]any{"max_active_per_task": 3}, 3, false},
		{"replaced", map[string]any{"max_active": 3, "on_limit": "replace"}, 3, true},
		{"replaced-per-task", map[string]any{"max_active": 9, "max_active_per_task": 1, "on_limit": "replace"}, 1, true},
	} {
		m.write("roles/"+test.name, with(role, test.changes))
		minted, refusals := m.readTogether(m.Client, test.name+"/JIRA-1", nil)
		if want := len(minted) == limitCallers; want != test.all || (!test.all && len(minted) != test.live) {
			t.Errorf("%s: %d of %d were given a credential", test.name, len(minted), limitCallers)
		}
		for _, err := range refusals {
			says(t, forbidden(t, err), "live grants", "max_active")
		}
		live := inStoreOf(t, minted)
		if known := m.read("grants/by-role/" + test.name).Data["live"]; live != test.live || number(known) != test.live {
			t.Errorf("%s: %d sessions live at the store and %v in the ledger, want %d", test.name, live, known, test.live)
		}
		figures.Log(t, "%s: callers at once: %d; given a credential: %d; refused: %d; live at the store: %d", test.name, limitCallers, len(minted), len(refusals), live)
	}

	// Another task has room, and none has where the role is full.
	m.write("roles/both", with(role, map[string]any{"max_active": 2, "max_active_per_task": 1}))
	first := m.mint("both/JIRA-1")
	m.mint("both/JIRA-2")
	_, err := m.tryMint(m.Client, "both/JIRA-1")
	says(t, forbidden(t, err), "max_active_per_task is 1")
	_, err = m.tryMint(m.Client, "both/JIRA-3")
	says(t, forbidden(t, err), "max_active is 2")
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(first.LeaseID)); err != nil {
		t.Fatal(err)
	}
	m.mint("both/JIRA-3")
	_, err = m.tryMint(m.Client, "both")
	says(t, refusal(t, err), "invalid task: missing")
}

// number is a number of an answer, or -1.
func number(value any) int {
	n, is := value.(interface{ Int64() (int64, error) })
	if !is {
		return -1
	}
	whole, err := n.Int64()
	if err != nil {
		return -1
	}
	return int(whole)
}

// Limits hold when the plugin was killed: what lived then counts, and gives way,
// even where the store was started anew as well.
func TestTasksLimitsAfterTheirPluginWasKilled(t *testing.T) {
	m := newMount(t)
	role := map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m", "max_active": 1}
	m.write("roles/one", role)
	m.write("roles/replaced", with(role, map[string]any{"on_limit": "replace"}))
	kept, replaced := m.mint("one/JIRA-1"), m.mint("replaced/JIRA-1")
	killPlugin(t)
	if err := servers.Store.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	minted, refusals := m.readTogether(m.Client, "one/JIRA-2", nil)
	if len(minted) != 0 {
		t.Errorf("%d credentials beyond the limit after a restart", len(minted))
	}
	for _, err := range refusals {
		says(t, forbidden(t, err), "max_active is 1")
	}
	allowed(t, "the session that fills the limit", kept.inStore(t.Context()))
	newer := m.mint("replaced/JIRA-2")
	denied(t, "the session that gave way, which the store had not loaded again", replaced.inStore(t.Context()))
	allowed(t, "the one that replaced it", newer.inStore(t.Context()))
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: m.path + "/creds", Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	for _, session := range []credential{kept, replaced, newer} {
		denied(t, "a session after the revoke", session.inStore(t.Context()))
	}
}

// A user in AWS is deleted before the next is made.
func TestTasksReplaceOnACloud(t *testing.T) {
	m := newMount(t)
	m.write("roles/replaced", map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "10m", "max_active": 1, "on_limit": "replace"})
	first := m.mint("replaced/JIRA-1")
	second := m.mint("replaced/JIRA-2")
	denied(t, "the user that gave way", first.inCloud(t.Context()))
	allowed(t, "the user that replaced it", second.inCloud(t.Context()))
	if users := m.users(); len(users) != 1 {
		t.Errorf("users %v, want one", users)
	}
	grant := m.read("grants/" + first.grant()).Data
	if grant["state"] != "revoked" || grant["ending"] != "replaced" {
		t.Errorf("the ledger says %v, %v", grant["state"], grant["ending"])
	}
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(first.LeaseID)); err != nil {
		t.Errorf("its lease can't be revoked: %v", err)
	}
	allowed(t, "the other, after that", second.inCloud(t.Context()))
}

// entity makes an entity, and returns its id.
func (m *mount) entity(name string) string {
	m.t.Helper()
	return m.identity("identity/entity", map[string]any{"name": m.path + "-" + name})
}

// groupWith makes a group that has these fields, and returns its id.
func (m *mount) groupWith(name string, fields map[string]any) string {
	m.t.Helper()
	return m.identity("identity/group", with(fields, map[string]any{"name": m.path + "-" + name}))
}

func (m *mount) identity(path string, fields map[string]any) string {
	m.t.Helper()
	secret, err := m.Logical().WriteWithContext(m.t.Context(), path, fields)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret.Data["id"].(string)
}

// A role is read by whom it is bound to: Vault's policy lets all of these read it.
func TestTasksCallers(t *testing.T) {
	m := newMount(t)
	alice := m.entity("alice")
	direct := m.groupWith("direct", map[string]any{"member_entity_ids": alice})
	above := m.groupWith("above", map[string]any{"member_group_ids": direct})
	empty := m.groupWith("empty", map[string]any{})
	hers, nobodys := m.callerOf(alice), m.caller()
	role := map[string]any{"target": "store", "action": putObject, "resource": uploads}
	for name, test := range map[string]struct {
		bound         map[string]any
		alice, nobody bool
	}{
		"no-bounds":       {nil, true, true},
		"her-entity":      {map[string]any{"bound_entity_ids": alice}, true, false},
		"another-entity":  {map[string]any{"bound_entity_ids": direct}, false, false},
		"her-group":       {map[string]any{"bound_group_ids": []string{empty, direct}}, true, false},
		"group-above":     {map[string]any{"bound_group_ids": above}, true, false},
		"other-group":     {map[string]any{"bound_group_ids": empty}, false, false},
		"entity-no-group": {map[string]any{"bound_entity_ids": alice, "bound_group_ids": empty}, false, false},
		"loopback":        {map[string]any{"bound_cidrs": "127.0.0.0/8,::1"}, true, true},
		"elsewhere":       {map[string]any{"bound_cidrs": "10.0.0.0/8"}, false, false},
		"her-not-here":    {map[string]any{"bound_entity_ids": alice, "bound_cidrs": "10.0.0.0/8"}, false, false},
	} {
		m.write("roles/"+name, with(role, test.bound))
		for who, caller := range map[string]struct {
			client *api.Client
			may    bool
		}{"alice": {hers, test.alice}, "nobody": {nobodys, test.nobody}} {
			_, err := m.tryMint(caller.client, name+"/JIRA-1")
			switch {
			case caller.may && err != nil:
				t.Errorf("%s: %s is refused: %v", name, who, err)
			case !caller.may && err == nil:
				t.Errorf("%s: %s is admitted", name, who)
			case !caller.may:
				forbidden(t, err)
			}
		}
	}
	// Out of the group, and out of the role.
	if _, err := m.Logical().WriteWithContext(t.Context(), "identity/group/id/"+direct, map[string]any{"member_entity_ids": []string{}}); err != nil {
		t.Fatal(err)
	}
	_, err := m.tryMint(hers, "group-above/JIRA-1")
	says(t, forbidden(t, err), "groups")
	// A header does not say where a request comes from.
	hers.AddHeader("X-Forwarded-For", "10.1.2.3")
	_, err = m.tryMint(hers, "elsewhere/JIRA-1")
	says(t, forbidden(t, err), "127.0.0.1")
}

// No task that a pattern does not match as a whole gets a credential.
func TestTasksHostile(t *testing.T) {
	m := newMount(t)
	m.write("roles/matched", map[string]any{"target": "store", "action": putObject, "resource": uploads, "task_pattern": "JIRA-[0-9]+|INC-[0-9]+"})
	tried := 0
	for _, value := range append(hostile(), "JIRA-", "JIRA-1x", "xJIRA-1", "jira-1", "JIRA-1|INC-1", "JIRA-1.INC-1", "JIRA-1\n", "JIRA-١", "INC") {
		if len(value) > 4000 {
			continue // no URL is so long
		}
		tried++
		secret, err := m.Logical().ReadWithContext(t.Context(), m.path+"/creds/matched/"+value)
		var answer *api.ResponseError
		fault := errors.As(err, &answer) && answer.StatusCode >= http.StatusInternalServerError
		if secret != nil || (fault && utf8.ValidString(value)) { // the connection to a plugin takes no other text
			t.Errorf("%q: %v, %v", value, secret, err)
		}
	}
	if live := m.read("grants").Data["live"]; number(live) != 0 {
		t.Errorf("%v credentials were minted", live)
	}
	m.mint("matched/JIRA-1")
	m.mint("matched/INC-22")
	_, err := m.tryMint(m.Client, "matched")
	says(t, refusal(t, err), "invalid task: missing")
	for name, values := range map[string][]string{
		"window": hostile(), "window_timezone": hostile(), "not_before": hostile(), "not_after": hostile(), "on_limit": hostile(),
		"bound_cidrs": hostile(), "bound_entity_ids": hostile(), "bound_group_ids": hostile(), "max_active": hostile(), "max_active_per_task": hostile(), "require_task": hostile(), "window_duration": hostile(),
	} {
		for _, value := range values {
			if len(value) > 4000 {
				continue
			}
			tried++
			refusal(t, m.tryWrite("roles/hostile", with(map[string]any{"target": "store", "action": putObject, "resource": uploads, "window": "0 22 * * 5", "window_duration": "4h"}, map[string]any{name: value})))
		}
	}
	figures.Log(t, "hostile tasks and rules refused: %d", tried)
}

// What the store has to be told by name is ended even where no lease tells the plugin,
// which was started anew, as was the store: by a role that replaces since then, and by
// end. Neither calls what lives dead.
func TestSessionsAreEndedWithoutTheirLeases(t *testing.T) {
	m := newMount(t)
	role := map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m", "max_active": 1}
	m.write("roles/replaced", role)
	m.write("roles/ended", role)
	replaced, ended := m.mint("replaced/JIRA-1"), m.mint("ended/JIRA-1")
	killPlugin(t)
	if err := servers.Store.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.write("roles/replaced", with(role, map[string]any{"on_limit": "replace"}))
	m.mint("replaced/JIRA-2")
	denied(t, "the session that gave way", replaced.inStore(t.Context()))
	if answer := m.write("end", map[string]any{"role": "ended", "reason": "a drill"}).Data; number(answer["ended"]) != 1 {
		t.Errorf("end answers %v", answer)
	}
	denied(t, "the session that was ended", ended.inStore(t.Context()))
}
