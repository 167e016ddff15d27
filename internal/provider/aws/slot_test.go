package aws

import (
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// What is filled in stays in its slot, in a condition and in the frame of an ARN.
func TestFilledInStaysInItsSlot(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	upload := func(operator, key, value string) scope.Texts {
		return scope.Texts{Action: "s3:PutObject", Resource: uploads, Conditions: object{operator: object{key: value}}}
	}
	for name, test := range map[string]struct {
		texts scope.Texts
		value string
		fits  bool
	}{
		"host":                    {upload("IpAddress", "aws:SourceIp", "10.0.0.{{p}}"), "7", true},
		"range from a host":       {upload("IpAddress", "aws:SourceIp", "10.0.0.{{p}}"), "7/0", false},
		"range to spare":          {upload("NotIpAddress", "aws:SourceIp", "10.0.0.{{p}}"), "7/31", false},
		"size of a range":         {upload("IpAddress", "aws:SourceIp", "10.0.0.0/{{p}}"), "24", true},
		"a range, the whole":      {upload("IpAddress", "aws:SourceIp", "{{p}}"), "10.0.0.0/24", true},
		"path in a string":        {upload("StringLike", "aws:PrincipalTag/path", "team/{{p}}/*"), "a/b", true},
		"account":                 {scope.Texts{Action: "sqs:SendMessage", Resource: "arn:aws:sqs:eu-west-1:{{p}}:jobs"}, "123456789012", false},
		"account by another name": {scope.Texts{Action: "datasync:DescribeAgent", Resource: "arn:aws:datasync:eu-west-1:{{p}}:agent/agent-1"}, "123456789012", false},
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
		_, err = account.Compile(granted, provider.Bounds{ExpiresAt: end})
		if test.fits != (err == nil) || !test.fits && !strings.Contains(err.Error(), "invalid p ") {
			t.Errorf("%s: %q: %v", name, test.value, err)
		}
	}
}
