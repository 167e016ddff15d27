package tests

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// ends writes an end, and demands that it has ended so many.
func (m *mount) ends(want int, filter map[string]any) map[string]any {
	m.t.Helper()
	answer := m.write("end", with(filter, map[string]any{"reason": "a drill"})).Data
	for name, number := range map[string]int{"matched": want, "ended": want, "failed": 0} {
		if got := answer[name].(json.Number).String(); got != fmt.Sprint(number) {
			m.t.Errorf("end %v: %s is %s, want %d: %v", filter, name, got, number, answer)
		}
	}
	return answer
}

// Ends by entity, by target, by time and by task are exact, while others mint.
func TestEndUnderLoad(t *testing.T) {
	const each, callers = 60, 8
	m := newMount(t)
	m.write("config/second", m.storeConfig())
	m.write("roles/second", map[string]any{"target": "second", "action": putObject, "resource": uploads, "ttl": "30m"})
	entity, err := m.Logical().WriteWithContext(t.Context(), "identity/entity", map[string]any{"name": m.path})
	if err != nil {
		t.Fatal(err)
	}
	own := m.callerOf(entity.Data["id"].(string))
	many := func(client *api.Client, path string) []credential {
		var minted []credential
		for range each {
			one, err := m.tryMint(client, path)
			if err != nil {
				t.Fatal(err)
			}
			minted = append(minted, one)
		}
		return minted
	}
	sets := map[string][]credential{
		"entity": many(own, onStore+"/JIRA-1"), "target": many(m.Client, "second/JIRA-1"), "task": many(m.Client, onStore+"/INC-7"), "kept": many(m.Client, onStore+"/JIRA-1"),
	}
	time.Sleep(1100 * time.Millisecond) // a time span is told in whole seconds
	since := time.Now()
	sets["time"] = many(m.Client, onStore+"/JIRA-1")
	until := time.Now()
	time.Sleep(1100 * time.Millisecond)

	stop := make(chan struct{})
	var beside []credential
	var mu sync.Mutex
	var all sync.WaitGroup
	for range callers {
		client := m.caller()
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				secret, err := client.Logical().ReadWithContext(t.Context(), m.path+"/creds/"+onStore+"/JIRA-1")
				if err != nil {
					t.Error(err)
					return
				}
				one, err := readCredential(secret)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				beside = append(beside, one)
				mu.Unlock()
			}
		})
	}
	filters := map[string]map[string]any{
		"entity": {"entity_id": entity.Data["id"]}, "target": {"target": "second"}, "task": {"task": "INC-7"},
		"time": {"since": since.Truncate(time.Second).Format(time.RFC3339), "until": until.Truncate(time.Second).Format(time.RFC3339), "role": onStore},
	}
	ended := map[string]bool{}
	for _, name := range []string{"entity", "target", "task", "time"} {
		m.ends(each, filters[name])
		m.ends(0, filters[name]) // nothing is left of it
		ended[name] = true
		for _, set := range slices.Sorted(maps.Keys(sets)) {
			for i, one := range sets[set] {
				if i%10 != 0 && i != each-1 { // a store takes a while for each
					continue
				}
				if ended[set] {
					denied(t, set+" that was ended", one.inStore(t.Context()))
				} else {
					allowed(t, set+" that was not ended", one.inStore(t.Context()))
				}
			}
		}
	}
	close(stop)
	all.Wait()
	for i, one := range beside {
		if i%20 == 0 {
			allowed(t, "one that was minted meanwhile", one.inStore(t.Context()))
		}
	}
	record := m.read("grants/" + sets["task"][0].grant()).Data
	if record["end_reason"] != "a drill" || record["ending"] != "ended on request" || record["state"] != "revoked" || record["ended_by"] != "root" {
		t.Errorf("the ledger says %v", record)
	}
	figures.Log(t, "4 ends of %d grants each while %d others were minted: all dead, none beside", each, len(beside))
}

// Sessions of one base end with one commit.
func TestEndOfSessionsCommitsOnce(t *testing.T) {
	const sessions = 200
	m, decide := newMount(t), newCourt(t)
	m.sessionRoles()
	var paths []string
	for i := range sessions {
		paths = append(paths, fmt.Sprintf("%s/JIRA-%d", asSession, i%7))
	}
	minted := m.mintMany(paths...)
	at := len(servers.Cloud.Log(0))
	m.ends(sessions, map[string]any{"role": asSession})
	names, _ := named(servers.Cloud.Log(at), "")
	commits := 0
	for _, name := range names {
		if name == "PutRolePolicy" {
			commits++
		}
	}
	figures.Log(t, "%d sessions that were ended by role ended with %d commits", sessions, commits)
	if commits > 1 {
		t.Errorf("%d commits, want one: %v", commits, names)
	}
	decide.expect(judge.ExplicitlyDenied, "sessions that were ended", minted...)
	m.others()
}

// An end that a plugin's death interrupts is finished after it.
func TestEndOutlivesThePlugin(t *testing.T) {
	const users = 150
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	aws := newFakeUsers(t)
	m.write("config/prod", with(m.cloudConfig(), map[string]any{"iam_endpoint": aws.url, "sts_endpoint": aws.url}))
	m.write("roles/"+onCloud, map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "1h"})
	for range users {
		if _, err := m.Logical().ReadWithContext(t.Context(), m.path+"/creds/"+onCloud+"/INC-7"); err != nil {
			t.Fatal(err)
		}
	}
	aws.throttle(20) // which takes a while
	if answer := m.write("end", map[string]any{"task": "INC-7", "reason": "a drill"}).Data; answer["running"] != true {
		t.Fatalf("it is done already: %v", answer)
	}
	if there, _ := aws.left(); there == 0 {
		t.Fatal("nothing is left to interrupt")
	}
	killPlugin(t)
	aws.throttle(0)
	m.read("end-status") // the plugin starts with the next request
	eventually(t, "every user is gone", 2*time.Minute, func() bool {
		time.Sleep(200 * time.Millisecond)
		there, _ := aws.left()
		return there == 0
	})
	eventually(t, "the end is said to be done", time.Minute, func() bool {
		time.Sleep(200 * time.Millisecond)
		end := m.read("end-status").Data["ends"].([]any)[0].(map[string]any)
		return end["running"] == false && end["matched"] == json.Number(fmt.Sprint(users))
	})
}
