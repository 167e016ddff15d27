package aws

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

const (
	repository = "arn:aws:ecr:eu-west-1:123456789012:repository/team/app"
	document   = "arn:aws:ssm:eu-west-1:123456789012:document/restart-app"
	instance   = "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0"
	packages   = "arn:aws:codeartifact:eu-west-1:123456789012:repository/company/releases"
	logGroup   = "arn:aws:logs:eu-west-1:123456789012:log-group:/ci/app"
	orders     = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"
)

// namedRoles has a role for each named action.
func namedRoles() map[string]role {
	consent := func(granted role) role { granted.escalation = true; return granted }
	return map[string]role{
		"s3:sync-up":           grants("s3:sync-up", uploads),
		"s3:sync-down":         grants("s3:sync-down", uploads),
		"s3:multipart-upload":  grants("s3:multipart-upload", uploads),
		"ecr:push":             consent(grants("ecr:push", repository)),
		"ecr:pull":             grants("ecr:pull", repository),
		"sqs:consume":          grants("sqs:consume", "arn:aws:sqs:eu-west-1:123456789012:jobs"),
		"kinesis:consume":      grants("kinesis:consume", "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"),
		"dynamodb:items":       grants("dynamodb:items", orders),
		"dynamodb:items-read":  grants("dynamodb:items-read", orders),
		"dynamodb:items-write": grants("dynamodb:items-write", orders),
		"ssm:run-document":     consent(grants("ssm:run-document", document, instance)),
		"logs:write":           grants("logs:write", logGroup),
		"codeartifact:publish": consent(grants("codeartifact:publish", packages)),
	}
}

