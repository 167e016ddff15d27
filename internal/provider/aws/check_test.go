package aws

import (
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// A reviewer who is told no has to be able to rely on it.
func TestCheck(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	const theirs = "210987654321"
	open := func(principal string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"s3:*","Resource":["arn:aws:s3:::releases","arn:aws:s3:::releases/*"]}]}`
	}
	object := "arn:aws:s3:::releases/app/1"
	upload := grants("s3:PutObject", uploads)
	for name, test := range map[string]struct {
		role     role
		question provider.Question
		effect   string // empty for any that denies
		says     string
	}{
		"granted":             {upload, provider.Question{Action: "s3:PutObject", Resource: object}, "Allowed", "statement 1"},
		"after the end":       {upload, provider.Question{Action: "s3:PutObject", Resource: object, Time: end}, "ExplicitlyDenied", ""},
		"everybody's bucket":  {upload, provider.Question{Action: "s3:DeleteObject", Resource: object, ResourcePolicy: open(`"*"`)}, "ExplicitlyDenied", "statement 2"},
		"nobody forbids it":   {upload, provider.Question{Action: "sts:GetCallerIdentity", Resource: "*"}, "Allowed", "no policy forbids it"},
		"nor this":            {upload, provider.Question{Action: "sts:GetSessionToken", Resource: "*"}, "Allowed", "no policy forbids it"},
		"a bucket that moved": {upload, provider.Question{Action: "s3:PutObject", Resource: object, Context: map[string][]string{"aws:resourceAccount": {theirs}}, ResourcePolicy: open(`"*"`)}, "ExplicitlyDenied", "statement 5"},
		"another account's":   {upload.with("resource_account", theirs), provider.Question{Action: "s3:PutObject", Resource: object, ResourcePolicy: open(`{"AWS":"123456789012"}`)}, "Allowed", "resource policy of the other account"},
		"which has to agree":  {upload.with("resource_account", theirs), provider.Question{Action: "s3:PutObject", Resource: object}, "ImplicitlyDenied", "no resource policy"},
		"what is not known":   {upload.when(map[string]any{"StringEquals": map[string]any{"aws:SourceVpc": "vpc-1"}}), provider.Question{Action: "s3:PutObject", Resource: object}, "ExplicitlyDenied", "aws:SourceVpc, which the request does not have"},
	} {
		policy, err := test.role.compile(t, account)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if test.question.Time.IsZero() {
			test.question.Time = end.Add(-time.Minute)
		}
		test.question.Options = test.role.options
		verdict, err := account.(provider.Checker).Check(policy, test.question)
		if err != nil || test.effect != "" && verdict.Effect != test.effect || verdict.Allowed != (test.effect == "Allowed") || !strings.Contains(verdict.Reason, test.says) {
			t.Errorf("%s: %+v, %v", name, verdict, err)
		}
	}
}
