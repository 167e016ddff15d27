package tests

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

func TestCloudUserIsExact(t *testing.T) {
	m := newMount(t)
	sideBySide := servers.Cloud.Together("CreateAccessKey", "PutUserPolicy")
	minted := m.mint(onCloud + "/JIRA-123")
	calls := servers.Cloud.Calls(minted.grant())
	if !sideBySide() {
		t.Error("key and policy are made one after the other")
	}
	if names := inRounds(calls, 1); !slices.Equal(names, []string{"CreateUser", "CreateAccessKey", "PutUserPolicy"}) {
		t.Errorf("a mint calls %v, want the user first and then its key and policy", names)
	}
	if sent := policyIn(calls); minted.Data["policy"] != sent {
		t.Errorf("the answer says %s, AWS was given %s", minted.Data["policy"], sent)
	}
	if minted.key.Token != "" {
		t.Error("a user has no session token")
	}
	users := m.users()
	if len(users) != 1 || !strings.Contains(users[0], minted.grant()) {
		t.Errorf("users %v, want one that carries the grant's id %s", users, minted.Data["grant_id"])
	}

	ctx, client := t.Context(), servers.Cloud.S3(minted.key)
	allowed(t, "the action on the resource", lab.Put(ctx, client, "releases", "app/1.tgz"))
	denied(t, "another action", lab.Get(ctx, client, "releases", "app/1.tgz"))
	denied(t, "deleting", lab.Delete(ctx, client, "releases", "app/1.tgz"))
	denied(t, "another prefix", lab.Put(ctx, client, "releases", "other/1.tgz"))
	denied(t, "another bucket", lab.Put(ctx, client, "private", "app/1.tgz"))

	sideBySide = servers.Cloud.Together("DeleteAccessKey", "PutUserPolicy")
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	revoking := servers.Cloud.Calls(minted.grant())[len(calls):]
	// The engine is refused the right to seal users once, and does not ask for it again.
	revoking = slices.DeleteFunc(revoking, func(call url.Values) bool { return call.Get("Action") == "PutUserPermissionsBoundary" })
	if names := inRounds(revoking, 2); !slices.Equal(names, []string{"DeleteAccessKey", "PutUserPolicy", "DeleteUser", "DeleteUserPolicy"}) || revoking[2].Get("Action") != "DeleteUserPolicy" {
		t.Errorf("a revoke calls %v, want the user to be disabled first and then to be deleted", names)
	}
	if sent := policyIn(revoking); sent != denyAll {
		t.Errorf("the user was given %s, want %s", sent, denyAll)
	}
	if !sideBySide() {
		t.Error("the key is deleted and the policy replaced one after the other")
	}
	denied(t, "the revoked user", lab.Put(ctx, client, "releases", "app/1.tgz"))
	if users := m.users(); len(users) != 0 {
		t.Errorf("users %v are left", users)
	}
}

// inRounds names the calls, those of the first round before the others. Within a
// round they are made side by side, and so are sorted here.
func inRounds(calls []url.Values, first int) []string {
	var names []string
	for _, call := range calls {
		names = append(names, call.Get("Action"))
	}
	first = min(first, len(names))
	slices.Sort(names[:first])
	slices.Sort(names[first:])
	return names
}

func policyIn(calls []url.Values) string {
	for _, call := range calls {
		if document := call.Get("PolicyDocument"); document != "" {
			return document
		}
	}
	return ""
}

func TestCloudUserGoesWithItsLease(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onCloud+"/JIRA-1", "ttl=4s")
	allowed(t, "the user before its end", minted.inCloud(t.Context()))
	eventually(t, "the user is gone", 20*time.Second, func() bool { return len(m.users()) == 0 })
	denied(t, "the user after its lease", minted.inCloud(t.Context()))
}

func TestCloudUserCarriesItsGrant(t *testing.T) {
	m := newMount(t)
	boundary, err := servers.Cloud.AddPolicy(t.Context(), "boundary")
	if err != nil {
		t.Fatal(err)
	}
	m.write("roles/bounded", map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "credential_type": "iam_user", "permissions_boundary_arn": boundary,
	})
	// A caller with an entity, as one from an auth method has.
	entity, err := m.Logical().WriteWithContext(t.Context(), "identity/entity", map[string]any{"name": m.path})
	if err != nil {
		t.Fatal(err)
	}
	minted, err := m.tryMint(m.callerOf(entity.Data["id"].(string)), "bounded/JIRA-9")
	if err != nil {
		t.Fatal(err)
	}
	if calls := servers.Cloud.Calls(minted.grant()); len(calls) != 3 || calls[0].Get("PermissionsBoundary") != boundary {
		t.Errorf("calls %v, want the user to be made with boundary %s", calls, boundary)
	}
	users, err := servers.Cloud.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(users, func(user lab.User) bool { return strings.Contains(user.Name, minted.grant()) })
	if at < 0 {
		t.Fatalf("no user carries grant %s", minted.Data["grant_id"])
	}
	for tag, want := range map[string]string{
		"precision:role": "bounded", "precision:task": "JIRA-9", "precision:grant": minted.grant(), "precision:entity": entity.Data["id"].(string),
	} {
		if got := users[at].Tags[tag]; got != want {
			t.Errorf("tag %s is %q, want %q", tag, got, want)
		}
	}
	if mounted := users[at].Tags["precision:mount"]; mounted == "" || users[at].Path != "/precision/"+mounted+"/" {
		t.Errorf("mount tag %q and path %q", mounted, users[at].Path)
	}
}

