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
	servers.Cloud.Calls()
	minted := m.mint(onCloud + "/JIRA-123")
	calls := servers.Cloud.Calls()
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

	servers.Cloud.Calls()
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	if names := inRounds(servers.Cloud.Calls(), 2); !slices.Equal(names, []string{"DeleteAccessKey", "DeleteUserPolicy", "DeleteUser"}) {
		t.Errorf("a revoke calls %v, want key and policy first and then the user", names)
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
	minted := m.mint(onCloud+"/JIRA-1", "ttl=2s")
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
	servers.Cloud.Calls()
	minted := m.mint("bounded/JIRA-9")
	if sent := servers.Cloud.Calls()[0].Get("PermissionsBoundary"); sent != boundary {
		t.Errorf("permissions boundary %q, want %q", sent, boundary)
	}
	users, err := servers.Cloud.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(users, func(user lab.User) bool { return strings.Contains(user.Name, minted.grant()) })
	if at < 0 {
		t.Fatalf("no user carries grant %s", minted.Data["grant_id"])
	}
	for tag, want := range map[string]string{"precision:role": "bounded", "precision:task": "JIRA-9", "precision:grant": minted.grant()} {
		if got := users[at].Tags[tag]; got != want {
			t.Errorf("tag %s is %q, want %q", tag, got, want)
		}
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
