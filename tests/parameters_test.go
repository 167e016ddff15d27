package tests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// hostile are values that mean more than they should to something on their way.
func hostile() []string {
	return []string{
		"", " ", "*", "**", "a*", "*a", "a/*", "?", "a?", "[a]", "{a,b}", "$", "${aws:username}", "${aws:userid}", "$${x}", "a${", "{{task}}", "{{identity.entity.name}}",
		"..", ".", "../", "../..", "a/../b", "a/..", "a/./b", "/a", "a/", "a//b", "/", "//",
		"%2f", "a%2Fb", "%2e%2e", "..%2f..", "%00", "%2a", "%252a", `\`, `a\b`, `..\..`, `\u002a`,
		"a\nb", "a\r\nb", "\t", "a\tb", "\x00", "a\x00b", "\x1b[2J", "\x7f",
		"\uff0a", "a\uff0ab", "\u2217", "\ufe61", "\u066d", "\u2044", "\u2215", "\uff0f", "\uff0e\uff0e", "\u00a0", "\u200b", "\u202e", "caf\u00e9", "\u0430dmin", "\xff\xfe",
		":", "a:b", "arn:aws:s3:::other", "x:y:z:*", "app:jobs", "::::",
		`"`, `a"b`, `","Resource":"*`, `{"Effect":"Allow"}`, `"]}]}`, "a b", " a", "a ", "a;b", "a|b", "a&b", "`id`", "$(id)", "<script>",
		strings.Repeat("a", 1025), strings.Repeat("x", 1_000_000), // Vault takes no string that is much longer
	}
}

// anything matches any value. The first alternative is one that is a region, a
// bucket and whatever else is asked for: a role of which no example works is
// refused.
const anything = `(?s)eu-west-1|.*`

// slots are roles with a parameter that admits anything, in every place where a
// value can be filled in; the places themselves are all that holds it.
var slots = map[string]map[string]any{
	"bucket of a store": {"target": "store", "action": putObject, "resource": "arn:aws:s3:::{{p}}/x"},
	"key of a store":    {"target": "store", "action": putObject, "resource": "arn:aws:s3:::releases/{{p}}"},
	"prefix of a store": {"target": "store", "action": putObject, "resource": "arn:aws:s3:::releases/{{p}}/*"},
	"bucket":            {"target": "prod", "action": putObject, "resource": "arn:aws:s3:::{{p}}/x"},
	"key":               {"target": "prod", "action": putObject, "resource": "arn:aws:s3:::releases/{{p}}"},
	"end of a key":      {"target": "prod", "action": putObject, "resource": "arn:aws:s3:::releases/app-{{p}}"},
	"middle of a key":   {"target": "prod", "action": putObject, "resource": "arn:aws:s3:::releases/{{p}}/x"},
	"prefix":            {"target": "prod", "action": putObject, "resource": "arn:aws:s3:::releases/{{p}}/*"},
	"region":            {"target": "prod", "action": "sqs:SendMessage", "resource": "arn:aws:sqs:{{p}}:123456789012:jobs"},
	"queue":             {"target": "prod", "action": "sqs:SendMessage", "resource": "arn:aws:sqs:eu-west-1:123456789012:{{p}}"},
	"parameter":         {"target": "prod", "action": "ssm:PutParameter", "resource": "arn:aws:ssm:eu-west-1:123456789012:parameter/app/{{p}}"},
	"table of an index": {"target": "prod", "action": "dynamodb:Query", "resource": "arn:aws:dynamodb:eu-west-1:123456789012:table/{{p}}/index/x"},
	"condition":         {"target": "prod", "action": putObject, "resource": uploads, "conditions": map[string]any{"StringLike": map[string]any{"aws:PrincipalTag/team": "{{p}}-*"}}},
}

// Nothing hostile is filled in, wherever it would stand; nothing is minted.
func TestHostileParameters(t *testing.T) {
	m := newMount(t)
	values := hostile()
	if len(values) < 60 {
		t.Fatalf("only %d values", len(values))
	}
	for slot, role := range slots {
		name := strings.ReplaceAll(slot, " ", "-")
		m.write("roles/"+name, with(role, map[string]any{"parameters": map[string]any{"p": anything}}))
		for _, value := range values {
			secret, err := m.Logical().WriteWithContext(t.Context(), m.path+"/creds/"+name+"/JIRA-1", map[string]any{"p": value})
			if err == nil {
				t.Errorf("%s: %.40q was minted: %v", slot, value, secret.Data["policy"])
				continue
			}
			if text := refusal(t, err); len(text) > 1500 {
				t.Errorf("%s: %.40q: the refusal has %d bytes", slot, value, len(text))
			}
		}
		for _, parameters := range [][]string{nil, {"p=a", "p=b"}, {"p=a", "q=b"}, {"p=a", "resource=b"}, {"P=a"}} {
			_, err := m.tryMint(m.Client, name+"/JIRA-1", parameters...)
			refusal(t, err)
		}
		_, err := m.Logical().WriteWithContext(t.Context(), m.path+"/creds/"+name+"/JIRA-1", map[string]any{"p": []string{"a"}})
		refusal(t, err)
	}
	if users := m.users(); len(users) != 0 {
		t.Errorf("users %v were made", users)
	}
	figures.Log(t, "%d hostile values refused in each of %d slots, by the plugin in Vault", len(values), len(slots))
}

