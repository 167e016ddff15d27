package tests

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const (
	asSession   = "session"   // PutObject on uploads as a session of the base role
	asFederated = "federated" // the same as a federated user
)

// court is a judge of sessions by what AWS would know: what the engine called STS
// with, and the policies of the base as they are in force.
type court struct {
	t *testing.T
	*judge.Judge
}

func newCourt(t *testing.T) court {
	t.Helper()
	started, err := judge.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.Close)
	return court{t, started}
}

// request is what AWS has to decide when a session does what its grant is for.
func request(session lab.Session, policies map[string]string, at time.Time) judge.Request {
	return judge.Request{
		Principal: session.ARN, Action: putObject, Resource: "arn:aws:s3:::releases/app/1.tgz", Account: lab.Account,
		Context: judge.Context{
			"aws:CurrentTime": {at.UTC().Format(time.RFC3339)}, "aws:userid": {session.UserID}, "aws:ResourceAccount": {lab.Account},
		},
		Identity: slices.Collect(maps.Values(policies)), Session: session.Form.Get("Policy"),
	}
}

// verdicts are those on the sessions of access keys, at a time.
func (c court) verdicts(at time.Time, keys ...string) []judge.Verdict {
	c.t.Helper()
	policies := map[string]map[string]string{}
	var requests []judge.Request
	for _, key := range keys {
		session, known := servers.Cloud.Session(key)
		if !known {
			c.t.Fatalf("STS has made no session with key %s", key)
		}
		if policies[session.Base] == nil {
			var err error
			if policies[session.Base], err = servers.Cloud.Policies(c.t.Context(), session.Base); err != nil {
				c.t.Fatal(err)
			}
			if strings.Contains(session.Base, ":user/") { // whose own rights are not what this is about
				policies[session.Base]["rights"] = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`
			}
		}
		requests = append(requests, request(session, policies[session.Base], at))
	}
	decided, err := c.Decide(c.t.Context(), requests)
	if err != nil {
		c.t.Fatal(err)
	}
	return decided
}

func (c court) expect(want judge.Verdict, what string, minted ...credential) {
	c.t.Helper()
	var keys []string
	for _, one := range minted {
		keys = append(keys, one.key.Access)
	}
	wrong := 0
	for _, got := range c.verdicts(time.Now(), keys...) {
		if got != want {
			wrong++
		}
	}
	if wrong > 0 {
		c.t.Errorf("%s: %d of %d are not %s", what, wrong, len(minted), want)
	}
}

func (m *mount) sessionRoles() {
	m.t.Helper()
	m.write("roles/"+asSession, map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "ttl": "10m", "max_ttl": "1h",
		"credential_type": "assumed_role", "role_arn": lab.RoleARN(lab.BaseRole),
	})
	m.write("roles/"+asFederated, map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "ttl": "10m", "max_ttl": "1h", "credential_type": "federation_token",
	})
}

// callsOf are the names of calls, and those of one name.
func named(calls []url.Values, action string) (names []string, own []url.Values) {
	for _, call := range calls {
		names = append(names, call.Get("Action"))
		if call.Get("Action") == action {
			own = append(own, call)
		}
	}
	return names, own
}

func (m *mount) revokeLease(lease string) {
	m.t.Helper()
	if err := m.Sys().RevokeWithOptionsWithContext(m.t.Context(), revokeNow(lease)); err != nil {
		m.t.Fatal(err)
	}
}

// deny is the policy that ends sessions, as it has to be byte for byte, without its stamp.
func deny(prefixes ...string) string {
	var patterns []string
	for _, prefix := range prefixes {
		patterns = append(patterns, fmt.Sprintf(`"*:%s*"`, prefix))
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:userid":[` + strings.Join(patterns, ",") + `]}}}]}`
}

func TestSessionIsExactAndEndsAlone(t *testing.T) {
	m, decide := newMount(t), newCourt(t)
	m.sessionRoles()
	for role, want := range map[string]struct{ mint, put, remove, name, holder string }{
		asSession:   {"AssumeRole", "PutRolePolicy", "DeleteRolePolicy", "RoleSessionName", "RoleName"},
		asFederated: {"GetFederationToken", "PutUserPolicy", "DeleteUserPolicy", "Name", "UserName"},
	} {
		minted, other := m.mint(role+"/JIRA-1"), m.mint(role+"/JIRA-1")
		at := len(servers.Cloud.Log(0))
		third := m.mint(role + "/JIRA-2")
		names, calls := named(servers.Cloud.Log(at), want.mint)
		if !slices.Equal(names, []string{want.mint}) {
			t.Fatalf("a mint calls %v, want one %s", names, want.mint)
		}
		call := calls[0]
		if sent := call.Get("Policy"); sent != third.Data["policy"] {
			t.Errorf("the answer says %s, AWS was given %s", third.Data["policy"], sent)
		}
		if got := call.Get("DurationSeconds"); got != "900" {
			t.Errorf("a session of 10 minutes is asked for with %s seconds, want 900: its policy ends it", got)
		}
		name := call.Get(want.name)
		code := strings.Split(name, "-")[0]
		if len(code) != 28 || !strings.HasSuffix(code, third.grant()[8:]) || !strings.Contains(name, "-"+role[:3]) {
			t.Errorf("the session is named %q, want a code that ends in the grant's id %s, and then role and task", name, third.grant())
		}
		decide.expect(judge.Allowed, "sessions before they are revoked", minted, other, third)

		at = len(servers.Cloud.Log(0))
		m.revokeLease(minted.LeaseID)
		names, calls = named(servers.Cloud.Log(at), want.put)
		if !slices.Equal(names, []string{want.put}) {
			t.Fatalf("a revoke calls %v, want one %s", names, want.put)
		}
		revoked, _ := servers.Cloud.Session(minted.key.Access)
		ended := strings.Split(strings.Split(revoked.UserID, ":")[1], "-")[0]
		policy := calls[0].Get("PolicyName")
		if mark := strings.TrimPrefix(policy, "precision-revoked-"); mark != code[:5] {
			t.Errorf("the policy is named %q, want the mark %q", policy, code[:5])
		}
		if document := calls[0].Get("PolicyDocument"); !isDenyOf(document, ended) {
			t.Errorf("the policy is %s, want a Deny of a prefix of %s alone", document, ended)
		}
		decide.expect(judge.ExplicitlyDenied, "the revoked session", minted)
		decide.expect(judge.Allowed, "the other sessions", other, third)
	}
	m.others()
}

// stampSid is what tells one write of a policy from another.
var stampSid = regexp.MustCompile(`"Sid":"e[0-9]{10}w[a-z2-7]{8}",`)

// isDenyOf says whether a document is, byte for byte but for its stamp, the Deny of one prefix of a
// code.
func isDenyOf(document, code string) bool {
	document = stampSid.ReplaceAllString(document, "")
	for length := 8; length <= len(code); length++ {
		if document == deny(code[:length]) {
			return true
		}
	}
	return false
}

// others holds that nobody's policy has been touched.
func (m *mount) others() {
	m.t.Helper()
	policies, err := servers.Cloud.Policies(context.Background(), lab.RoleARN(lab.BaseRole))
	if err != nil {
		m.t.Fatal(err)
	}
	if got := policies["rights"]; !strings.Contains(got, `"Action":"s3:*"`) {
		m.t.Errorf("the base role's own policy is %q now", got)
	}
}