// denyAll is the policy of a disabled user.
const denyAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`

// failsOnce revokes a user's lease while AWS refuses an action: the revoke says
// so, and the user can do nothing. Then it revokes again, and nothing is left.
func (m *mount) failsOnce(minted credential, action string) {
	m.t.Helper()
	revoke := func() error { return m.Sys().RevokeWithOptionsWithContext(m.t.Context(), revokeNow(minted.LeaseID)) }
	servers.Cloud.Refuse(action)
	defer servers.Cloud.Refuse("")
	if err := revoke(); err == nil {
		m.t.Errorf("a revoke says that all is well although AWS refused %s", action)
	}
	denied(m.t, "the user after a revoke that failed", minted.inCloud(m.t.Context()))
	servers.Cloud.Refuse("")
	if err := revoke(); err != nil {
		m.t.Fatal(err)
	}
	if users := m.users(); len(users) != 0 {
		m.t.Errorf("users %v are left", users)
	}
}

// Where AWS refuses to disable a user, its lease is not revoked, and the user can do
// nothing.
func TestCloudUserWhoseRevokeFails(t *testing.T) {
	m := newMount(t)
	for action, want := range map[string]string{"DeleteAccessKey": denyAll, "PutUserPolicy": denyAll} {
		minted := m.mint(onCloud + "/JIRA-1")
		minting := len(servers.Cloud.Calls(minted.grant()))
		m.failsOnce(minted, action)
		if sent := policyIn(servers.Cloud.Calls(minted.grant())[minting:]); sent != want {
			t.Errorf("%s refused: the user was given policy %q, want %q", action, sent, want)
		}
	}
}

// A disabled user that AWS does not let the engine delete is dead: its lease is revoked,
// the user is denied everything, and is deleted later.
func TestCloudUserWhoseCleanUpFails(t *testing.T) {
	m := newMount(t)
	for _, action := range []string{"DeleteUserPolicy", "DeleteUser"} {
		minted := m.mint(onCloud + "/JIRA-1")
		servers.Cloud.Refuse(action)
		err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID))
		users := m.users()
		if err != nil || len(users) != 1 {
			t.Errorf("%s refused: the users %v are left: %v", action, users, err)
		}
		// The clean-up follows in the background. Each try deletes the policy and, once AWS has
		// refused to delete the user, puts it back.
		eventually(t, "AWS has refused "+action, 20*time.Second, func() bool {
			names, _ := named(servers.Cloud.Calls(minted.grant()), "")
			return slices.Contains(names, action)
		})
		for _, user := range users {
			eventually(t, action+" is refused and the user is denied everything", 20*time.Second, func() bool {
				policies, err := servers.Cloud.Policies(t.Context(), "arn:aws:iam::"+lab.Account+":user/"+user)
				if err != nil {
					t.Fatal(err)
				}
				return policies["precision"] == denyAll
			})
		}
		denied(t, "the user that could not be deleted", minted.inCloud(t.Context()))
		servers.Cloud.Refuse("")
		m.tidiedUp()
	}
}

// Without a key of its own the engine uses the credential chain of the machine
// that Vault runs on: here, Vault's environment.
func TestCloudWithTheMachinesCredentials(t *testing.T) {
	m := newMount(t)
	m.write("config/chain", with(m.cloudConfig(), map[string]any{"access_key": nil, "secret_key": nil}))
	m.write("roles/chain", map[string]any{"target": "chain", "action": putObject, "resource": uploads})
	minted := m.mint("chain/JIRA-1")
	allowed(t, "the user", minted.inCloud(t.Context()))
	if _, known := m.read("config/chain").Data["access_key"]; known {
		t.Error("the target reads as having a key of its own")
	}
}

// A key that somebody has added to the user goes with the user.
func TestCloudUserWithASecondKey(t *testing.T) {
	m := newMount(t)
	minted := m.mint(onCloud + "/JIRA-1")
	for _, user := range m.users() {
		if err := servers.Cloud.AddKey(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	if users := m.users(); len(users) != 0 {
		t.Errorf("users %v are left", users)
	}
}
