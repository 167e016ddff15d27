package aws

import (
	"errors"
	"flag"
	"net/netip"
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

// role is what a role of the target may say.
type role struct {
	scope.Texts
	options    provider.Settings
	escalation bool
	source     netip.Addr
}

func (r role) compile(t *testing.T, account provider.Provider) (provider.Policy, error) {
	t.Helper()
	definition, err := scope.Define(r.Texts)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := definition.Fill(scope.Values{})
	if err != nil {
		t.Fatal(err)
	}
	return account.Compile(granted, provider.Bounds{ExpiresAt: end, Options: r.options, AllowEscalation: r.escalation, SourceIP: r.source})
}

func grants(action, resource string, companions ...string) role {
	return role{Texts: scope.Texts{Action: action, Resource: resource, Companions: companions}}
}

func (r role) when(conditions map[string]any) role {
	r.Conditions = conditions
	return r
}

func (r role) escalating() role {
	r.escalation = true
	return r
}

func (r role) with(name, value string) role {
	r.options = provider.Settings{name: value}
	return r
}

const (
	uploads = "arn:aws:s3:::releases/app/*"
	key     = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

type object = map[string]any

// The policies that users get, byte for byte.
func TestPolicies(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	sendCommand := grants("ssm:SendCommand", "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0", "arn:aws:ssm:eu-west-1::document/AWS-RunShellScript")
	sendCommand.escalation = true
	bound := grants("s3:PutObject", uploads)
	bound.source = netip.MustParseAddr("203.0.113.7")
	for name, role := range map[string]role{
		"s3-prefix":        grants("s3:PutObject", uploads),
		"s3-bucket":        grants("s3:ListBucket", "arn:aws:s3:::releases"),
		"sqs-queue":        grants("sqs:SendMessage", "arn:aws:sqs:eu-west-1:123456789012:jobs"),
		"s3-key-quoted":    grants("s3:GetObject", `arn:aws:s3:::releases/a<b>&"c"\d é`),
		"s3-kms-key":       grants("s3:PutObject", uploads).with("kms_key", key),
		"dynamodb-kms-key": grants("dynamodb:UpdateTable", "arn:aws:dynamodb:eu-west-1:123456789012:table/orders").with("kms_key", key).escalating(),
		"kms-action":       grants("kms:Decrypt", key),
		"bound-source-ip":  bound,
		"conditions": grants("s3:PutObject", uploads).when(object{
			"StringEquals": object{"s3:x-amz-server-side-encryption": []any{"aws:kms", "AES256"}},
			"Bool":         object{"aws:SecureTransport": "true"},
		}),
		"other-account": grants("s3:PutObject", uploads).with("resource_account", "210987654321"),
		"ssm-document":  sendCommand,
		"log-group":     grants("logs:PutLogEvents", "arn:aws:logs:eu-west-1:123456789012:log-group:app:log-stream:one"),
	} {
		got, err := role.compile(t, account)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		file := filepath.Join("testdata", name+".json")
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

var update = flag.Bool("update", false, "write the golden files anew")

func TestCompileRefuses(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	upload := grants("s3:PutObject", uploads)
	bound := upload.when(object{"IpAddress": object{"aws:SourceIp": "203.0.113.0/24"}})
	bound.source = netip.MustParseAddr("203.0.113.7")
	for name, test := range map[string]struct {
		account provider.Provider
		role    role
		field   string
		says    string
	}{
		"unverified account":       {testAccount(t, "", ""), upload, "target", "verify_connection"},
		"another partition":        {account, grants("s3:PutObject", "arn:aws-cn:s3:::releases/app/*"), "resource", "partition"},
		"another account":          {account, grants("sqs:SendMessage", "arn:aws:sqs:eu-west-1:210987654321:jobs"), "resource", "123456789012"},
		"escalation":               {account, grants("iam:CreateAccessKey", "arn:aws:iam::123456789012:user/ci"), "action", "allow_escalation"},
		"no resource level":        {account, grants("s3:ListAllMyBuckets", "arn:aws:s3:::releases"), "resource", "resource-level"},
		"operation":                {account, grants("s3:HeadObject", uploads), "action", "s3:GetObject"},
		"unknown action":           {account, grants("s3:PutObjects", uploads), "action", "s3:PutObject"},
		"wrong case":               {account, grants("s3:putobject", uploads), "action", "write s3:PutObject"},
		"unknown credential":       {account, upload.with("credential_type", "root"), "credential_type", "iam_user"},
		"boundary, not an ARN":     {account, upload.with("permissions_boundary_arn", "admin"), "permissions_boundary_arn", "arn:aws:iam::"},
		"too long":                 {account, grants("s3:PutObject", "arn:aws:s3:::releases/"+strings.Repeat("x", 900)), "resource", "2048"},
		"too long, with spaces":    {account, grants("s3:PutObject", "arn:aws:s3:::releases/"+strings.Repeat("x ", 400)+"x"), "resource", "2048"},
		"odd resource_account":     {account, upload.with("resource_account", "12"), "resource_account", "12 digits"},
		"kms alias":                {account, upload.with("kms_key", "arn:aws:kms:eu-west-1:123456789012:alias/app"), "kms_key", "alias"},
		"kms wildcard":             {account, upload.with("kms_key", "arn:aws:kms:eu-west-1:123456789012:key/*"), "kms_key", "key"},
		"kms of another partition": {account, upload.with("kms_key", "arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd"), "kms_key", "partition"},
		"kms of another region":    {account, grants("sqs:SendMessage", "arn:aws:sqs:us-east-1:123456789012:jobs").with("kms_key", key), "kms_key", "region"},
		"kms for nothing":          {account, grants("s3:ListBucket", "arn:aws:s3:::releases").with("kms_key", key), "kms_key", "leave kms_key out"},
		"unknown operator":         {account, upload.when(object{"StringEqual": object{"aws:PrincipalTag/team": "a"}}), "conditions", "StringEqual"},
		"unknown key":              {account, upload.when(object{"StringEquals": object{"s3:nothing": "a"}}), "conditions", "s3:nothing"},
		"another service's key":    {account, upload.when(object{"StringEquals": object{"ec2:Region": "a"}}), "conditions", "ec2:Region"},
		"another action's key":     {account, upload.when(object{"StringEquals": object{"s3:prefix": "a"}}), "conditions", "s3:prefix"},
		"operator of another type": {account, upload.when(object{"NumericLessThan": object{"aws:PrincipalTag/team": "1"}}), "conditions", "String"},
		"a set of one":             {account, upload.when(object{"ForAllValues:StringEquals": object{"aws:PrincipalTag/team": "a"}}), "conditions", "several values"},
		"one of a set":             {account, upload.when(object{"StringEquals": object{"aws:CalledVia": "a"}}), "conditions", "ForAnyValue"},
		"tags of no request":       {account, upload.when(object{"StringNotEquals": object{"aws:RequestTag/env": "prod"}}), "conditions", "carries no such key"},
		"the engine's end":         {account, upload.when(object{"DateLessThan": object{"aws:CurrentTime": "2030-01-01T00:00:00Z"}}), "conditions", "ttl"},
		"the engine's end, case":   {account, upload.when(object{"DateLessThan": object{"AWS:currenttime": "2030-01-01T00:00:00Z"}}), "conditions", "ttl"},
		"the engine's account":     {account, upload.when(object{"StringEquals": object{"aws:resourceaccount": "210987654321"}}), "conditions", "resource_account"},
		"a companion's lack": {account, grants("rds:RestoreDBInstanceFromS3", "arn:aws:rds:eu-west-1:123456789012:db:app", "arn:aws:rds:eu-west-1:123456789012:og:a", "arn:aws:rds:eu-west-1:123456789012:pg:a", "arn:aws:rds:eu-west-1:123456789012:subgrp:a").escalating().
			when(object{"StringEquals": object{"rds:DatabaseEngine": "mysql"}}), "conditions", "carries no such key"},
		"address twice":         {account, bound, "conditions", "bound_source_ip"},
		"companion too many":    {account, grants("s3:PutObject", uploads, "arn:aws:s3:::releases"), "companion_resources", "leave it out"},
		"not a companion's ARN": {account, grants("s3:PutObject", uploads, "releases"), "companion_resources", "arn:"},
		"policy variable":       {account, upload.when(object{"StringEquals": object{"aws:PrincipalTag/team": "a"}, "Null": object{"aws:PrincipalTag/team": "maybe"}}), "conditions", "Null"},
	} {
		_, err := test.role.compile(t, test.account)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != test.field || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want a refusal of %s that says %q", name, err, test.field, test.says)
		}
	}
}

// Keys of the action, of its resource in the action and of the resource's type.
func TestConditionKeys(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	queue := "arn:aws:sqs:eu-west-1:123456789012:jobs"
	for _, role := range []role{
		grants("kms:Decrypt", key).when(object{"ForAnyValue:StringEquals": object{"kms:ResourceAliases": "alias/app"}, "StringEquals": object{"kms:EncryptionContext:app": "x"}}),
		grants("s3:GetObject", uploads).when(object{"StringEquals": object{"s3:ExistingObjectTag/env": "prod"}}),
		grants("ecr:BatchGetImage", "arn:aws:ecr:eu-west-1:123456789012:repository/app").when(object{"StringEquals": object{"ecr:ResourceTag/env": "prod"}}),
		grants("sqs:SendMessage", queue).when(object{"StringEquals": object{"aws:ResourceTag/env": "prod"}}),
		grants("sqs:TagQueue", queue).when(object{"ForAllValues:StringEquals": object{"aws:TagKeys": "env"}, "StringEquals": object{"aws:RequestTag/env": "prod"}}),
	} {
		if _, err := role.compile(t, account); err != nil {
			t.Errorf("%s with %v: %v", role.Action, role.Conditions, err)
		}
	}
}

func TestAdvice(t *testing.T) {
	account := testAccount(t, "123456789012", "aws").(*account)
	for name, test := range map[string]struct {
		role             role
		definition, mint string
	}{
		"escalation":   {grants("iam:CreateAccessKey", "arn:aws:iam::123456789012:user/ci"), "", "more than this grant"},
		"dependent":    {grants("lambda:CreateFunction", "arn:aws:lambda:eu-west-1:123456789012:function:app"), "iam:PassRole", ""},
		"whole bucket": {grants("s3:ListBucket", "arn:aws:s3:::releases"), "every key of the bucket", ""},
		"encryption":   {grants("s3:GetObject", uploads).with("kms_key", key), "kms:Decrypt", ""},
	} {
		granted, err := scope.New(test.role.Action, test.role.Resource)
		if err != nil {
			t.Fatal(err)
		}
		advice := account.Advise(granted, provider.Bounds{ExpiresAt: end, AllowEscalation: true, Options: test.role.options})
		if !strings.Contains(strings.Join(advice.Definition, "\n"), test.definition) || !strings.Contains(strings.Join(advice.Mint, "\n"), test.mint) {
			t.Errorf("%s: %+v", name, advice)
		}
		if test.mint == "" && len(advice.Mint) > 0 {
			t.Errorf("%s: each mint is warned of %v", name, advice.Mint)
		}
	}
}

func TestUserNames(t *testing.T) {
	account := testAccount(t, "123456789012", "aws")
	for _, grant := range []provider.Grant{
		{ID: "002da961utfd4w3opud7s2r7", Mount: "uuid", Role: "upload"},
		{ID: "002da961utfd4w3opud7s2r7", Mount: "uuid", Role: strings.Repeat("r", 64), Task: strings.Repeat("t", 128), EntityID: "entity"},
	} {
		handle, err := account.Prepare(t.Context(), grant)
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
