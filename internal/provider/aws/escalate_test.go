package aws

import (
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
)

func TestLookAt(t *testing.T) {
	for _, test := range []struct{ look, resource, want string }{
		{"see {bucket}", "arn:aws:s3:::releases/app/*", "see releases"},
		{"see {name}", "arn:aws:dynamodb:eu-west-1:123456789012:table/orders", "see orders"},
		{"see {name}", "arn:aws:lambda:eu-west-1:123456789012:function:deploy", "see deploy"},
		{"see {name}", "arn:aws:ecr:eu-west-1:123456789012:repository/team/app", "see team/app"},
		{"see {resource}", "arn:aws:sqs:eu-west-1:123456789012:jobs", "see arn:aws:sqs:eu-west-1:123456789012:jobs"},
		{"see {name}", "arn:aws:sqs:eu-west-1:123456789012:jobs", "see jobs"},
		{"see {bucket}", "arn:aws:s3:::releases/{{key}}", "see releases"},
	} {
		if got := lookAt(test.look, test.resource); got != test.want {
			t.Errorf("lookAt(%q, %s) = %q, not %q", test.look, test.resource, got, test.want)
		}
	}
}

// TestWarningsAreOfTheResource wants each warning of a role to name its resource as
// the role has it, and something to do.
func TestWarningsAreOfTheResource(t *testing.T) {
	for _, test := range []struct{ action, resource, want string }{
		{"s3:PutObject", "arn:aws:s3:::releases/app/{{p}}", "aws s3api get-bucket-notification-configuration --bucket releases"},
		{"kinesis:PutRecord", "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks", "--event-source-arn arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"},
		{"firehose:PutRecord", "arn:aws:firehose:eu-west-1:123456789012:deliverystream/clicks", "describe-delivery-stream --delivery-stream-name clicks"},
		{"sagemaker:InvokeEndpoint", "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/rank", "describe-endpoint --endpoint-name rank"},
		{"lambda:InvokeFunction", "arn:aws:lambda:eu-west-1:123456789012:function:deploy", "get-function-configuration --function-name arn:aws:lambda"},
	} {
		granted := filledIn(t, test.action, test.resource, "1.tgz")
		advice := (&account{id: "123456789012", partition: "aws"}).Advise(granted, provider.Bounds{})
		var found bool
		for _, warning := range advice.Definition {
			found = found || strings.Contains(warning, test.want) && strings.Contains(warning, test.resource) && !strings.Contains(warning, "1.tgz")
		}
		if !found || len(advice.Mint) > 0 {
			t.Errorf("%s: %q, %q", test.action, advice.Definition, advice.Mint)
		}
	}
}

// TestLikeIsJudgedLike wants one verdict for actions that do the same to different
// resources.
func TestLikeIsJudgedLike(t *testing.T) {
	for _, alike := range [][]string{
		{"kinesis:PutRecord", "kinesis:PutRecords", "firehose:PutRecord", "firehose:PutRecordBatch", "sqs:SendMessage", "sns:Publish", "events:PutEvents", "iot:Publish", "kafka-cluster:WriteData"},
		{"lambda:InvokeFunction", "sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointAsync", "bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream", "states:StartExecution"},
		{"s3:PutObject", "dynamodb:PutItem", "dynamodb:UpdateItem", "secretsmanager:PutSecretValue", "ssm:PutParameter"},
		{"ecr:PutImage", "ecr-public:PutImage", "codeartifact:PublishPackageVersion", "lambda:UpdateFunctionCode"},
		{"codecommit:MergePullRequestByFastForward", "codecommit:MergePullRequestBySquash", "codecommit:MergePullRequestByThreeWay", "codecommit:GitPush"},
		{"sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:ReceiveMessage"},
		{"events:DeleteRule", "iot:DeleteTopicRule", "iot:DisableTopicRule"},
		{"rds:DeleteEventSubscription", "redshift:DeleteEventSubscription", "dms:DeleteEventSubscription"},
		{"ec2:ReplaceRoute", "ec2:DeleteRoute", "ec2:DeleteTransitGatewayRoute", "ec2:DisassociateRouteTable"},
		{"elasticloadbalancing:ModifyRule", "elasticloadbalancing:DeleteRule"},
		{"vpc-lattice:UpdateRule", "vpc-lattice:DeleteRule"},
		{"rds:ModifyDBSubnetGroup", "redshift:ModifyClusterSubnetGroup", "dms:ModifyReplicationSubnetGroup",
			"elasticache:ModifyCacheSubnetGroup", "memorydb:UpdateSubnetGroup"},
		{"kinesis:DecreaseStreamRetentionPeriod", "kafka:UpdateTopic", "kafka-cluster:AlterTopic"},
		{"ecs:UpdateTaskProtection", "autoscaling:SetInstanceProtection"},
		{"s3:PutMetricsConfiguration", "s3express:PutMetricsConfiguration", "s3tables:PutTableBucketMetricsConfiguration"},
		{"lambda:DeleteFunctionConcurrency", "lambda:PutFunctionConcurrency"},
		{"cloudformation:DeleteStack", "cloudformation:DeleteStackInstances"},
		{"ecr:BatchDeleteImage", "ecr-public:BatchDeleteImage"},
		{"ivs:GetStreamKey", "ivs:BatchGetStreamKey"},
		{"transfer:StartFileTransfer", "transfer:StartDirectoryListing"},
		{"lambda:GetFunctionConfiguration", "lambda:ListVersionsByFunction", "sagemaker:DescribeProcessingJob",
			"sagemaker:DescribeTransformJob", "sagemaker:DescribeModel"},
	} {
		want := ""
		for i, name := range alike {
			action, known := catalog.Find(name)
			if !known {
				t.Fatalf("no action %s", name)
			}
			escalation, _ := catalog.EscalationOf(action)
			if i == 0 {
				want = escalation.Verdict
			} else if escalation.Verdict != want {
				t.Errorf("%s is judged %q, %s %q", name, escalation.Verdict, alike[0], want)
			}
		}
	}
}
