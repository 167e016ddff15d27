package iampolicy

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// refusedFor checks that err is a refusal of field.
func refusedFor(t *testing.T, name string, err error, field string) {
	t.Helper()
	var refusal *invalid.Error
	if !errors.As(err, &refusal) || refusal.Field != field || refusal.Problem == "" || refusal.Remedy == "" {
		t.Errorf("%s: got %v, want a refusal of %s", name, err, field)
	}
}

func TestParseAccepts(t *testing.T) {
	for _, text := range []string{
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`,
		`{"Version":"2008-10-17","Id":"old","Statement":[{"Sid":"Everyone may","Effect":"Allow","Principal":"*","Action":["s3:Get*","sqs:SendMessag?"],"NotResource":["arn:aws:s3:::b/*"]}]}`,
		policy(`{"Effect":"Deny","NotPrincipal":{"AWS":["123456789012","arn:aws:iam::123456789012:root","AIDAJQABLZS4A3QDU576Q"]},"NotAction":"iam:*","Resource":"arn:aws:s3"}`),
		policy(`{"Effect":"Allow","Principal":{"Service":"sns.amazonaws.com","Federated":["cognito-identity.amazonaws.com"],"CanonicalUser":"79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be","AWS":"*"},"Action":"sts:AssumeRole"}`),
		policy(`{"Effect":"Allow","Action":"*:*","Resource":"arn:aws:s3:::${aws:username}/*","Condition":{}}`),
		" \n" + policy(`{"Effect":"Allow","Action":"s3:GetObject","Resource":"*","Condition":{"ForAllValues:StringLikeIfExists":{"aws:TagKeys":["a*"]},"Bool":{"aws:SecureTransport":true},"NumericLessThan":{"s3:max-keys":10}}}`) + "\t",
	} {
		if _, err := Parse("policy", text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	statement := func(elements string) string { return `{"Statement":[{` + elements + `}]}` }
	allow := func(elements string) string {
		return policy(`{"Effect":"Allow","Action":"s3:GetObject","Resource":"*",` + elements + `}`)
	}
	for text, problem := range map[string]string{
		``:                    "no JSON",
		`[]`:                  "a list, not an object",
		`{}`:                  "no Statement",
		`{"Statement":[]}`:    "no statement",
		`{"Statement":"x"}`:   "no statement",
		`{"Statement":["x"]}`: "statement 1: a string, not an object",
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}} {}`:                            "no JSON",
		`{"statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`:                               `unknown element "statement"`,
		`{"Version":"2012-10-18","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`:        "Version",
		`{"Version":20121017,"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`:            "Version",
		`{"Id":7,"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`:                        "Id is a number",
		`{"Statement":{"Effect":"Allow","Effect":"Deny","Action":"*","Resource":"*"}}`:               `"Effect" stands twice`,
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"},"Statement":[]}`:                `"Statement" stands twice`,
		"{\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"arn:aws:s3:::\xff\"}}": "UTF-8",
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::\ud800"}}`:             "no Unicode",
		strings.Repeat(`{"Statement":[`, 9) + strings.Repeat(`]}`, 9):                                "deeper",
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}` + strings.Repeat(" ", 32<<10): "bytes",
		statement(`"Action":"*","Resource":"*"`):                                                     "Effect",
		statement(`"Effect":"allow","Action":"*","Resource":"*"`):                                    "Effect",
		statement(`"Effect":["Allow"],"Action":"*","Resource":"*"`):                                  "Effect",
		statement(`"Effect":"Allow","Resource":"*"`):                                                 "neither Action nor NotAction",
		statement(`"Effect":"Allow","Action":"*","NotAction":"s3:*","Resource":"*"`):                 "both Action and NotAction",
		statement(`"Effect":"Allow","Action":"*","Resource":"*","NotResource":"arn:aws:s3:::b"`):     "both Resource and NotResource",
		statement(`"Effect":"Allow","Action":"*","Resource":"*","Principal":"*","NotPrincipal":"*"`): "both Principal and NotPrincipal",
		statement(`"Effect":"Allow","Action":[],"Resource":"*"`):                                     "an empty list",
		statement(`"Effect":"Allow","Action":"GetObject","Resource":"*"`):                            "service:action",
		statement(`"Effect":"Allow","Action":"s*:GetObject","Resource":"*"`):                         "service:action",
		statement(`"Effect":"Allow","Action":"s3:Get Object","Resource":"*"`):                        "service:action",
		statement(`"Effect":"Allow","Action":7,"Resource":"*"`):                                      "a number or boolean, not a string",
		statement(`"Effect":"Allow","Action":"*","Resource":"bucket/*"`):                             "neither an ARN",
		statement(`"Effect":"Allow","Action":"*","Resource":null`):                                   "null, not a string",
		statement(`"Effect":"Allow","Action":"*","Resource":[["*"]]`):                                "a list, not a string",
		statement(`"Effect":"Allow","Action":"*","Resource":"*","Sid":1`):                            "Sid",
		statement(`"Effect":"Allow","Action":"*","Resource":"*","Conditions":{}`):                    `unknown element "Conditions"`,
		policy(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username"}`):           "isn't closed",
		policy(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${username}"}`):              "no condition key",
		policy(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username,'x}"}`):       "no condition key",
		policy(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${}"}`):                      "no condition key",
		allow(`"Principal":{}`):                                                      "neither",
		allow(`"Principal":"123456789012"`):                                          "neither",
		allow(`"Principal":["*"]`):                                                   "neither",
		allow(`"Principal":{"aws":"*"}`):                                             `unknown element "aws"`,
		allow(`"Principal":{"AWS":[]}`):                                              "an empty list",
		allow(`"Principal":{"AWS":"arn:aws:iam::123456789012:user/*"}`):              "written out",
		allow(`"Principal":{"AWS":"ann"}`):                                           "no account",
		allow(`"Principal":{"AWS":"arn:aws:s3:::bucket"}`):                           "no account",
		allow(`"Principal":{"Service":["*.amazonaws.com"]}`):                         "written out",
		allow(`"Condition":[]`):                                                      "a list, not an object",
		allow(`"Condition":{"StringEquals":{}}`):                                     "no condition key",
		allow(`"Condition":{"StringEquals":"x"}`):                                    "no condition key",
		allow(`"Condition":{"StringEquals":{"":"x"}}`):                               "empty",
		allow(`"Condition":{"StringEquals":{"aws:a":"x","AWS:A":"y"}}`):              "twice",
		allow(`"Condition":{"StringEquals":{"aws:a":[]}}`):                           "an empty list",
		allow(`"Condition":{"StringEquals":{"aws:a":null}}`):                         "null, not a string",
		allow(`"Condition":{"StringEquals":{"aws:a":{"x":"y"}}}`):                    "an object, not a string",
		allow(`"Condition":{"stringEquals":{"aws:a":"x"}}`):                          "the nearest is StringEquals",
		allow(`"Condition":{"StringMatches":{"aws:a":"x"}}`):                         "no such condition operator",
		allow(`"Condition":{"ForEachValue:StringEquals":{"aws:a":"x"}}`):             "no such condition operator",
		allow(`"Condition":{"ForAnyValue:ForAllValues:StringEquals":{"aws:a":"x"}}`): "no such condition operator",
		allow(`"Condition":{"NullIfExists":{"aws:a":"true"}}`):                       "Null takes neither",
		allow(`"Condition":{"ForAllValues:Null":{"aws:a":"true"}}`):                  "Null takes neither",
		allow(`"Condition":{"Null":{"aws:a":"yes"}}`):                                "neither true nor false",
		allow(`"Condition":{"Bool":{"aws:a":"1"}}`):                                  "neither true nor false",
		allow(`"Condition":{"NumericEquals":{"aws:a":"1e3"}}`):                       "no integer",
		allow(`"Condition":{"NumericEquals":{"aws:a":1e3}}`):                         "no integer",
		allow(`"Condition":{"NumericEquals":{"aws:a":"${aws:b}"}}`):                  "no integer",
		allow(`"Condition":{"DateLessThan":{"aws:a":"2026"}}`):                       "no date",
		allow(`"Condition":{"DateLessThan":{"aws:a":"2026-01-31T12:00:00"}}`):        "no date",
		allow(`"Condition":{"DateLessThan":{"aws:a":"tomorrow"}}`):                   "no date",
		allow(`"Condition":{"IpAddress":{"aws:a":"10.0.0.0/33"}}`):                   "no IP address",
		allow(`"Condition":{"IpAddress":{"aws:a":"10.0.0"}}`):                        "no IP address",
		allow(`"Condition":{"IpAddress":{"aws:a":"fe80::1%eth0"}}`):                  "no IP address",
		allow(`"Condition":{"BinaryEquals":{"aws:a":"no base64"}}`):                  "no base64",
		allow(`"Condition":{"ArnLike":{"aws:a":"*"}}`):                               "six parts",
		allow(`"Condition":{"ArnEquals":{"aws:a":"arn:aws:s3"}}`):                    "six parts",
		allow(`"Condition":{"StringLike":{"aws:a":"${b"}}`):                          "isn't closed",
	} {
		_, err := Parse("resource_policy", text)
		refusedFor(t, text, err, "resource_policy")
		if err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("%s\n%v\nwant it to say %q", text, err, problem)
		}
	}
}

func TestStatementIsCompact(t *testing.T) {
	document := parsed(t, "{ \"Statement\" : [ {\"Effect\":\"Allow\", \"Resource\": [\"arn:aws:s3:::a<b>&\\u00e9\\\"\", \"*\"],\n\t\"Action\":\"s3:*\", \"Condition\":{ \"Bool\": {\"a:b\": true}, \"NumericEquals\": {\"a:c\": 1.50} } } ] }")
	const want = `{"Effect":"Allow","Resource":["arn:aws:s3:::a<b>&é\"","*"],"Action":"s3:*","Condition":{"Bool":{"a:b":true},"NumericEquals":{"a:c":1.50}}}`
	if got := document.Statement(0); document.Len() != 1 || got != want {
		t.Errorf("got %s", got)
	}
}
