package tests

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// mintMany mints side by side, one credential for each path.
func (m *mount) mintMany(paths ...string) []credential {
	m.t.Helper()
	minted, failed := make([]credential, len(paths)), make([]error, len(paths))
	turns := make(chan struct{}, 32)
	var all sync.WaitGroup
	for i, path := range paths {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			var secret *api.Secret
			if secret, failed[i] = m.Logical().ReadWithContext(m.t.Context(), m.path+"/creds/"+path); failed[i] == nil {
				minted[i], failed[i] = readCredential(secret)
			}
		})
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return minted
}

// revokePrefix revokes as "vault lease revoke -prefix" does, and waits until no
// lease is left.
func (m *mount) revokePrefix(suffix string) {
	m.t.Helper()
	prefix := m.path + "/creds" + suffix
	if err := m.Sys().RevokeWithOptionsWithContext(m.t.Context(), &api.RevokeOptions{LeaseID: prefix, Prefix: true}); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "all leases are revoked", 60*time.Second, func() bool { return len(m.leases(prefix)) == 0 })
}

// leases lists what is below a prefix of leases.
func (m *mount) leases(prefix string) []any {
	m.t.Helper()
	listed, err := m.Logical().ListWithContext(m.t.Context(), "sys/leases/lookup/"+prefix)
	if err != nil {
		m.t.Fatal(err)
	}
	if listed == nil {
		return nil
	}
	keys, _ := listed.Data["keys"].([]any)
	return keys
}

// writes are the names of calls that change IAM.
func writes(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return strings.HasPrefix(name, "Get") && name != "GetFederationToken" || strings.HasPrefix(name, "List")
	})
}

// A thousand sessions that are revoked at once take a handful of calls, and what
// is minted next is not hit.
func TestThousandSessionsEndInAHandfulOfCalls(t *testing.T) {
	const sessions, tasks, most = 1000, 10, 10
	m, decide := newMount(t), newCourt(t)
	m.sessionRoles()
	m.write("roles/other", map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "ttl": "10m", "credential_type": "assumed_role", "role_arn": lab.RoleARN(lab.BaseRole),
	})
	var paths []string
	for i := range sessions {
		paths = append(paths, fmt.Sprintf("%s/JIRA-%d", asSession, i%tasks))
	}
	spared := m.mintMany("other/JIRA-1", "other/JIRA-2", "other")
	minted := m.mintMany(paths...)
	decide.expect(judge.Allowed, "before the revoke", minted...)

	at, started := len(servers.Cloud.Log(0)), time.Now()
	m.revokePrefix("/" + asSession)
	names, _ := named(servers.Cloud.Log(at), "")
	figures.Log(t, "%d sessions that were revoked by a prefix ended by %d calls of AWS", sessions, len(names))
	// A commit waits for a second at most: a busy machine makes one more each second.
	allowed := most + int(time.Since(started)/time.Second)
	if len(names) > allowed {
		t.Errorf("revoking %d sessions takes %d calls, want %d at most: %v", sessions, len(names), allowed, names)
	}
	decide.expect(judge.ExplicitlyDenied, "the role's sessions", minted...)
	decide.expect(judge.Allowed, "another role's sessions", spared...)

	// What was revoked whole can be used again at once.
	decide.expect(judge.Allowed, "a new session of the task and the role that were revoked", m.mint(asSession+"/JIRA-1"), m.mint(asSession))
	m.revokePrefix("")
	decide.expect(judge.ExplicitlyDenied, "the mount's sessions", append(spared, minted...)...)
	decide.expect(judge.Allowed, "new sessions of the mount that was revoked", m.mint(asSession+"/JIRA-1"), m.mint("other/JIRA-2"), m.mint("other"))
	decide.expect(judge.ExplicitlyDenied, "the mount's sessions, again", append(spared, minted...)...)
	m.others()
}

// A plugin that starts anew knows what it has to keep denied, and whom it must
// not hit.
func TestSessionsOutliveThePlugin(t *testing.T) {
	m, decide := newMount(t), newCourt(t)
	m.sessionRoles()
	var paths []string
	for i := range 40 {
		paths = append(paths, fmt.Sprintf("%s/JIRA-%d", asSession, i%4))
	}
	minted := m.mintMany(paths...)
	first, second, kept := minted[:15], minted[15:30], minted[30:]
	for _, one := range first {
		m.revokeLease(one.LeaseID)
	}
	killPlugin(t)
	decide.expect(judge.ExplicitlyDenied, "what was revoked before the kill", first...)
	fresh := m.mintMany(paths[:8]...)
	decide.expect(judge.Allowed, "sessions minted after the kill", fresh...)
	for _, one := range second {
		m.revokeLease(one.LeaseID)
	}
	decide.expect(judge.ExplicitlyDenied, "what was revoked before and after the kill", append(first, second...)...)
	decide.expect(judge.Allowed, "what was not revoked", append(kept, fresh...)...)

	// The kill comes while sessions are being revoked: all of them end.
	prefix := m.path + "/creds/" + asSession
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: prefix, Prefix: true}); err != nil {
		t.Fatal(err)
	}
	killPlugin(t)
	eventually(t, "all leases are revoked", 120*time.Second, func() bool { return len(m.leases(prefix)) == 0 })
	decide.expect(judge.ExplicitlyDenied, "all sessions", append(minted, fresh...)...)
	decide.expect(judge.Allowed, "a new session", m.mint(asSession+"/JIRA-1"))
	m.others()
}

