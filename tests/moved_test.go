package tests

import (
	"strings"
	"testing"
)

// A target is pointed to another system under live grants by force only, which closes
// them as lost and says what is left; without live grants it just moves.
func TestTargetsThatMove(t *testing.T) {
	m := newMount(t)
	elsewhere := newFakeUsers(t)
	elsewhere.account = "999999999999"
	second, err := servers.Store.AddEngine(t.Context(), "second-engine")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		role          string
		before, after map[string]any
	}{
		"an AWS account":               {onCloud, m.cloudConfig(), with(m.cloudConfig(), map[string]any{"iam_endpoint": elsewhere.url, "sts_endpoint": elsewhere.url})},
		"a store's user that owns all": {onStore, m.storeConfig(), with(m.storeConfig(), map[string]any{"access_key": second.Access, "secret_key": second.Secret})},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mount{t: t, path: m.path, Client: m.Client, grants: m.grants}
			target := map[string]string{onCloud: "prod", onStore: "store"}[test.role]
			minted := m.mint(test.role + "/JIRA-1")
			says(t, refusal(t, m.tryWrite("config/"+target, test.after)), "live grants on it: 1", "force=true closes them as lost")
			moved := m.write("config/"+target, with(test.after, map[string]any{"force": true}))
			if told := strings.Join(moved.Warnings, "\n"); !strings.Contains(told, "grant "+minted.grant()+" is lost") {
				t.Errorf("the answer does not say what is lost: %s", told)
			}
			if state := m.read("grants/" + minted.grant()).Data["state"]; state != "lost" {
				t.Errorf("the ledger says %v", state)
			}
			// Its lease lapses in peace, and on the new system nothing is touched.
			if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
				t.Errorf("the lease of a lost grant can't be revoked: %v", err)
			}
			use := minted.inStore
			if test.role == onCloud {
				use = minted.inCloud
			}
			allowed(t, "the credential on the system that was left", use(t.Context()))
			m.write("config/"+target, test.before) // back, without live grants
			again := m.mint(test.role + "/JIRA-2")
			if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(again.LeaseID)); err != nil {
				t.Error(err)
			}
		})
	}
}
