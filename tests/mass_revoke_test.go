package tests

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Fifteen hundred users are revoked by one prefix, while AWS serves a tenth of what is
// asked: what kills goes first, little is asked in vain, and no lease is given up.
func TestAMassRevokeKillsFirst(t *testing.T) {
	const users, rate = 1500, 120 // less than a busy machine revokes
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	aws := newFakeUsers(t)
	m.write("config/prod", with(m.cloudConfig(), map[string]any{"iam_endpoint": aws.url, "sts_endpoint": aws.url}))
	m.write("roles/"+onCloud, map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "1h"})
	var left atomic.Int64
	left.Store(users)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := m.Logical().ReadWithContext(t.Context(), m.path+"/creds/"+onCloud+"/INC-7"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if made, alive := aws.left(); made != users || alive != users {
		t.Fatalf("%d users, %d with a key, want %d", made, alive, users)
	}

	aws.throttle(rate)
	started := time.Now()
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: m.path + "/creds/" + onCloud + "/INC-7", Prefix: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every user is gone", 8*time.Minute, func() bool {
		time.Sleep(500 * time.Millisecond)
		there, _ := aws.left()
		return there == 0
	})
	aws.mu.Lock()
	kills, whole := aws.lastKill.Sub(started), aws.lastTidy.Sub(started)
	calls, throttled := aws.calls, aws.throttled
	aws.mu.Unlock()
	ratio, share := float64(calls)/(4*users), kills.Seconds()/whole.Seconds()
	figures.Log(t, "%d users revoked by prefix at %d calls a second: the last kill at %.2f of the time to the last clean-up; %.2f calls for each that is needed, %d throttled", users, rate, share, ratio, throttled)
	if ratio > 1.2 {
		t.Errorf("%.2f calls for each that is needed, want 1.2 at most", ratio)
	}
	if share > 0.75 {
		t.Errorf("the last kill came at %.2f of the time to the last clean-up, want 0.75 at most", share)
	}
	irrevocable, err := m.Logical().ReadWithDataWithContext(t.Context(), "sys/leases/count", map[string][]string{"type": {"irrevocable"}})
	if err != nil {
		t.Fatal(err)
	}
	if mounts, _ := irrevocable.Data["counts"].(map[string]any); mounts[m.path+"/"] != nil {
		t.Errorf("leases are irrevocable: %v", mounts)
	}
	aws.throttle(0)
	eventually(t, "the ledger says that all have ended", time.Minute, func() bool {
		m.write("tidy", nil)
		time.Sleep(500 * time.Millisecond)
		return m.read("grants/by-role/" + onCloud).Data["grants"] != nil && len(m.read("grants/by-role/" + onCloud).Data["grants"].([]any)) == 0
	})
}
