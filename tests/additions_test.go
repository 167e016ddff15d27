package tests

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What others have added to a user goes with it, whatever it is; a user that does not
// bear the mount's mark keeps what it has.
func TestUsersThatOthersChanged(t *testing.T) {
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	aws := newFakeUsers(t)
	m.write("config/prod", with(m.cloudConfig(), map[string]any{"iam_endpoint": aws.url, "sts_endpoint": aws.url}))
	m.write("roles/"+onCloud, map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "1h"})
	change := func(changes func(name string, user *fakeUser)) (changed *fakeUser) {
		aws.mu.Lock()
		defer aws.mu.Unlock()
		for name, user := range aws.users {
			changes(name, user)
			changed = user
		}
		return changed
	}
	everything := map[string]string{}
	for _, kind := range additions {
		everything[kind.id] = "arn:aws:iam::" + lab.Account + ":mfa/added"
	}
	kinds := map[string]map[string]string{"all at once": everything}
	for id, value := range everything {
		kinds[id] = map[string]string{id: value}
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(name, func(t *testing.T) {
			minted := m.mint(onCloud + "/JIRA-1")
			user := change(func(name string, user *fakeUser) {
				user.extra = maps.Clone(kinds[name])
				if _, login := user.extra["UserName"]; login {
					user.extra["UserName"] = name // a login has no other
				}
			})
			if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
				t.Fatal(err)
			}
			if there, _ := aws.left(); there != 0 || len(user.extra) != 0 {
				t.Errorf("%d users are left, with %v", there, user.extra)
			}
		})
	}
	t.Run("without the mark", func(t *testing.T) {
		minted := m.mint(onCloud + "/JIRA-1")
		user := change(func(_ string, user *fakeUser) {
			user.extra = maps.Clone(everything)
			user.tags["precision:mount"] = "another"
		})
		if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err == nil {
			t.Error("a user of another mount was said to be gone")
		}
		if there, alive := aws.left(); there != 1 || alive != 0 || len(user.extra) != len(everything) {
			t.Errorf("%d users, %d alive, with %v", there, alive, user.extra)
		}
		change(func(_ string, user *fakeUser) { user.extra = nil })
		eventually(t, "the user is gone", 30*time.Second, func() bool {
			_ = m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID))
			there, _ := aws.left()
			return there == 0
		})
	})
	figures.Log(t, "%d kinds of additions to a user went with it, each alone and all at once; on a user without the mark all stayed", len(everything))
}