// The policies that users get, byte for byte, and how much room they leave.
func TestNamedPolicies(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	all := namedRoles()
	if got := len(all); got != len(NamedActions("")) {
		t.Errorf("%d roles for %d named actions", got, len(NamedActions("")))
	}
	all["s3:sync-up bucket"] = grants("s3:sync-up", "arn:aws:s3:::releases/*")
	all["s3:sync-up key"] = grants("s3:sync-up", uploads).with("kms_key", key)
	for name, role := range all {
		got, err := role.compile(t, account)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %d characters", name, len(got))
		file := filepath.Join("testdata", "named", strings.NewReplacer(":", "-", " ", "-").Replace(name)+".json")
		if *update {
			if err := os.WriteFile(file, []byte(got+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// No named action hides one of AWS's, and each member is an action of AWS that works on
// what it is granted on.
func TestNamedActionsAreWhatTheySay(t *testing.T) {
	for _, name := range NamedActions("") {
		found, _ := FindNamed(name)
		if _, shadowed := catalog.Find(name); shadowed || strings.ToLower(name) != name {
			t.Errorf("%s may be taken for an action of AWS", name)
		}
		if found.Resource == "" || len(found.Members) == 0 {
			t.Errorf("%s says nothing", name)
		}
		for _, member := range found.Members {
			action, known := catalog.Find(member.Action)
			switch {
			case !known || action.Name != member.Action:
				t.Errorf("%s: no action %s", name, member.Action)
			case member.Why == "" || (member.kind != "" || member.free()) && member.On == "":
				t.Errorf("%s: nothing says why %s is there, and on what", name, member.Action)
			case member.free() && len(action.Resources) > 0:
				t.Errorf("%s: %s has resources, and is granted on all", name, member.Action)
			case member.kind != "":
				resource, err := scope.ParseARN(namedRoles()[name].Resource)
				if err != nil {
					t.Fatal(err)
				}
				kind, err := kindOf(action, member.kind)
				if err != nil || !takes(action, member.kind) {
					t.Fatalf("%s: %s on %s: %v", name, member.Action, member.kind, err)
				}
				on := member.on(resource)
				if !slices.ContainsFunc(kind.patterns, func(pattern scope.Pattern) bool {
					return pattern.Overlaps(on) ||
						pattern.Fits(on)
				}) {
					t.Errorf("%s: %s is not judged on %s", name, member.Action, on)
				}
				for _, use := range action.Resources {
					other, err := kindOf(action, use.Type)
					if err != nil {
						t.Fatal(err)
					}
					if use.Type != member.kind && slices.ContainsFunc(other.patterns,
						func(pattern scope.Pattern) bool { return pattern.Overlaps(on) }) {
						t.Errorf("%s: %s on %s is one on %s as well", name, member.Action, on, use.Type)
					}
				}
			}
		}
	}
}

// A role that would make more of a named action than its task is refused.
func TestNamedActionsRefuse(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	consent := func(granted role) role { granted.escalation = true; return granted }
	for name, test := range map[string]struct {
		role  role
		field string
		says  string
	}{
		"one object to sync":       {grants("s3:sync-up", "arn:aws:s3:::releases/app"), "resource", "prefix/*"},
		"a bucket to sync":         {grants("s3:sync-down", "arn:aws:s3:::releases"), "resource", "prefix/*"},
		"buckets to sync":          {grants("s3:sync-down", "arn:aws:s3:::*/*"), "resource", "contains the resource"},
		"an open prefix":           {grants("s3:sync-up", "arn:aws:s3:::releases/app*"), "resource", "prefix/*"},
		"push, without consent":    {grants("ecr:push", repository), "action", "its ecr:PutImage hands out further power"},
		"run, without consent":     {grants("ssm:run-document", document, instance), "action", "allow_escalation"},
		"run, without an instance": {consent(grants("ssm:run-document", document)), "companion_resources", "instance"},
		"companion too many": {grants("sqs:consume", "arn:aws:sqs:eu-west-1:123456789012:jobs",
			"arn:aws:sqs:eu-west-1:123456789012:other"), "companion_resources", "leave it out"},
		"a bucket as companion": {grants("s3:sync-up", uploads, "arn:aws:s3:::releases"), "companion_resources",
			"leave it out"},
		"log groups": {grants("logs:write", "arn:aws:logs:eu-west-1:123456789012:log-group:/ci/*"),
			"resource", "one resource"},
		"a stream": {grants("logs:write", logGroup+":log-stream:x"), "resource", ""},
		"repositories": {consent(grants("codeartifact:publish",
			"arn:aws:codeartifact:eu-west-1:123456789012:repository/company/*")), "resource", "one resource"},
		"tables": {grants("dynamodb:items", "arn:aws:dynamodb:eu-west-1:123456789012:table/*"),
			"resource", ""},
		"an index":          {grants("dynamodb:items-read", orders+"/index/by-day"), "resource", ""},
		"another service's": {grants("sqs:consume", repository), "resource", "sqs"},
		"another account": {grants("sqs:consume", "arn:aws:sqs:eu-west-1:210987654321:jobs"), "resource",
			"123456789012"},
		"its own condition": {grants("s3:sync-up",
			uploads).when(object{"StringLike": object{"s3:prefix": "app/x/*"}}), "conditions", "s3:PutObject carries no " +
			"such key"},
		"a condition of some": {grants("ecr:pull",
			repository).when(object{"StringEquals": object{"ecr:ResourceTag/env": "prod"}}), "conditions", "ecr:GetAuthorizationToken carries no such key"},
		"a key for nothing": {grants("ecr:pull", repository).with("kms_key", key), "kms_key",
			"ecr:pull needs no right"},
		"too long": {grants("s3:sync-up", "arn:aws:s3:::releases/"+strings.Repeat("x", 500)+"/*"),
			"resource", "2048"},
		"case":         {grants("s3:Sync-Up", uploads), "action", "write s3:sync-up"},
		"a wrong name": {grants("s3:sync", uploads), "action", "s3:sync-down or s3:sync-up"},
	} {
		_, err := test.role.compile(t, account)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != test.field || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want a refusal of %s that says %q", name, err, test.field, test.says)
		}
	}
}

// A parameter stays in its slot, and fills the resources that are derived from the role's.
func TestNamedActionsTakeParameters(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	for name, test := range map[string]struct {
		texts scope.Texts
		value string
		want  string // in the policy; empty for a refusal
	}{
		"a path": {scope.Texts{Action: "s3:sync-up", Resource: "arn:aws:s3:::releases/{{p}}/*"}, "a/b",
			`"s3:prefix":"a/b/*"`},
		"a bucket": {scope.Texts{Action: "s3:sync-up", Resource: "arn:aws:s3:::{{p}}/app/*"}, "other",
			`"Resource":"arn:aws:s3:::other"`},
		"no bucket": {scope.Texts{Action: "s3:sync-up", Resource: "arn:aws:s3:::{{p}}/app/*"}, "a/b", ""},
		"a group": {scope.Texts{Action: "logs:write",
			Resource: "arn:aws:logs:eu-west-1:123456789012:log-group:/{{p}}"}, "ci/x", `log-group:/ci/x:log-stream:*`},
		"a repository": {scope.Texts{Action: "codeartifact:publish",
			Resource: "arn:aws:codeartifact:eu-west-1:123456789012:repository/company/{{p}}"}, "x", `package/company/x/*`},
		"no repository": {scope.Texts{Action: "codeartifact:publish",
			Resource: "arn:aws:codeartifact:eu-west-1:123456789012:repository/company/{{p}}"}, "x/y", ""},
		"a domain alone": {scope.Texts{Action: "codeartifact:publish",
			Resource: "arn:aws:codeartifact:eu-west-1:123456789012:repository/{{p}}/x"}, "one", `"arn:aws:codeartifact:eu-west-1:123456789012:domain/one"`},
	} {
		test.texts.Parameters = object{"p": ".*"}
		definition, err := scope.Define(test.texts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		granted, err := definition.Fill(scope.Values{Parameters: map[string]string{"p": test.value}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := account.Compile(granted, provider.Bounds{ExpiresAt: end, AllowEscalation: true})
		if test.want == "" && err == nil || test.want != "" && !strings.Contains(string(got), test.want) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

// Check of a named action judges all its members.
func TestCheckOfNamedActions(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	for name, granted := range namedRoles() {
		policy, err := granted.compile(t, account)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(policy provider.Policy, at time.Time) provider.Verdict {
			verdict, err := account.(provider.Checker).Check(policy, provider.Question{Action: name,
				Resource: granted.Resource, Time: at})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return verdict
		}
		if verdict := ask(policy, end.Add(-time.Minute)); !verdict.Allowed {
			t.Errorf("%s is not allowed what it grants: %+v", name, verdict)
		}
		if verdict := ask(policy, end); verdict.Allowed || !strings.Contains(verdict.Reason, "needs") {
			t.Errorf("%s goes on after its end: %+v", name, verdict)
		}
		single := grants(granted.Action, granted.Resource, granted.Companions...)
		if single.Action = mustNamed(t, name).Members[0].Action; name == "ssm:run-document" || name == "logs:write" {
			continue // its one action, or the resource is another one
		}
		single.escalation = true
		less, err := single.compile(t, account)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if verdict := ask(less, end.Add(-time.Minute)); verdict.Allowed {
			t.Errorf("%s alone is taken for %s", single.Action, name)
		}
	}
}

func mustNamed(t *testing.T, name string) Named {
	t.Helper()
	found, known := FindNamed(name)
	if !known {
		t.Fatalf("no %s", name)
	}
	return found
}

// Advice has the warnings of each member, and each mint warns of a token. It does not miss
// a member as an action that is not granted.
func TestAdviceOfNamedActions(t *testing.T) {
	account := testAccount(t, "123456789012", "aws").(*account)
	for name, want := range map[string]struct{ mint, never string }{
		"ecr:push":             {"ecr:GetAuthorizationToken hands out a token", "lists every key"},
		"codeartifact:publish": {"codeartifact:GetAuthorizationToken hands out a token", "sts:GetServiceBearerToken depends"},
		"s3:sync-up":           {"", "lists every key"},
	} {
		granted, err := scope.New(name, namedRoles()[name].Resource)
		if err != nil {
			t.Fatal(err)
		}
		advice := account.Advise(granted, provider.Bounds{ExpiresAt: end, AllowEscalation: true})
		if mint := strings.Join(advice.Mint, "\n"); !strings.Contains(mint, want.mint) {
			t.Errorf("%s: %q", name, mint)
		}
		if all := strings.Join(advice.Definition, "\n"); strings.Contains(all, want.never) {
			t.Errorf("%s: %q", name, all)
		}
	}
}