// A value with "/" stays where a path belongs, and leaves every other slot.
func TestParameterLeavesItsSlot(t *testing.T) {
	m := newMount(t)
	for slot, role := range slots {
		name := strings.ReplaceAll(slot, " ", "-")
		m.write("roles/"+name, with(role, map[string]any{"parameters": map[string]any{"p": anything}}))
		_, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/preview/"+name+"/JIRA-1", map[string][]string{"p": {"a/b"}})
		switch slot {
		case "key of a store", "prefix of a store", "key", "end of a key", "middle of a key", "prefix", "parameter", "condition":
			if err != nil {
				t.Errorf("%s: a path is refused: %v", slot, err)
			}
		default:
			if text := refusal(t, err); !strings.Contains(text, `invalid p "a/b"`) && !strings.Contains(text, "resource") {
				t.Errorf("%s: %q names neither the parameter nor the resource", slot, text)
			}
		}
	}
}

// One role serves every team: each caller is confined to its own prefix by what
// Vault knows of it.
func TestIdentityConfinesItsCaller(t *testing.T) {
	m := newMount(t)
	m.write("roles/team", map[string]any{
		"target": "store", "action": putObject, "resource": "arn:aws:s3:::releases/{{identity.entity.metadata.team}}/{{key}}", "ttl": "10m",
		"parameters": map[string]any{"key": `[a-z0-9]+\.tgz`},
	})
	callerIn := func(team string) *api.Client {
		metadata := map[string]any{}
		if team != "" {
			metadata["team"] = team
		}
		entity, err := m.Logical().WriteWithContext(t.Context(), "identity/entity", map[string]any{"name": m.path + "-" + strings.ReplaceAll(team, "/", "-"), "metadata": metadata})
		if err != nil {
			t.Fatal(err)
		}
		return m.callerOf(entity.Data["id"].(string))
	}
	minted, err := m.tryMint(callerIn("app"), "team/JIRA-1", "key=1.tgz")
	if err != nil {
		t.Fatal(err)
	}
	store := servers.Store.S3(minted.key)
	allowed(t, "the caller's own prefix", lab.Put(t.Context(), store, "releases", "app/1.tgz"))
	denied(t, "another key", lab.Put(t.Context(), store, "releases", "app/2.tgz"))
	denied(t, "another team's prefix", lab.Put(t.Context(), store, "releases", "other/1.tgz"))

	for team, says := range map[string]string{"": "identity.entity.metadata.team", "a/b": "several segments", "*": "more than itself", "..": "another place"} {
		_, err := m.tryMint(callerIn(team), "team/JIRA-1", "key=1.tgz")
		if text := refusal(t, err); !strings.Contains(text, says) {
			t.Errorf("team %q: %q does not say %q", team, text, says)
		}
	}
	_, err = m.tryMint(m.Client, "team/JIRA-1", "key=1.tgz")
	if text := refusal(t, err); !strings.Contains(text, "no entity") {
		t.Errorf("%q does not say that the caller has no entity", text)
	}
}

// What preview shows is what is minted, byte for byte but for the end.
func TestPreviewIsWhatIsMinted(t *testing.T) {
	m := newMount(t)
	m.write("roles/key", map[string]any{
		"target": "prod", "action": putObject, "resource": "arn:aws:s3:::releases/{{task}}/{{key}}", "ttl": "10m",
		"parameters": map[string]any{"key": "[a-z]+"}, "bound_source_ip": true,
		"conditions": map[string]any{"StringEquals": map[string]any{"s3:x-amz-server-side-encryption": "aws:kms"}},
	})
	previewed, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/preview/key/JIRA-1", map[string][]string{"key": {"app"}})
	if err != nil {
		t.Fatal(err)
	}
	if users := m.users(); len(users) != 0 {
		t.Errorf("a preview made users %v", users)
	}
	minted := m.mint("key/JIRA-1", "key=app")
	without := func(data map[string]any) string {
		return strings.ReplaceAll(data["policy"].(string), data["expires_at"].(string), "END")
	}
	if got, want := without(minted.Data), without(previewed.Data); got != want {
		t.Errorf("minted\n%s\npreviewed\n%s", got, want)
	}
	if sent := policyIn(servers.Cloud.Calls(minted.grant())); sent != minted.Data["policy"] {
		t.Errorf("sent\n%s\nanswered\n%s", sent, minted.Data["policy"])
	}
	for _, part := range []string{"releases/JIRA-1/app", `"aws:SourceIp":"127.0.0.1/32"`, "NotIpAddress", "StringNotEquals"} {
		if !strings.Contains(fmt.Sprint(minted.Data["policy"]), part) {
			t.Errorf("the policy lacks %s: %s", part, minted.Data["policy"])
		}
	}
}
