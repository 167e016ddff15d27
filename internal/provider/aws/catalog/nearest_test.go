package catalog

import (
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"s3:PutObjct":                   "s3:PutObject",
		"S3:GETOBJECTS":                 "s3:GetObject",
		"s3:HeadObject":                 "s3:GetObject", // an operation
		"sqs:SendMessageBatch":          "sqs:SendMessage",
		"ssm:GetSecretValue":            "secretsmanager:GetSecretValue", // another service's
		"stepfunctions:StartExecution":  "states:StartExecution",
		"GetSecretValue":                "secretsmanager:GetSecretValue",
		"dynamo:PutItem":                "dynamodb:PutItem",
		"secretmanager:GetSecretValu":   "secretsmanager:GetSecretValue", // both misspelt
		"iam:CreateAcessKey":            "iam:CreateAccessKey",
		"sqs:Send":                      "sqs:SendMessage",
		"dynamodb:TransactWriteItems":   "dynamodb:PutItem",
		"kinesis:PutRecordz":            "kinesis:PutRecord",
		"cloudwatch:DescribeAlarmsByID": "cloudwatch:DescribeAlarms",
	} {
		names := Nearest(name)
		if len(names) == 0 || names[0] != want || len(names) > suggestions {
			t.Errorf("Nearest(%q) = %q, want %q first", name, names, want)
		}
	}
	for _, name := range []string{"", ":", "s3:", "xx:yy", "zzzzzzzzzzzzzzz:qqqqqqqqqqqqqqqqqqq", "s3:\u00fcbung", strings.Repeat("s3:PutObject", 1_000_000)} {
		if names := Nearest(name); len(names) != 0 {
			t.Errorf("Nearest(%.40q) = %q", name, names)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, want := range []struct {
		a, b     string
		limit    int
		distance int
	}{
		{"", "", 3, 0}, {"", "abc", 3, 3}, {"abc", "abc", 0, 0}, {"abc", "abd", 3, 1}, {"abc", "bc", 3, 1}, {"kitten", "sitting", 9, 3},
		{"kitten", "sitting", 2, 3}, {"abc", "xyz", 1, 2}, {"a", "abcdef", 2, 3},
	} {
		if distance := editDistance(want.a, want.b, want.limit); distance != want.distance {
			t.Errorf("editDistance(%q, %q, %d) = %d, want %d", want.a, want.b, want.limit, distance, want.distance)
		}
	}
	long := strings.Repeat("a", longest)
	if distance := editDistance(long, long[1:], longest); distance != 1 {
		t.Errorf("the longest names differ by %d", distance)
	}
}

// TestConcurrentUse has its worth under the race detector.
func TestConcurrentUse(t *testing.T) {
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, name := range []string{"glue:GetTable", "sns:Publish", "events:PutEvents"} {
				action, found := Find(name)
				service, _ := ServiceByPrefix(name[:strings.Index(name, ":")])
				if !found || len(service.Actions()) == 0 || Authorised(action).Kind == Unreviewed {
					t.Errorf("%s: %+v, %v", name, action, found)
				}
				EscalationOf(action)
				EncryptionOf(name)
				Operation(name)
				GlobalKey(name)
				Nearest(name + "x")
			}
		})
	}
	group.Wait()
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"s3:PutObject", "S3:HEADOBJECT", "ssm:GetSecretValue", "", ":", "::", "s3:\u212A", "a\x00b:c", "aws:PrincipalTag/x", strings.Repeat("a:", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		action, found := Find(name)
		if found && !strings.EqualFold(action.Name, name) {
			t.Errorf("Find(%q) = %q", name, action.Name)
		}
		if operation, ok := Operation(name); ok && (found || !canonical(operation)) {
			t.Errorf("Operation(%q) = %q, an action: %v", name, operation, found)
		}
		names := Nearest(name)
		if len(names) > suggestions || slices.ContainsFunc(names, func(n string) bool { return !canonical(n) }) {
			t.Errorf("Nearest(%q) = %q", name, names)
		}
		if found && (len(names) == 0 || names[0] != action.Name) {
			t.Errorf("Nearest(%q) = %q, which is an action", name, names)
		}
		if _, known := GlobalKey(name); known && len(name) > longest {
			t.Errorf("GlobalKey knows a name of %d bytes", len(name))
		}
	})
}
