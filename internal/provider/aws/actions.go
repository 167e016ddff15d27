package aws

import "github.com/precision-access/vault-plugin-secrets-precision/internal/scope"

// actions lists what can be granted: actions that IAM authorises on exactly one
// resource and that hand out no further power. Anything else is refused as
// unknown. Source: the services' pages of
// https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
func actions() scope.Catalog {
	catalog := scope.Catalog{}
	for pattern, names := range map[string][]string{
		"arn:${Partition}:s3:::${BucketName}/${ObjectName}": {
			"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectTagging", "s3:DeleteObjectVersion", "s3:GetObject",
			"s3:GetObjectTagging", "s3:GetObjectVersion", "s3:GetObjectVersionTagging", "s3:ListMultipartUploadParts",
			"s3:PutObject", "s3:PutObjectTagging", "s3:RestoreObject",
		},
		"arn:${Partition}:s3:::${BucketName}": {
			"s3:GetBucketLocation", "s3:GetBucketTagging", "s3:GetBucketVersioning", "s3:ListBucket",
			"s3:ListBucketMultipartUploads", "s3:ListBucketVersions",
		},
		"arn:${Partition}:dynamodb:${Region}:${Account}:table/${TableName}": {
			"dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem",
			"dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem",
		},
		"arn:${Partition}:kinesis:${Region}:${Account}:stream/${StreamName}":                      {"kinesis:PutRecord", "kinesis:PutRecords"},
		"arn:${Partition}:secretsmanager:${Region}:${Account}:secret:${SecretId}":                 {"secretsmanager:DescribeSecret", "secretsmanager:PutSecretValue"},
		"arn:${Partition}:sns:${Region}:${Account}:${TopicName}":                                  {"sns:GetTopicAttributes", "sns:Publish"},
		"arn:${Partition}:sqs:${Region}:${Account}:${QueueName}":                                  {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:PurgeQueue", "sqs:ReceiveMessage", "sqs:SendMessage"},
		"arn:${Partition}:ssm:${Region}:${Account}:parameter/${ParameterNameWithoutLeadingSlash}": {"ssm:PutParameter"},
	} {
		resource := scope.NewPattern(pattern)
		for _, name := range names {
			catalog[name] = resource
		}
	}
	return catalog
}
