package tests

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Names of users and sessions start as the target says, and keep what can't be guessed;
// tags take the task and parameters, and what AWS would not take as a tag is refused
// before it is called.
func TestNamesAndTagsFromTemplates(t *testing.T) {
	m := newMount(t)
	aws := newFakeUsers(t)
	m.write("config/users", with(m.cloudConfig(), map[string]any{"iam_endpoint": aws.url, "sts_endpoint": aws.url, "username_prefix": "ci"}))
	tags := map[string]any{"ticket": "{{task}}", "team": "team {{team}}"}
	role := map[string]any{"action": putObject, "resource": uploads, "ttl": "10m", "parameters": map[string]any{"team": "[a-z]+"}}
	m.write("roles/user", with(role, map[string]any{"target": "users", "user_tags": tags}))
	m.write("config/prod", with(m.cloudConfig(), map[string]any{"session_prefix": "ci"}))
	m.write("roles/session", with(role, map[string]any{"target": "prod", "session_tags": tags, "credential_type": "assumed_role", "role_arn": lab.RoleARN(lab.BaseRole)}))
	team := map[string][]string{"team": {"web"}}

	minted, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/creds/user/JIRA-1", team)
	if err != nil {
		t.Fatal(err)
	}
	aws.mu.Lock()
	for name, user := range aws.users {
		if want := fmt.Sprintf("ci-%s-user-JIRA-1", minted.Data["grant_id"]); name != want {
			t.Errorf("the user is %q, want %q", name, want)
		}
		if user.tags["ticket"] != "JIRA-1" || user.tags["team"] != "team web" || user.tags["precision:task"] != "JIRA-1" {
			t.Errorf("its tags are %v", user.tags)
		}
	}
	aws.mu.Unlock()

	at := len(servers.Cloud.Log(0))
	session, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/creds/session/JIRA-1", team)
	if err != nil {
		t.Fatal(err)
	}
	_, assumed := named(servers.Cloud.Log(at), "AssumeRole")
	if len(assumed) != 1 {
		t.Fatalf("%d calls of AssumeRole", len(assumed))
	}
	if name := assumed[0].Get("RoleSessionName"); !regexp.MustCompile(`\A[a-z2-7]{28}-ci-session-JIRA-1\z`).MatchString(name) {
		t.Errorf("the session is %q", name)
	}
	sent := map[string]string{}
	for i := 1; assumed[0].Get(fmt.Sprintf("Tags.member.%d.Key", i)) != ""; i++ {
		sent[assumed[0].Get(fmt.Sprintf("Tags.member.%d.Key", i))] = assumed[0].Get(fmt.Sprintf("Tags.member.%d.Value", i))
	}
	if sent["ticket"] != "JIRA-1" || sent["team"] != "team web" {
		t.Errorf("the session's tags are %v", sent)
	}
	for _, lease := range []*api.Secret{minted, session} {
		m.revokeLease(lease.LeaseID)
	}

	calls := func() int {
		aws.mu.Lock()
		defer aws.mu.Unlock()
		return aws.calls
	}
	before := calls()
	for what, changes := range map[string]map[string]any{
		"the engine's own key": {"user_tags": map[string]any{"Precision:Task": "x"}}, "AWS's own key": {"user_tags": map[string]any{"aws:x": "x"}},
		"two keys that are one": {"user_tags": map[string]any{"Team": "x", "team": "y"}}, "no tag's character": {"user_tags": map[string]any{"team": "a;b"}},
		"too long": {"user_tags": map[string]any{"team": strings.Repeat("x", 257)}}, "an unknown parameter": {"user_tags": map[string]any{"team": "{{other}}"}},
		"too long a value": {"user_tags": map[string]any{"team": strings.Repeat("x", 250) + "{{team}}"}, "parameters": map[string]any{"team": "[a-z]{10}"}},
	} {
		t.Run(what, func(t *testing.T) {
			refusal(t, m.tryWrite("roles/bad", with(with(role, map[string]any{"target": "users", "parameters": map[string]any{}}), changes)))
		})
	}
	for _, prefix := range []string{"a-b", strings.Repeat("x", 17), "a/b", "ä"} {
		refusal(t, m.tryWrite("config/bad", with(m.cloudConfig(), map[string]any{"username_prefix": prefix})))
		refusal(t, m.tryWrite("config/bad", with(m.cloudConfig(), map[string]any{"session_prefix": prefix})))
	}
	if after := calls(); after != before {
		t.Errorf("%d calls were made for what was refused", after-before)
	}
}
