package scope

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

const (
	object    = "arn:${Partition}:s3:::${BucketName}/${ObjectName}"
	bucket    = "arn:${Partition}:s3:::${BucketName}"
	queue     = "arn:${Partition}:sqs:${Region}:${Account}:${QueueName}"
	table     = "arn:${Partition}:dynamodb:${Region}:${Account}:table/${TableName}"
	index     = "arn:${Partition}:dynamodb:${Region}:${Account}:table/${TableName}/index/${IndexName}"
	parameter = "arn:${Partition}:ssm:${Region}:${Account}:parameter/${ParameterNameWithoutLeadingSlash}"
	secret    = "arn:${Partition}:secretsmanager:${Region}:${Account}:secret:${SecretId}"
)

func TestPatternMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, arn string
		accepted     bool
	}{
		{object, "arn:aws:s3:::releases/app/1.tgz", true},
		{object, "arn:aws:s3:::releases/*", true},
		{object, "arn:aws:s3:::releases/app/*", true},
		{object, "arn:aws:s3:::releases/a/b/c/*", true},
		{object, "arn:aws-cn:s3:::releases/a", true},
		{object, "arn:aws:s3:::releases", false},
		{object, "arn:aws:s3:::releases/", false},
		{object, "arn:aws:s3:::releases/app*", false},
		{object, "arn:aws:s3:::releases/*/x", false},
		{object, "arn:aws:s3:::releases/a?b", false},
		{object, "arn:aws:s3:::releases/**", false},
		{object, "arn:aws:s3:::releases/*/*", false},
		{object, "arn:aws:s3:::rel*/a", false},
		{object, "arn:aws:s3:::*/*", false},
		{object, "arn:aws:s3:::*", false},
		{object, "arn:aws:s3:::Releases/a", false},
		{object, "arn:aws:s3:::re/../other/*", false},
		{object, "arn:aws:s3:::re/./other", false},
		{object, "arn:aws:s3:::re//a/*", false},
		{object, "arn:*:s3:::releases/a", false},
		{object, "arn:aws:s3:eu-west-1::releases/a", false},
		{object, "arn:aws:s3::123456789012:releases/a", false},
		{object, "arn:aws:sqs:::releases/a", false},
		{bucket, "arn:aws:s3:::releases", true},
		{bucket, "arn:aws:s3:::releases/*", false},
		{bucket, "arn:aws:s3:::releases*", false},
		{bucket, "arn:aws:s3:::r", false},
		{queue, "arn:aws:sqs:eu-west-1:123456789012:jobs", true},
		{queue, "arn:aws:sqs:eu-west-1:123456789012:*", false},
		{queue, "arn:aws:sqs:eu-west-1:123456789012:jobs-*", false},
		{queue, "arn:aws:sqs:*:123456789012:jobs", false},
		{queue, "arn:aws:sqs:eu-west-1:*:jobs", false},
		{queue, "arn:aws:sqs:eu-west-1:1234:jobs", false},
		{queue, "arn:aws:sqs::123456789012:jobs", false},
		{queue, "arn:aws:sqs:eu-west-1:123456789012:jobs:x", false},
		{table, "arn:aws:dynamodb:eu-west-1:123456789012:table/orders", true},
		{table, "arn:aws:dynamodb:eu-west-1:123456789012:table/*", false},
		{table, "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/index/x", false},
		{index, "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/index/*", true},
		{index, "arn:aws:dynamodb:eu-west-1:123456789012:table/*/index/x", false},
		{index, "arn:aws:dynamodb:eu-west-1:123456789012:table/*", false},
		{parameter, "arn:aws:ssm:eu-west-1:123456789012:parameter/app/db", true},
		{parameter, "arn:aws:ssm:eu-west-1:123456789012:parameter/app/*", true},
		{parameter, "arn:aws:ssm:eu-west-1:123456789012:parameter/*", false},
		{secret, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf", true},
		{secret, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/*", true},
		{secret, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:*", false},
		{secret, "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod-*", false},
	} {
		arn, err := ParseARN(test.arn)
		if err != nil {
			t.Fatalf("%s: %v", test.arn, err)
		}
		err = NewPattern(test.pattern).Match(arn)
		if accepted := err == nil; accepted != test.accepted {
			t.Errorf("%s against %s: accepted %v, want %v (%v)", test.arn, test.pattern, accepted, test.accepted, err)
		}
		checkRefusal(t, err, test.arn)
	}
}

func TestNewRefuses(t *testing.T) {
	const okAction, okResource = "s3:PutObject", "arn:aws:s3:::releases/app/*"
	if _, err := New(okAction, okResource); err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"", "*", "s3:*", "s3:Put?bject", "s3:Put Object", "s3:Put\nObject", "s3:Put\u0130", strings.Repeat("a", 10<<20)} {
		_, err := New(action, okResource)
		if err == nil {
			t.Errorf("action %.40q was accepted", action)
		}
		checkRefusal(t, err, action)
	}
	for _, resource := range []string{"", "arn:aws:s3:::b/${aws:username}", "arn:aws:s3:::b/a\nb", "arn:aws:s3:::b/a\x00", "arn:aws:s3:::b/\uff0a", strings.Repeat("a", 10<<20)} {
		_, err := New(okAction, resource)
		if err == nil {
			t.Errorf("resource %.40q was accepted", resource)
		}
		checkRefusal(t, err, resource)
	}
}

// checkRefusal demands of an error that it can be mended: it is the caller's,
// says how, and does not repeat a huge value whole.
func checkRefusal(t *testing.T, err error, value string) {
	t.Helper()
	if err == nil {
		return
	}
	var refusal *invalid.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("%.40q: %T is not an *invalid.Error", value, err)
	}
	if refusal.Field == "" || refusal.Problem == "" || refusal.Remedy == "" {
		t.Errorf("%.40q: %q names no field, problem or remedy", value, err)
	}
	if len(err.Error()) > 1000 {
		t.Errorf("%.40q: the error has %d bytes", value, len(err.Error()))
	}
}

// FuzzMatch: whatever is accepted names one bucket literally, and has no
// wildcard but one at its very end after a "/".
func FuzzMatch(f *testing.F) {
	for _, seed := range []string{"arn:aws:s3:::releases/app/*", "arn:aws:s3:::b/${x}", "arn:aws:s3:::b/../c", "arn:aws:s3:::b/\uff0a", "arn::::::", "arn:aws:s3:::*/*"} {
		f.Add(seed)
	}
	pattern := NewPattern(object)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := New("s3:PutObject", text); err != nil {
			return
		}
		arn, err := ParseARN(text)
		if err != nil {
			return
		}
		if arn.String() != text {
			t.Fatalf("%q is read as %q", text, arn)
		}
		if pattern.Match(arn) != nil {
			return
		}
		container, leaf, found := strings.Cut(arn.Resource, "/")
		if !found || leaf == "" || strings.ContainsAny(container, "*?$") {
			t.Fatalf("%q does not name one bucket", text)
		}
		if inner := strings.TrimSuffix(leaf, "*"); strings.ContainsAny(inner, "*?") || (inner != leaf && inner != "" && !strings.HasSuffix(inner, "/")) {
			t.Fatalf("%q has a wildcard inside its leaf", text)
		}
	})
}
