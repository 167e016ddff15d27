package tests

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// tidy runs the sweeper, waits until it is done, and returns what was found at a
// target.
func (m *mount) tidy(target string) map[string]any {
	m.t.Helper()
	before := m.orphans()["at"]
	time.Sleep(time.Second) // times are told in seconds
	answer, err := m.Logical().WriteWithContext(m.t.Context(), m.path+"/tidy", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if answer == nil || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "tidy-status") {
		m.t.Errorf("tidy answers %+v, want a hint at tidy-status", answer)
	}
	var found map[string]any
	eventually(m.t, "the sweeper is done", 20*time.Second, func() bool {
		orphans := m.orphans()
		if orphans["at"] == before {
			return false
		}
		found, _ = orphans["targets"].(map[string]any)[target].(map[string]any)
		return found != nil
	})
	return found
}

func (m *mount) orphans() map[string]any {
	m.t.Helper()
	return m.read("tidy-status").Data["orphans"].(map[string]any)
}

// Of what is under the mount's path, the sweeper ends what bears the mark of this
// mount and this ledger and is no grant, once its own end has passed; and nothing
// else.
func TestTidyEndsOrphans(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onCloud + "/JIRA-1")
	status := m.read("tidy-status").Data
	ledgerID, mountID := status["ledger_id"].(string), status["mount_uuid"].(string)
	users, err := servers.Cloud.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	mark := map[string]string{
		"precision:mount": mountID, "precision:ledger": ledgerID, "precision:grant": oldID(past), "precision:role": onCloud,
		"precision:expires": past.UTC().Format(time.RFC3339),
	}
	for _, user := range users {
		if user.Tags["precision:grant"] == minted.grant() && (user.Tags["precision:ledger"] != ledgerID || user.Tags["precision:expires"] != minted.Data["expires_at"]) {
			t.Errorf("the minted user is marked %v", user.Tags)
		}
	}
	changed := func(tag, value string) map[string]string {
		tags := maps.Clone(mark)
		tags[tag] = value
		return tags
	}
	future := time.Now().Add(time.Hour)
	waiting := changed("precision:expires", future.UTC().Format(time.RFC3339))
	waiting["precision:grant"] = oldID(future)
	endless := changed("precision:expires", "")
	endless["precision:grant"] = oldID(past.Add(-time.Hour))
	made := map[string]map[string]string{
		"orphan": mark, "of-another-ledger": changed("precision:ledger", "another"), "of-another-mount": changed("precision:mount", "another"),
		"without-a-mark": nil, "waiting": waiting, "without-an-end": endless,
	}
	keys := map[string]lab.Key{}
	for name, tags := range made {
		key, err := servers.Cloud.AddUser(t.Context(), lab.User{Name: m.path + "-" + name, Path: "/precision/" + mountID + "/", Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
	}
	left := func() map[string]bool {
		users, err := servers.Cloud.Users(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, user := range users {
			if name, made := strings.CutPrefix(user.Name, m.path+"-"); made {
				names[name] = true
			}
		}
		return names
	}

	servers.Cloud.Refuse("ListUsers")
	refused := m.tidy("prod")
	servers.Cloud.Refuse("")
	if !strings.Contains(fmt.Sprint(refused["problem"]), "iam:ListUsers") || len(left()) != len(made) {
		t.Errorf("without the right to list users the status says %v, and %v are left", refused, left())
	}
	found := m.tidy("prod")
	if got := fmt.Sprintf("%v %v %v %v %d", found["ended"], found["foreign"], found["listed"], found["problem"], len(found["orphans"].([]any))); got != "1 3 true  3" {
		t.Errorf("the status says %v", found)
	}
	for name := range made {
		if left()[name] != (name != "orphan") {
			t.Errorf("user %s is left: %t", name, left()[name])
		}
	}
	for _, orphan := range found["orphans"].([]any) {
		fields := orphan.(map[string]any)
		want := map[string]string{"orphan": "ended", "waiting": "waits for its end", "without-an-end": "its mark states no end"}[strings.TrimPrefix(fields["name"].(string), m.path+"-")]
		if fields["fate"] != want {
			t.Errorf("orphan %v: want fate %q", fields, want)
		}
	}
	denied(t, "the orphan's key", lab.Put(t.Context(), servers.Cloud.S3(keys["orphan"]), "releases", "app/1.tgz"))
	allowed(t, "the live grant", minted.inCloud(t.Context()))
	if grant := m.read("grants/" + oldID(past)).Data; grant["state"] != "revoked" || grant["ending"] != "orphaned" || grant["role"] != onCloud {
		t.Errorf("the ledger says of the orphan %v", grant)
	}
	if store := m.orphans()["targets"].(map[string]any)["store"].(map[string]any); store["listed"] != false {
		t.Errorf("a store's sessions can't be listed, and the status says %v", store)
	}
	if found := m.tidy("prod"); fmt.Sprint(found["ended"]) != "0" {
		t.Errorf("a second run says %v", found)
	}
}

// Grants on a target that was deleted by force are counted, and ended when it is
// there again.
func TestTidyCountsTheUnreachable(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onCloud + "/JIRA-1")
	servers.Cloud.Refuse("DeleteAccessKey")
	err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID))
	servers.Cloud.Refuse("")
	if err == nil {
		t.Error("a revoke succeeded although AWS refused it")
	}
	if _, err := m.Logical().DeleteWithDataWithContext(t.Context(), m.path+"/config/prod", map[string][]string{"force": {"true"}}); err != nil {
		t.Fatal(err)
	}
	m.tidy("store")
	if status := m.read("tidy-status").Data; fmt.Sprint(status["unreachable"]) != "map[prod:1]" {
		t.Errorf("the status says %v", status)
	}
	m.write("config/prod", m.cloudConfig())
	m.tidy("prod")
	if status := m.read("tidy-status").Data; fmt.Sprint(status["unreachable"]) != "map[]" || len(m.users()) != 0 {
		t.Errorf("the status says %v, and users %v are left", status, m.users())
	}
}

func TestTidyConfig(t *testing.T) {
	m := newMount(t)
	expect := func(want string) {
		t.Helper()
		if got := fmt.Sprint(m.read("tidy-config").Data); got != want {
			t.Errorf("tidy-config reads as %s, want %s", got, want)
		}
	}
	expect("map[orphan_interval:3600 retention:2592000]")
	m.write("tidy-config", map[string]any{"retention": "90d"})
	m.write("tidy-config", map[string]any{"orphan_interval": 300})
	expect("map[orphan_interval:300 retention:7776000]")
}
