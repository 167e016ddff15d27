package tests

import (
	"maps"
	"slices"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What others have added to a user goes with it, whatever it is, and whether or not they
// have left the user its tags.
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
	revoke := func(minted credential) error {
		return m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID))
	}
	t.Run("without its tags", func(t *testing.T) {
		minted := m.mint(onCloud + "/JIRA-1")
		user := change(func(name string, user *fakeUser) {
			user.extra, user.tags = maps.Clone(everything), nil
			user.extra["UserName"] = name
		})
		if err := revoke(minted); err != nil {
			t.Error(err)
		}
		if there, _ := aws.left(); there != 0 || len(user.extra) != 0 {
			t.Errorf("%d users are left, with %v", there, user.extra)
		}
	})
	figures.Log(t, "%d kinds of additions to a user went with it, each alone and all at once; so they did on a user that was untagged", len(everything))
}
