package tests

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// tryWrite is the error of a write.
func (m *mount) tryWrite(path string, data map[string]any) error {
	_, err := m.Logical().WriteWithContext(m.t.Context(), m.path+"/"+path, data)
	return err
}

// unavailable is the text of a 503.
func unavailable(t *testing.T, err error) string {
	t.Helper()
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		t.Fatalf("not an answer of Vault: %v", err)
	}
	if answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503: %v", answer.StatusCode, answer.Errors)
	}
	return strings.Join(answer.Errors, "\n")
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

// The engine's key may do nothing but assume a role, and that asks for an
// external id.
func TestCloudWithAnAssumedRole(t *testing.T) {
	m := newMount(t)
	key, role, err := servers.Cloud.AddDelegate(t.Context(), m.path, "customer-7")
	if err != nil {
		t.Fatal(err)
	}
	config := with(m.cloudConfig(), map[string]any{
		"access_key": key.Access, "secret_key": key.Secret, "assume_role_arn": role, "assume_role_external_id": "customer-7",
	})
	m.write("config/delegated", config)
	m.write("roles/delegated", map[string]any{"target": "delegated", "action": putObject, "resource": uploads})
	minted := m.mint("delegated/JIRA-1")
	allowed(t, "the user", minted.inCloud(t.Context()))
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "the revoked user", minted.inCloud(t.Context()))
	if read := m.read("config/delegated").Data; read["assume_role_arn"] != role || read["assume_role_external_id"] != "customer-7" {
		t.Errorf("the target reads as %v", read)
	}

	for changes, want := range map[*map[string]any]string{
		{"assume_role_external_id": "customer-8"}:          `invalid assume_role_arn "` + role + `": AWS does not let the engine assume it`,
		{"assume_role_arn": "arn:aws:iam::1:role/x"}:       "not the ARN of a role",
		{"assume_role_arn": nil}:                           `invalid assume_role_arn "": missing beside assume_role_external_id`,
		{"assume_role_external_id": "a b"}:                 "invalid assume_role_external_id",
		{"secret_key": "wrong"}:                            "invalid secret_key",
		{"access_key": "AKIAWRONGWRONGWRONG1"}:             `invalid access_key "AKIA…"`,
		{"access_key": nil, "secret_key": nil}:             "invalid assume_role_arn", // the machine's key may not
		{"web_identity_token_file": "/run/token"}:          "invalid access_key",
		{"max_retries": "1.5"}:                             `invalid max_retries "1.5"`,
		{"max_retries": 21}:                                `invalid max_retries "21": not between 0 and 20`,
		{"max_retries": "010"}:                             "invalid max_retries",
		{"sts_endpoint": "http://127.0.0.1:1"}:             "invalid sts_endpoint",
		{"assume_role_arn": "arn:aws:iam::123456789012:x"}: "invalid assume_role_arn",
	} {
		err := m.tryWrite("config/delegated", with(config, *changes))
		if err == nil {
			t.Errorf("%v is taken", *changes)
			continue
		}
		says(t, refusal(t, err), want)
	}
}

