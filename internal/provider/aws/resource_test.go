package aws

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

const here = ":eu-west-1:123456789012:"

func parse(t *testing.T, text string) scope.ARN {
	t.Helper()
	arn, err := scope.ParseARN(text)
	if err != nil {
		t.Fatal(err)
	}
	return arn
}

func find(t *testing.T, name string) catalog.Action {
	t.Helper()
	action, known := catalog.Find(name)
	if !known {
		t.Fatalf("the catalogue has no %s", name)
	}
	return action
}

func TestResolve(t *testing.T) {
	for _, test := range []struct {
		action, resource string
		companions       []string
		kind, canonical  string
		note             string
	}{
		{"s3:GetObject", "arn:aws:s3:::releases/app/*", nil, "object", "", ""},
		{"s3:ListBucket", "arn:aws:s3:::releases", nil, "bucket", "", ""},
		{"s3:GetAccessPointPolicy", "arn:aws:s3" + here + "accesspoint/mine", nil, "accesspoint", "", ""},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:/aws/x", nil, "log-group", "arn:aws:logs" + here + "log-group:/aws/x:*", "no wildcard over groups"},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:/aws/x:*", nil, "log-group", "arn:aws:logs" + here + "log-group:/aws/x:*", "no wildcard over groups"},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:/aws/*", nil, "log-group", "", ""},
		{"logs:TagResource", "arn:aws:logs" + here + "log-group:/aws/x:*", nil, "log-group", "arn:aws:logs" + here + "log-group:/aws/x", ""},
		{"logs:PutLogEvents", "arn:aws:logs" + here + "log-group:/aws/x:log-stream:*", nil, "log-stream", "", ""},
		{"logs:PutSubscriptionFilter", "arn:aws:logs" + here + "log-group:x", nil, "log-group", "arn:aws:logs" + here + "log-group:x:*", "also names a resource of type destination"},
		{"dynamodb:Query", "arn:aws:dynamodb" + here + "table/t/index/i", nil, "index", "", ""},
		{"dynamodb:Query", "arn:aws:dynamodb" + here + "table/t/index/*", nil, "index", "", ""},
		{"dynamodb:Query", "arn:aws:dynamodb" + here + "table/t", nil, "table", "", ""},
		{"es:ESHttpGet", "arn:aws:es" + here + "domain/d/logs/_search", nil, "domain", "", ""},
		{"es:ESHttpGet", "arn:aws:es" + here + "domain/d/*", nil, "domain", "", ""},
		{"es:DescribeDomain", "arn:aws:es" + here + "domain/d", nil, "domain", "", ""},
		{"secretsmanager:GetSecretValue", "arn:aws:secretsmanager" + here + "secret:prod/db-AbCdEf", nil, "Secret", "", ""},
		{"secretsmanager:GetSecretValue", "arn:aws:secretsmanager" + here + "secret:prod/*", nil, "Secret", "", ""},
		{"secretsmanager:CreateSecret", "arn:aws:secretsmanager" + here + "secret:prod/*", nil, "Secret", "", ""},
		{"kms:Decrypt", "arn:aws:kms" + here + "key/k", nil, "key", "", ""},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/team/a", []string{"arn:aws:kms" + here + "key/k"}, "alias", "", ""},
		{"kms:CreateAlias", "arn:aws:kms" + here + "key/k", []string{"arn:aws:kms" + here + "alias/a"}, "key", "", ""},
		{"lambda:InvokeFunction", "arn:aws:lambda" + here + "function:f", nil, "function", "", "function:NAME:QUALIFIER"},
		{"lambda:InvokeFunction", "arn:aws:lambda" + here + "function:f:live", nil, "function", "", ""},
		{"ssm:GetParameter", "arn:aws:ssm:eu-west-1::parameter/aws/service/x", nil, "parameter", "", ""},
		{"ssm:SendCommand", "arn:aws:ssm:eu-west-1::document/AWS-RunShellScript", []string{"arn:aws:ec2" + here + "instance/i-1"}, "document", "", "bucket"},
		{"ssm:StartSession", "arn:aws:ec2" + here + "instance/i-1", []string{"arn:aws:ssm" + here + "document/SSM-SessionManagerRunShell"}, "instance", "", ""},
		{"directconnect:AssociateHostedConnection", "arn:aws:directconnect" + here + "dxcon/a", []string{"arn:aws:directconnect" + here + "dxcon/b"}, "dxcon", "", "dxlag"},
		{"mediapackagev2:GetChannelPolicy", "arn:aws:mediapackagev2" + here + "channelGroup/g/channel/c", []string{"arn:aws:mediapackagev2" + here + "channelGroup/g"}, "Channel", "", ""},
		{"bedrock:InvokeModel", "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", nil, "foundation-model", "", ""},
		{"bedrock-agentcore:GetWorkloadIdentity", "arn:aws:bedrock-agentcore" + here + "workload-identity-directory/default/workload-identity/a", nil, "workload-identity", "", "may ask for more"},
		{"neptune-db:connect", "arn:aws:neptune-db" + here + "cluster-ABC/*", nil, "database", "", ""},
		{"connect:ListQueues", "arn:aws:connect" + here + "instance/i/queue/*", nil, "wildcard-queue", "", ""},
		{"sts:AssumeRole", "arn:aws:iam::123456789012:role/team/deploy", nil, "role", "", ""},
		{"codeartifact:PublishPackageVersion", "arn:aws:codeartifact" + here + "package/d/r/pypi//requests", nil, "package", "", ""},
	} {
		var companions []scope.ARN
		for _, text := range test.companions {
			companions = append(companions, parse(t, text))
		}
		got, err := resolve(find(t, test.action), parse(t, test.resource), companions)
		if err != nil {
			t.Errorf("%s on %s: %v", test.action, test.resource, err)
			continue
		}
		want := test.canonical
		if want == "" {
			want = test.resource
		}
		if got.Type != test.kind || got.Resource.String() != want || len(got.Companions) != len(companions) || len(got.CompanionPatterns) != len(companions) {
			t.Errorf("%s on %s: %s %s with %v, want %s %s", test.action, test.resource, got.Type, got.Resource, got.Companions, test.kind, want)
		}
		if err := got.Pattern.Match(got.Resource); err != nil {
			t.Errorf("%s: %v", test.action, err)
		}
		for i, pattern := range got.CompanionPatterns {
			if err := pattern.Match(got.Companions[i]); err != nil {
				t.Errorf("%s: %v", test.action, err)
			}
		}
		if notes := strings.Join(got.Notes, "; "); (test.note == "") != (notes == "") || !strings.Contains(notes, test.note) {
			t.Errorf("%s on %s: notes %q, want %q", test.action, test.resource, notes, test.note)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	const (
		instance = "arn:aws:ec2" + here + "instance/i-1"
		document = "arn:aws:ssm:eu-west-1::document/AWS-RunShellScript"
	)
	for _, test := range []struct {
		action, resource string
		companions       []string
		field            string
		problem, remedy  string
	}{
		{"events:DeleteRule", "arn:aws:events" + here + "rule/aws.partner/*", nil, resourceField, "every partner's bus", "name one rule"},
		{"s3:PutObject", "arn:aws:s3:::releases", nil, resourceField, "shape", "arn:aws:s3:::${BucketName}/${ObjectName}"},
		{"s3:PutObject", "arn:aws:s3:::releases/app*", nil, resourceField, "", "write it as arn:aws:s3:::releases/app/*"},
		{"s3:PutObject", "arn:aws:s3" + here + "accesspoint/mine/object/x", nil, resourceField, "on the bucket", "name the bucket"},
		{"s3:ListBucket", "arn:aws:s3" + here + "accesspoint/mine", nil, resourceField, "on the bucket", "name the bucket"},
		{"s3:ListAllMyBuckets", "arn:aws:s3:::releases", nil, resourceField, "no resource-level permission", "by conditions only: s3:"},
		{"ec2:DescribeInstances", instance, nil, resourceField, "no resource-level permission", "ec2:Region"},
		{"sqs:SendMessage", "arn:aws:sns" + here + "jobs", nil, resourceField, "service \"sns\"", "arn:aws:sqs:"},
		{"dynamodb:PutItem", "arn:aws:dynamodb" + here + "table/t/index/i", nil, resourceField, "shape", "table/${TableName}"},
		{"dynamodb:Query", "arn:aws:dynamodb" + here + "table/t/stream/2026-01-01T00:00:00.000", nil, resourceField, "no resource of this shape", "index/${IndexName}"},
		{"dynamodb:Query", "arn:aws:dynamodb" + here + "table/t/index/i", []string{"arn:aws:dynamodb" + here + "table/t"}, companionField, "reach further", "leave it out"},
		{"s3:GetObject", "arn:aws:s3:::releases/a", []string{"arn:aws:s3:::releases/b"}, companionField, "one resource", "leave it out"},
		{"kms:Decrypt", "arn:aws:kms" + here + "alias/a", nil, resourceField, "an alias never matches", "kms:ResourceAliases"},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/a", nil, companionField, "several resources at once", "key/${KeyId}"},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/a", []string{"arn:aws:kms" + here + "alias/b"}, companionField, "no second resource", "leave it out"},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/a", []string{"arn:aws:kms" + here + "key/k", "arn:aws:kms" + here + "key/l"}, companionField, "no second resource", "leave it out"},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/a", []string{"arn:aws:kms" + here + "key/*"}, companionField, "no wildcard", "key/${KeyId}"},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/a", []string{"arn:aws:sqs" + here + "q"}, companionField, "shape", "key/${KeyId}"},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/a", []string{"arn:aws:kms" + here + "alias/a"}, companionField, "named twice", ""},
		{"appconfig:GetConfiguration", "arn:aws:appconfig" + here + "application/a", []string{"arn:aws:appconfig" + here + "application/a/environment/*", "arn:aws:appconfig" + here + "application/a/configurationprofile/c"}, companionField, "without a wildcard", "write it out"},
		{"directconnect:AssociateHostedConnection", "arn:aws:directconnect" + here + "dxcon/a", []string{"arn:aws:directconnect" + here + "dxcon/a"}, companionField, "named twice", ""},
		{"ssm:SendCommand", document, nil, companionField, "several resources at once", "instance/${InstanceId}"},
		{"ssm:SendCommand", document, []string{instance, "arn:aws:ssm" + here + "managed-instance/mi-1"}, companionField, "no second resource", "leave it out"},
		{"ssm:SendCommand", document, []string{instance, "arn:aws:s3:::output"}, companionField, "never judges it on that alone", "always works on"},
		{"ssm:GetParametersByPath", "arn:aws:ssm" + here + "parameter/app/*", nil, resourceField, "everything below", "ssm:GetParameter"},
		{"secretsmanager:GetSecretValue", "arn:aws:secretsmanager" + here + "secret:prod/db", nil, resourceField, "six characters", "secret:prod/db-AbCdEf"},
		{"secretsmanager:GetSecretValue", "arn:aws:secretsmanager" + here + "secret:prod/db-12345", nil, resourceField, "six characters", ""},
		{"secretsmanager:GetSecretValue", "arn:aws:secretsmanager" + here + "secret:*", nil, resourceField, "\"*\"", ""},
		{"secretsmanager:CreateSecret", "arn:aws:secretsmanager" + here + "secret:prod/db-AbCdEf", nil, resourceField, "nobody knows", "/*"},
		{"logs:PutLogEvents", "arn:aws:logs" + here + "log-group:/aws/x:*", nil, resourceField, "written out", "log-stream:${LogStreamName}"},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:*", nil, resourceField, "", "log-group:${LogGroupName}"},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:*:*", nil, resourceField, "", ""},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:a:b", nil, resourceField, "shape", ""},
		{"logs:FilterLogEvents", "arn:aws:logs" + here + "log-group:/aws/*:*", nil, resourceField, "fixed end", ""},
		{"es:ESHttpGet", "arn:aws:es" + here + "domain/d", nil, resourceField, "a domain alone matches none", "domain/d/INDEX/_search"},
		{"es:ESHttpGet", "arn:aws:es" + here + "domain/*", nil, resourceField, "", ""},
		{"backup:StartRestoreJob", "arn:aws:ec2:eu-west-1::snapshot/snap-1", nil, resourceField, "", ""},
		{"backup:DeleteRecoveryPoint", "arn:aws:backup" + here + "recovery-point:r", nil, resourceField, "of any shape", "another action"},
		{"connect:ListQueues", "arn:aws:connect" + here + "instance/i/queue/q", nil, resourceField, "all of them at once", "instance/i/queue/*"},
		{"identitystore:ListUsers", "arn:aws:identitystore::123456789012:identitystore/d-1", []string{"arn:aws:identitystore:::user/u"}, resourceField, "", ""},
		{"ec2:CreateVpcEndpoint", "arn:aws:ec2" + here + "vpc/v", nil, resourceField, "", ""},
		{"appfabric:GetIngestionDestination", "arn:aws:appfabric" + here + "appbundle/b/ingestion/*", []string{"arn:aws:appfabric" + here + "appbundle/b", "arn:aws:appfabric" + here + "appbundle/b/ingestion/i/ingestiondestination/d"}, resourceField, "wildcard also covers", "name one"},
		{"apigateway:GET", "arn:aws:apigateway:eu-west-1::/restapis/a/resources/*", nil, resourceField, "wildcard also covers", "name one"},
		{"apigateway:GET", "arn:aws:apigateway:eu-west-1::/nothing", nil, resourceField, "no resource of this shape", "other kinds"},
		{"ses:SendEmail", "arn:aws:ses" + here + "configuration-set/c", nil, resourceField, "never judges it on that alone", "always works on"},
		{"a4b:AssociateDeviceWithRoom", "arn:aws:a4b" + here + "device/d", nil, resourceField, "not known", ""},
		{"braket:CreateQuantumTask", "arn:aws:braket:::device/a/b/c", nil, resourceField, "before the call", ""},
		{"iam:PassRole", "arn:aws:iam::123456789012:role/team/*", nil, resourceField, "any principal", ""},
		{"redshift:GetClusterCredentials", "arn:aws:redshift" + here + "dbuser:c/*", nil, resourceField, "any database user", ""},
		{"kms:CreateAlias", "arn:aws:kms" + here + "alias/*", nil, resourceField, "takes no wildcard", "alias/${Alias}"},
	} {
		var companions []scope.ARN
		for _, text := range test.companions {
			companions = append(companions, parse(t, text))
		}
		_, err := resolve(find(t, test.action), parse(t, test.resource), companions)
		var refusal *invalid.Error
		if !errors.As(err, &refusal) {
			t.Errorf("%s on %s with %v: %v", test.action, test.resource, test.companions, err)
			continue
		}
		if refusal.Field != test.field || !strings.Contains(refusal.Problem, test.problem) || !strings.Contains(refusal.Remedy, test.remedy) || refusal.Remedy == "" || len(err.Error()) > 1000 {
			t.Errorf("%s on %s with %v: %v; want %s, %q, %q", test.action, test.resource, test.companions, err, test.field, test.problem, test.remedy)
		}
	}
}
