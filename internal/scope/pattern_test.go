package scope

import (
	"strings"
	"testing"
)

// Real names, one at least for each row of the tables, and what a reader might
// take for one.
func TestPatternNames(t *testing.T) {
	const (
		logGroup     = "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}"
		logStream    = logGroup + ":log-stream:${LogStreamName}"
		function     = "arn:${Partition}:lambda:${Region}:${Account}:function:${FunctionName}"
		document     = "arn:${Partition}:ssm:${Region}:${Account}:document/${DocumentName}"
		managed      = "arn:${Partition}:iam::${Account}:policy/${PolicyNameWithPath}"
		role         = "arn:${Partition}:iam::${Account}:role/${RoleNameWithPath}"
		packages     = "arn:${Partition}:codeartifact:${Region}:${Account}:package/${DomainName}/${RepositoryName}/${PackageFormat}/${PackageNamespace}/${PackageName}"
		packageGroup = "arn:${Partition}:codeartifact:${Region}:${Account}:package-group/${DomainName}${EncodedPackageGroupPattern}"
		path         = "arn:${Partition}:es:${Region}:${Account}:domain/${DomainName}/${Path}"
		method       = "arn:${Partition}:execute-api:${Region}:${Account}:${ApiId}/${Stage}/${Method}/${ApiSpecificResourcePath}"
		topic        = "arn:${Partition}:iot:${Region}:${Account}:topic/${TopicName}"
		repository   = "arn:${Partition}:ecr:${Region}:${Account}:repository/${RepositoryName}"
		model        = "arn:${Partition}:bedrock:${Region}::foundation-model/${ResourceId}"
		backup       = "arn:${Partition}:opsworks-cm::${Account}:backup/${ServerName}-{Date-and-Time-Stamp-of-Backup}"
		snapshot     = "arn:${Partition}:rds:${Region}:${Account}:snapshot:${SnapshotName}"
		certificate  = "arn:${Partition}:dms:${Region}:${Account}:cert:*"
		neptune      = "arn:${Partition}:neptune-db:${Region}:${Account}:${ClusterResourceId}/*"
		event        = "arn:${Partition}:health:*::event/${Service}/${EventTypeCode}/*"
		device       = "arn:${Partition}:braket:*:*:device/${DeviceType}/${Provider}/${DeviceId}"
		dbUser       = "arn:${Partition}:rds-db:${Region}:${Account}:dbuser:${DbiResourceId}/${DbUserName}"
		redshiftUser = "arn:${Partition}:redshift:${Region}:${Account}:dbuser:${ClusterName}/${DbUser}"
		keyspace     = "arn:${Partition}:cassandra:${Region}:${Account}:/keyspace/${KeyspaceName}/"
		alarm        = "arn:${Partition}:cloudwatch:${Region}:${Account}:alarm:${AlarmName}"
		bucketOfSSM  = "arn:${Partition}:s3:::${BucketName}"
		here         = "eu-west-1:123456789012:"
	)
	for _, test := range []struct {
		pattern, arn string
		accepted     bool
	}{
		{logGroup, "arn:aws:logs:" + here + "log-group:/aws/lambda/resize", true},
		{logGroup, "arn:aws:logs:" + here + "log-group:plain#1", true},
		{logGroup, "arn:aws:logs:" + here + "log-group:/aws/lambda/*", true},
		{logGroup, "arn:aws:logs:" + here + "log-group:*", false},
		{logGroup, "arn:aws:logs:" + here + "log-group:/*", false},
		{logGroup, "arn:aws:logs:" + here + "log-group:a:*", false},
		{logGroup, "arn:aws:logs:" + here + "log-group:a:b", false},
		{logGroup, "arn:aws:logs:" + here + "log-group://a", false},
		{logStream, "arn:aws:logs:" + here + "log-group:/aws/a:log-stream:2026/01/01/[$LATEST]ab", true},
		{logStream, "arn:aws:logs:" + here + "log-group:/aws/a:log-stream:*", true},
		{logStream, "arn:aws:logs:" + here + "log-group:/aws/a:log-stream:2026/*", true},
		{logStream, "arn:aws:logs:" + here + "log-group:/aws/*:log-stream:*", false},
		{logStream, "arn:aws:logs:" + here + "log-group:a:log-stream:b:c", false},
		{function, "arn:aws:lambda:" + here + "function:resize", true},
		{function, "arn:aws:lambda:" + here + "function:resize:live", true},
		{function, "arn:aws:lambda:" + here + "function:resize:live:x", false},
		{function, "arn:aws:lambda:" + here + "function:resize:", false},
		{function, "arn:aws:lambda:" + here + "function:resize:*", false},
		{function + ":${Alias}", "arn:aws:lambda:" + here + "function:resize:*", true},
		{function + ":${Alias}", "arn:aws:lambda:" + here + "function:*", false},
		{document, "arn:aws:ssm:eu-west-1::document/AWS-RunShellScript", true},
		{document, "arn:aws:ssm:" + here + "document/mine", true},
		{document, "arn:aws:ssm:eu-west-1:aws:document/mine", false},
		{parameter, "arn:aws:ssm:eu-west-1::parameter/aws/service/ami", true},
		{managed, "arn:aws:iam::aws:policy/job-function/Billing", true},
		{managed, "arn:aws:iam::123456789012:policy/team/mine", true},
		{managed, "arn:aws:iam::123456789012:policy/team/*", false},
		{managed, "arn:aws:iam:::policy/mine", false},
		{role, "arn:aws:iam::123456789012:role/service-role/x", true},
		{role, "arn:aws:iam::aws:role/x", false},
		{role, "arn:aws:iam::123456789012:role/service-role/*", false},
		{packages, "arn:aws:codeartifact:" + here + "package/d/r/pypi//requests", true},
		{packages, "arn:aws:codeartifact:" + here + "package/d/r/npm/scope/name", true},
		{packages, "arn:aws:codeartifact:" + here + "package/d/r/npm/scope/*", true},
		{packages, "arn:aws:codeartifact:" + here + "package/d/r/pypi//*", true},
		{packages, "arn:aws:codeartifact:" + here + "package/d//pypi//requests", false},
		{packages, "arn:aws:codeartifact:" + here + "package/d/r/*", false},
		{packageGroup, "arn:aws:codeartifact:" + here + "package-group/my-domain/npm/scope", true},
		{packageGroup, "arn:aws:codeartifact:" + here + "package-group/my-domain", false},
		{packageGroup, "arn:aws:codeartifact:" + here + "package-group/my-domain/*", false},
		{path, "arn:aws:es:" + here + "domain/logs/index/_search", true},
		{path, "arn:aws:es:" + here + "domain/logs/*", true},
		{path, "arn:aws:es:" + here + "domain/*", false},
		{path, "arn:aws:es:" + here + "domain/*/_cat/indices", false},
		{path, "arn:aws:es:" + here + "domain/logs", false},
		{method, "arn:aws:execute-api:" + here + "a1b2c3/prod/GET/pets/1", true},
		{method, "arn:aws:execute-api:" + here + "a1b2c3/$default/GET/", true},
		{method, "arn:aws:execute-api:" + here + "a1b2c3/prod/GET/*", true},
		{method, "arn:aws:execute-api:" + here + "a1b2c3/prod/*", false},
		{method, "arn:aws:execute-api:" + here + "a1b2c3/prod/*/pets", false},
		{topic, "arn:aws:iot:" + here + "topic/$aws/things/t:1/shadow/update", true},
		{topic, "arn:aws:iot:" + here + "topic/site-1/*", true},
		{topic, "arn:aws:iot:" + here + "topic/*", false},
		{repository, "arn:aws:ecr:" + here + "repository/team/app", true},
		{repository, "arn:aws:ecr:" + here + "repository/team/*", true},
		{repository, "arn:aws:ecr:" + here + "repository/team:app", false},
		{model, "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", true},
		{model, "arn:aws:bedrock:" + here + "foundation-model/x", false},
		{model, "arn:aws:bedrock:eu-west-1::foundation-model/anthropic*", false},
		{backup, "arn:aws:opsworks-cm::123456789012:backup/chef-20260101", true},
		{backup, "arn:aws:opsworks-cm::123456789012:backup/chef", false},
		{backup, "arn:aws:opsworks-cm::123456789012:backup/chef-*", false},
		{snapshot, "arn:aws:rds:" + here + "snapshot:rds:db-2026-01-01-00-00", true},
		{snapshot, "arn:aws:rds:" + here + "snapshot:*", false},
		{certificate, "arn:aws:dms:" + here + "cert:ABC", true},
		{certificate, "arn:aws:dms:" + here + "cert:*", false},
		{neptune, "arn:aws:neptune-db:" + here + "cluster-ABC/*", true},
		{neptune, "arn:aws:neptune-db:" + here + "*/*", false},
		{event, "arn:aws:health:global::event/IAM/AWS_IAM_X/AWS_IAM_X_1", true},
		{event, "arn:aws:health:eu-west-1::event/EC2/AWS_EC2_X/*", true},
		{event, "arn:aws:health:*::event/EC2/AWS_EC2_X/*", false},
		{device, "arn:aws:braket:::device/quantum-simulator/amazon/sv1", true},
		{device, "arn:aws:braket:us-east-1::device/qpu/ionq/Aria-1", true},
		{device, "arn:aws:braket:*:*:device/qpu/ionq/Aria-1", false},
		{dbUser, "arn:aws:rds-db:" + here + "dbuser:db-ABC/app", true},
		{dbUser, "arn:aws:rds-db:" + here + "dbuser:db-ABC/*", false},
		{redshiftUser, "arn:aws:redshift:" + here + "dbuser:c/app", true},
		{redshiftUser, "arn:aws:redshift:" + here + "dbuser:c/*", false},
		{keyspace, "arn:aws:cassandra:" + here + "/keyspace/k/", true},
		{keyspace, "arn:aws:cassandra:" + here + "/keyspace/k", false},
		{keyspace, "arn:aws:cassandra:" + here + "/keyspace/*", false},
		{alarm, "arn:aws:cloudwatch:" + here + "alarm:team/disk: full", true},
		{alarm, "arn:aws:cloudwatch:" + here + "alarm:team/*", false},
		{bucketOfSSM, "arn:aws-cn:s3:::releases", true},
		{queue, "arn:aws-cn:sqs:cn-north-1:123456789012:jobs", true},
		{queue, "arn:aws-cn:sqs:eu-west-1:123456789012:jobs", false},
		{queue, "arn:aws:sqs:us-gov-west-1:123456789012:jobs", false},
		{queue, "arn:aws-us-gov:sqs:us-gov-west-1:123456789012:jobs", true},
		{object, "arn:aws:s3:::releases/a/", true},
		{object, "arn:aws:s3:::releases/a//", false},
		{object, "arn:aws:s3:::releases//a", false},
		{object, "arn:aws:s3:::releases/a:b", true},
		{object, "arn:aws:s3:::releases/a\u0100", false},
		{object, "arn:aws:s3:::releases/caf\u00e9", true},
		{object, "arn:aws:s3:::releases/\xff", false},
		{secret, "arn:aws:secretsmanager:" + here + "secret:/prod/db-AbCdEf", true},
		{secret, "arn:aws:secretsmanager:" + here + "secret:/prod/*", true},
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

// A refusal names what is wrong, and shows what would be right in the caller's
// own partition: for a wildcard, the narrowest that is taken.
func TestPatternErrors(t *testing.T) {
	for _, test := range []struct{ pattern, arn, problem, remedy string }{
		{object, "arn:aws:s3:::releases/app*", "a \"*\" may only follow", "write it as arn:aws:s3:::releases/app/*"},
		{object, "arn:aws:s3:::releases/a/b?c", "shape", "write it as arn:aws:s3:::releases/a/*"},
		{object, "arn:aws:s3:::releases/*/x", "shape", "write it as arn:aws:s3:::releases/*"},
		{object, "arn:aws-cn:s3:::*", "a \"*\" may only follow", "write it as arn:aws-cn:s3:::${BucketName}/${ObjectName}"},
		{object, "arn:aws-xx:s3:::releases/a", "partition", "write it as arn:aws:s3:::"},
		{index, "arn:aws:dynamodb:eu-west-1:123456789012:table/t/index/ab*", "a \"*\" may only follow", ":table/t/index/*"},
		{parameter, "arn:aws:ssm:eu-west-1:123456789012:parameter/app*", "a \"*\" may only follow", ":parameter/app/*"},
		{table, "arn:aws:dynamodb:eu-west-1:123456789012:table/t*", "takes no wildcard", "write it as arn:aws:dynamodb:eu-west-1:123456789012:table/${TableName}"},
		{queue, "arn:aws:sqs:eu-west-1:12345:jobs", "account", ":123456789012:${QueueName}"},
		{queue, "arn:aws-us-gov:sqs:eu-west-1:123456789012:jobs", "\"eu-west-1\" is not one of partition \"aws-us-gov\"", "arn:aws-us-gov:sqs:us-gov-west-1:"},
		{queue, "arn:aws:sns:eu-west-1:123456789012:jobs", "service \"sns\"", "arn:aws:sqs:"},
		{"arn:${Partition}:dms:${Region}:${Account}:cert:*", "arn:aws:dms:eu-west-1:123456789012:key:1", "shape", ":cert:${Name}"},
	} {
		arn, err := ParseARN(test.arn)
		if err != nil {
			t.Fatal(err)
		}
		err = NewPattern(test.pattern).Match(arn)
		if err == nil || !strings.Contains(err.Error(), test.problem) || !strings.Contains(err.Error(), test.remedy) {
			t.Errorf("%s: %v; want %q and %q in it", test.arn, err, test.problem, test.remedy)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, text := range []string{"", "s3", "arn:aws:s3:::", "arn:${Partition:s3:::x", "arn:a${Partition}:s3:::x", "arn:aws:s3:::${}", "arn:aws:s3:::${a", "arn:aws:s3:::a}", "arn:aws:s3:::$a",
		"arn:aws:s3:::a?", "arn:aws:s3:::${a/b}", "arn:aws:s3:::a, arn:aws:s3:::b", "arn:aws:s3:::" + strings.Repeat("${a}/", 13)} {
		if pattern, err := ParsePattern(text); err == nil {
			t.Errorf("%q was read as %v", text, pattern.tokens)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("NewPattern took no pattern at all")
		}
	}()
	NewPattern("s3")
}

func TestLocate(t *testing.T) {
	for _, test := range []struct{ pattern, arn, want string }{
		{object, "arn:aws:s3:::releases/app/*", "Partition=aws BucketName=releases ObjectName/=app/*"},
		{queue, "arn:aws:sqs:eu-west-1:123456789012:jobs", "Partition=aws Region=eu-west-1 Account=123456789012 QueueName=jobs"},
		{"arn:${Partition}:backup:${Region}:${Account}:framework:${FrameworkName}-${FrameworkId}", "arn:aws:backup:eu-west-1:123456789012:framework:a-b-c",
			"Partition=aws Region=eu-west-1 Account=123456789012 FrameworkName=a FrameworkId=b-c"},
		{"arn:${Partition}:dms:${Region}:${Account}:cert:*", "arn:aws:dms:eu-west-1:123456789012:cert:c", "Partition=aws Region=eu-west-1 Account=123456789012 *=c"},
	} {
		arn, err := ParseARN(test.arn)
		if err != nil {
			t.Fatal(err)
		}
		spans, err := NewPattern(test.pattern).Locate(arn)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, span := range spans {
			name := span.Variable
			if span.Path {
				name += "/"
			}
			got = append(got, name+"="+test.arn[span.Start:span.End])
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, want %s", test.arn, got, test.want)
		}
	}
}

func TestOfAmazon(t *testing.T) {
	const policy = "arn:${Partition}:iam::${Account}:policy/${PolicyNameWithPath}"
	for text, want := range map[string]bool{"arn:aws:iam::aws:policy/Billing": true, "arn:aws:iam::123456789012:policy/Billing": false} {
		arn, err := ParseARN(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := NewPattern(policy).OfAmazon(arn); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if NewPattern(object).OfAmazon(ARN{Partition: "aws", Service: "s3", Resource: "releases/a"}) {
		t.Error("an object of a bucket is taken for one of AWS, which its ARN doesn't say")
	}
}

func TestOverlaps(t *testing.T) {
	const (
		image = "arn:${Partition}:imagebuilder:${Region}:${Account}:image/${ImageName}/${ImageVersion}/${ImageBuildVersion}"
		group = "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}"
	)
	for _, test := range []struct {
		pattern, arn string
		want         bool
	}{
		{image, "arn:aws:imagebuilder:eu-west-1:123456789012:image/a/*", true},
		{image, "arn:aws:imagebuilder:eu-west-1:123456789012:image/a/1/2/*", false},
		{image, "arn:aws:imagebuilder:eu-west-1:123456789012:component/a/*", false},
		{image, "arn:aws:imagebuilder:eu-west-1:123456789012:image/a/1", false},
		{image, "arn:aws:sqs:eu-west-1:123456789012:image/a/*", false},
		{object, "arn:aws:s3:::releases/*", true},
		{bucket, "arn:aws:s3:::releases/*", false},
		{group, "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/*", true},
		{group + ":log-stream:${LogStreamName}", "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/*", true},
		{group + ":log-stream:${LogStreamName}", "arn:aws:logs:eu-west-1:123456789012:log-group:a:log-*", true},
		{group + ":log-stream:${LogStreamName}", "arn:aws:logs:eu-west-1:123456789012:log-group:a:log-stream:b:*", false},
		{"arn:${Partition}:opsworks:${Region}:${Account}:stack/${StackId}/", "arn:aws:opsworks:eu-west-1:123456789012:stack/a/*", true},
	} {
		arn, err := ParseARN(test.arn)
		if err != nil {
			t.Fatal(err)
		}
		if got := NewPattern(test.pattern).Overlaps(arn); got != test.want {
			t.Errorf("%s and %s: %v, want %v", test.pattern, test.arn, got, test.want)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, test := range []struct{ name, pattern, arn string }{
		{"object", object, "arn:aws:s3:::releases/app/1.0/app-1.0.tgz"},
		{"prefix", object, "arn:aws:s3:::releases/app/*"},
		{"stream", "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:${LogStreamName}", "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/resize:log-stream:2026/01/01/[$LATEST]0123456789abcdef"},
		{"deep", "arn:${Partition}:partnercentral:${Region}:${Account}:catalog/${Catalog}/engagement/${EngagementIdentifier}/resource/${ResourceType}/${ResourceIdentifier}/template/${TemplateIdentifier}/resource-snapshot/${SnapshotRevision}",
			"arn:aws:partnercentral:us-east-1:123456789012:catalog/AWS/engagement/eng-1/resource/Opportunity/O1/template/T1/resource-snapshot/3"},
	} {
		arn, err := ParseARN(test.arn)
		if err != nil {
			b.Fatal(err)
		}
		pattern := NewPattern(test.pattern)
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := pattern.Match(arn); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			NewPattern(object)
		}
	})
}
