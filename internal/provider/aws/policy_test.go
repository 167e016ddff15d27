package aws

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

var end = time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)

func testAccount(t *testing.T, id, partition string) provider.Provider {
	t.Helper()
	opened, err := open(provider.Settings{"region": "eu-west-1", "access_key": "AKIA", "secret_key": "secret"}, provider.Facts{factAccount: id, factPartition: partition})
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func compiled(t *testing.T, account provider.Provider, action, resource string, options provider.Settings) (provider.Policy, error) {
	t.Helper()
	granted, err := scope.New(action, resource)
	if err != nil {
		t.Fatal(err)
	}
	return account.Compile(granted, provider.Bounds{ExpiresAt: end, Options: options})
}

// The policies that users get, byte for byte.
func TestPolicies(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	for name, granted := range map[string][2]string{
		"s3-prefix":     {"s3:PutObject", "arn:aws:s3:::releases/app/*"},
		"s3-bucket":     {"s3:ListBucket", "arn:aws:s3:::releases"},
		"sqs-queue":     {"sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs"},
		"s3-key-quoted": {"s3:GetObject", `arn:aws:s3:::releases/a<b>&"c"\d é`},
	} {
		got, err := compiled(t, account, granted[0], granted[1], nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestEveryActionCompiles(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	fill := strings.NewReplacer("${Partition}", "aws", "${Region}", "eu-west-1", "${Account}", "123456789012", "${BucketName}", "bucket",
		"${ObjectName}", "a/b", "${TableName}", "t", "${StreamName}", "s", "${SecretId}", "prod/db-AbCdEf", "${TopicName}", "t", "${QueueName}", "q", "${ParameterNameWithoutLeadingSlash}", "a/b")
	for action, pattern := range actions() {
		if _, err := compiled(t, account, action, fill.Replace(pattern.String()), nil); err != nil {
			t.Errorf("%s: %v", action, err)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	for name, test := range map[string]struct {
		account          provider.Provider
		action, resource string
		options          provider.Settings
		field            string
	}{
		"unverified account":   {testAccount(t, "", ""), "s3:PutObject", "arn:aws:s3:::releases/app/*", nil, "target"},
		"another partition":    {account, "s3:PutObject", "arn:aws-cn:s3:::releases/app/*", nil, "resource"},
		"another account":      {account, "sqs:SendMessage", "arn:aws:sqs:eu-west-1:210987654321:jobs", nil, "resource"},
		"escalation":           {account, "iam:PassRole", "arn:aws:iam::123456789012:role/admin", nil, "action"},
		"no resource level":    {account, "s3:ListAllMyBuckets", "arn:aws:s3:::releases", nil, "action"},
		"unknown credential":   {account, "s3:PutObject", "arn:aws:s3:::releases/app/*", provider.Settings{"credential_type": "root"}, "credential_type"},
		"boundary, not an ARN": {account, "s3:PutObject", "arn:aws:s3:::releases/app/*", provider.Settings{"permissions_boundary_arn": "admin"}, "permissions_boundary_arn"},
		"too long":             {account, "s3:PutObject", "arn:aws:s3:::releases/" + strings.Repeat("x", 900), nil, "resource"},
	} {
		_, err := compiled(t, test.account, test.action, test.resource, test.options)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != test.field {
			t.Errorf("%s: got %v, want a refusal of %s", name, err, test.field)
		}
	}
}

func TestUserNames(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	for _, grant := range []provider.Grant{
		{ID: "002da961utfd4w3opud7s2r7", Mount: "uuid", Role: "upload"},
		{ID: "002da961utfd4w3opud7s2r7", Mount: "uuid", Role: strings.Repeat("r", 64), Task: strings.Repeat("t", 128), EntityID: "entity"},
	} {
		handle, err := account.Prepare(grant)
		if err != nil {
			t.Fatal(err)
		}
		if name := handle[handleUser]; len(name) > maxUserName || !strings.Contains(name, grant.ID) || !strings.Contains(name, grant.Role[:6]) {
			t.Errorf("user name %q", name)
		}
		if handle[handlePath] != "/precision/uuid/" {
			t.Errorf("user path %q", handle[handlePath])
		}
		if _, tagged := handle[tagPrefix+"task"]; tagged != (grant.Task != "") {
			t.Errorf("task tag of %q: %v", grant.Task, tagged)
		}
	}
}