// A target that is written anew, as with another key, goes on where it was.
func TestSessionsOutliveAConfigWrite(t *testing.T) {
	m, decide := newMount(t), newCourt(t)
	m.sessionRoles()
	minted := m.mintMany(asSession+"/JIRA-1", asSession+"/JIRA-1", asSession+"/JIRA-2")
	m.revokeLease(minted[0].LeaseID)
	at := len(servers.Cloud.Log(0))
	m.write("config/prod", with(m.cloudConfig(), map[string]any{"access_key": nil, "secret_key": nil, "verify_connection": true}))
	m.revokeLease(minted[1].LeaseID)
	fresh := m.mint(asSession + "/JIRA-1")
	names, _ := named(servers.Cloud.Log(at), "")
	if want := []string{"GetCallerIdentity", "ListUsers", "PutRolePolicy", "AssumeRole"}; !slices.Equal(names, want) {
		t.Errorf("the calls are %v, want %v: what the base role has is known", names, want)
	}
	decide.expect(judge.ExplicitlyDenied, "what was revoked", minted[:2]...)
	decide.expect(judge.Allowed, "what was not", minted[2], fresh)
}

// Two mounts on one base role leave each other's sessions and policies alone.
func TestTwoMountsOnOneBaseRole(t *testing.T) {
	one, decide := newMount(t), newCourt(t)
	two := nameMount(t)
	two.path += "-two"
	two.enable(&api.MountInput{Type: lab.PluginName})
	two.configure()
	one.sessionRoles()
	two.sessionRoles()
	ones, twos := one.mintMany(asSession+"/JIRA-1", asSession+"/JIRA-1"), two.mintMany(asSession+"/JIRA-1", asSession+"/JIRA-1")
	one.revokePrefix("")
	decide.expect(judge.ExplicitlyDenied, "the first mount's sessions", ones...)
	decide.expect(judge.Allowed, "the second mount's sessions", twos...)
	two.revokePrefix("")
	decide.expect(judge.ExplicitlyDenied, "both mounts' sessions", append(ones, twos...)...)
	decide.expect(judge.Allowed, "new sessions of both", one.mint(asSession+"/JIRA-1"), two.mint(asSession+"/JIRA-1"))
	one.others()
}

// What would be allowed is answered for sessions, too, and a session's policy
// holds against what lets everybody in.
func TestCheckOfSessions(t *testing.T) {
	m := newMount(t)
	m.sessionRoles()
	everybody := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::releases","arn:aws:s3:::releases/*"]}]}`
	for _, role := range []string{asSession, asFederated} {
		for _, question := range []struct{ action, resource, policy, effect, of string }{
			{putObject, "arn:aws:s3:::releases/app/1.tgz", "", "Allowed", "session policy"},
			{putObject, "arn:aws:s3:::releases/other/1.tgz", everybody, "ExplicitlyDenied", "session policy"},
			{"s3:GetObject", "arn:aws:s3:::releases/app/1.tgz", everybody, "ExplicitlyDenied", "session policy"},
		} {
			answer, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/check/"+role, map[string][]string{
				"action": {question.action}, "resource": {question.resource}, "resource_policy": {question.policy},
			})
			if err != nil {
				t.Fatal(err)
			}
			if answer.Data["effect"] != question.effect || answer.Data["policy"] != question.of {
				t.Errorf("%s, %s on %s: %v, want %s by the %s", role, question.action, question.resource, answer.Data, question.effect, question.of)
			}
		}
	}
}

// How much room sessions take is shown with their role, and a mint that AWS
// refuses says why and leaves nothing.
func TestSessionsThatAreNotMinted(t *testing.T) {
	m := newMount(t)
	m.sessionRoles()
	if _, known := m.read("roles/" + asSession).Data["packed_policy_size"]; known {
		t.Error("a role whose sessions nobody has seen has a packed_policy_size")
	}
	m.mint(asSession + "/JIRA-1")
	if got := fmt.Sprint(m.read("roles/" + asSession).Data["packed_policy_size"]); got != "6" { // what moto says of all
		t.Errorf("packed_policy_size is %s, want 6", got)
	}
	m.write("roles/elsewhere", map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "ttl": "10m", "credential_type": "assumed_role", "role_arn": lab.RoleARN("not-for-us"),
	})
	at := len(servers.Cloud.Log(0))
	if _, err := m.tryMint(m.Client, "elsewhere/JIRA-1"); err == nil {
		t.Fatal("a role was assumed that the engine may not assume")
	}
	names, _ := named(servers.Cloud.Log(at), "")
	if changed := writes(names); len(changed) > 0 && !slices.Equal(changed, []string{"AssumeRole"}) {
		t.Errorf("a session that was not made is denied: %v", names)
	}
}