// As on EKS: a token in a file, and no key at all.
func TestCloudWithAWebIdentity(t *testing.T) {
	m := newMount(t)
	_, role, err := servers.Cloud.AddDelegate(t.Context(), m.path, "unused")
	if err != nil {
		t.Fatal(err)
	}
	const token = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJzdHMuYW1hem9uYXdzLmNvbSJ9.c2lnbmF0dXJl"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := with(m.cloudConfig(), map[string]any{"access_key": nil, "secret_key": nil, "assume_role_arn": role, "web_identity_token_file": file})
	m.write("config/eks", config)
	m.write("roles/eks", map[string]any{"target": "eks", "action": putObject, "resource": uploads})
	allowed(t, "the user", m.mint("eks/JIRA-1").inCloud(t.Context()))
	calls := servers.Cloud.CallsOf("AssumeRoleWithWebIdentity")
	if len(calls) == 0 || calls[0].Get("WebIdentityToken") != token || calls[0].Get("RoleArn") != role {
		t.Errorf("calls %v", calls)
	}

	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("not a token"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(servers.Cloud.CallsOf("AssumeRoleWithWebIdentity"))
	for changes, want := range map[*map[string]any]string{
		{"web_identity_token_file": file + "x"}:             "no such file",
		{"web_identity_token_file": other}:                  "it holds no web identity token",
		{"web_identity_token_file": "token"}:                "not an absolute path",
		{"assume_role_arn": nil}:                            "invalid assume_role_arn",
		{"assume_role_external_id": "customer"}:             "invalid assume_role_external_id",
		{"sts_endpoint": "https://sts.example.com"}:         "a web identity token is sent to AWS only",
		{"sts_endpoint": "http://sts.amazonaws.com"}:        "a web identity token is sent to AWS only",
		{"sts_endpoint": "https://amazonaws.com.evil.test"}: "a web identity token is sent to AWS only",
	} {
		says(t, refusal(t, m.tryWrite("config/eks", with(config, *changes))), want)
	}
	if after := len(servers.Cloud.CallsOf("AssumeRoleWithWebIdentity")); after != before {
		t.Errorf("%d tokens were sent off", after-before)
	}
	servers.Cloud.Fail("AssumeRoleWithWebIdentity", "ExpiredTokenException", -1)
	defer servers.Cloud.Fail("AssumeRoleWithWebIdentity", "", 0)
	says(t, refusal(t, m.tryWrite("config/eks", config)), "invalid web_identity_token_file", "ExpiredTokenException")
}

// A mint that AWS throttles fails soon, says so, and leaves nothing behind.
func TestCloudThrottlesAMint(t *testing.T) {
	m := newMount(t)
	client := m.caller()
	client.SetMaxRetries(0) // Vault's client would ask again itself
	for _, action := range []string{"CreateUser", "CreateAccessKey", "PutUserPolicy"} {
		before := len(servers.Cloud.CallsOf(action))
		servers.Cloud.Throttle(action, -1)
		_, err := m.tryMint(client, onCloud+"/JIRA-1")
		servers.Cloud.Throttle(action, 0)
		says(t, unavailable(t, err), "AWS throttles this account's calls", "try again", action)
		calls := servers.Cloud.CallsOf(action)[before:]
		attempts := map[string]int{} // PutUserPolicy fences what can't be ended, too
		for _, call := range calls {
			attempts[call.Get("PolicyDocument")]++
		}
		for _, times := range attempts {
			if times > 3 {
				t.Errorf("%s was tried %d times", action, times)
			}
		}
		for _, call := range calls {
			if keys, err := servers.Cloud.Keys(t.Context(), call.Get("UserName")); err == nil && len(keys) > 0 {
				t.Errorf("%s throttled: a user with keys %v is left", action, keys)
			}
		}
	}
	m.tidiedUp()
	servers.Cloud.Throttle("CreateUser", 1)
	allowed(t, "the user of a mint that was throttled once", m.mint(onCloud+"/JIRA-1").inCloud(t.Context()))
}

// A revoke that AWS throttles is tried again, by the engine and then by Vault.
func TestCloudThrottlesARevoke(t *testing.T) {
	m := newMount(t)
	m.write("config/prod", with(m.cloudConfig(), map[string]any{"max_retries": 1}))
	if retries := m.read("config/prod").Data["max_retries"]; retries == nil || retries.(interface{ String() string }).String() != "1" {
		t.Errorf("max_retries reads as %v", retries)
	}
	revoke := func(minted credential) error {
		return m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID))
	}
	once := m.mint(onCloud + "/JIRA-1")
	servers.Cloud.Throttle("DeleteUser", 1)
	if err := revoke(once); err != nil {
		t.Fatal(err)
	}
	denied(t, "the user whose revoke was throttled once", once.inCloud(t.Context()))

	minted := m.mint(onCloud + "/JIRA-2")
	before := len(servers.Cloud.CallsOf("DeleteUser"))
	servers.Cloud.Throttle("DeleteUser", -1)
	err := revoke(minted)
	if err != nil {
		t.Errorf("a credential that was dead was not said to be: %v", err)
	}
	denied(t, "the user that could not be deleted yet", minted.inCloud(t.Context()))
	eventually(t, "the user's deletion is tried", 30*time.Second, func() bool { return len(servers.Cloud.CallsOf("DeleteUser"))-before >= 2 })
	servers.Cloud.Throttle("DeleteUser", 0)
	m.tidiedUp()
}

// tidiedUp demands that what is left of dead users goes.
func (m *mount) tidiedUp() {
	m.t.Helper()
	eventually(m.t, "no user is left", 20*time.Second, func() bool {
		m.write("tidy", nil)
		time.Sleep(200 * time.Millisecond)
		return len(m.users()) == 0
	})
}

// IAM is eventually consistent: with wait_ready the key works when it is there.
func TestCloudUserIsReady(t *testing.T) {
	m := newMount(t)
	client := m.caller()
	client.SetMaxRetries(0)
	role := map[string]any{"target": "prod", "action": putObject, "resource": uploads, "wait_ready": true, "ready_timeout": "2s"}
	m.write("roles/patient", role)
	servers.Cloud.Fail("GetCallerIdentity", "InvalidClientTokenId", 3)
	before := len(servers.Cloud.CallsOf("GetCallerIdentity"))
	minted := m.mint("patient/JIRA-1")
	if asked := len(servers.Cloud.CallsOf("GetCallerIdentity")) - before; asked != 4 {
		t.Errorf("the key was tried %d times, want 4", asked)
	}
	allowed(t, "the user", minted.inCloud(t.Context()))

	servers.Cloud.Fail("GetCallerIdentity", "InvalidClientTokenId", -1)
	defer servers.Cloud.Fail("GetCallerIdentity", "", 0)
	made := len(servers.Cloud.CallsOf("CreateUser"))
	_, err := m.tryMint(client, "patient/JIRA-2")
	says(t, unavailable(t, err), "AWS does not know the new key yet", "InvalidClientTokenId")
	calls := servers.Cloud.CallsOf("CreateUser")[made:]
	if len(calls) != 1 {
		t.Fatalf("%d users were made, want 1", len(calls))
	}
	if keys, err := servers.Cloud.Keys(t.Context(), calls[0].Get("UserName")); err == nil {
		t.Errorf("the user is left, with keys %v", keys)
	}

	for changes, want := range map[*map[string]any]string{
		{"wait_ready": false}:    `invalid ready_timeout "2s": nothing is waited for`,
		{"ready_timeout": "26s"}: `invalid ready_timeout "26s": longer than a mint may take, 25s`,
		{"target": "store"}:      "invalid ready_timeout",
	} {
		says(t, refusal(t, m.tryWrite("roles/patient", with(role, *changes))), want)
	}
}
