package scope

// The Service Authorization Reference names the variables of an ARN, but not
// what their values may hold. A variable that is not listed here holds neither
// "/" nor ":", so that a name can't reach out of its place. Each table is
// reviewed by hand; its keys are service:resource of a pattern as the reference
// writes it.

// slot is one variable of one resource type.
type slot struct{ pattern, variable string }

// shapeOf looks a variable up. Buckets are buckets in every service that has
// them (S3, S3 Express, S3 on Outposts, S3 Vectors).
func shapeOf(id, variable string) shape {
	if variable == "BucketName" {
		return bucketName
	}
	return shapes[slot{id, variable}]
}

var shapes = map[slot]shape{
	// Object keys are any text; "folders" end in "/".
	// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
	{"s3:${BucketName}/${ObjectName}", "ObjectName"}:                                             slash | colon | closed,
	{"s3:accesspoint/${AccessPointName}/object/${ObjectName}", "ObjectName"}:                     slash | colon | closed,
	{"s3-outposts:outpost/${OutpostId}/bucket/${BucketName}/object/${ObjectName}", "ObjectName"}: slash | colon | closed,
	// https://docs.aws.amazon.com/mediastore/latest/ug/object-path-naming.html
	{"mediastore:container/${ContainerName}/${FolderPath}", "FolderPath"}: slash,
	{"mediastore:container/${ContainerName}/${ObjectPath}", "ObjectPath"}: slash,

	// Hierarchical names.
	// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
	{"secretsmanager:secret:${SecretId}", "SecretId"}: slash | rooted,
	// https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html
	{"ssm:parameter/${ParameterNameWithoutLeadingSlash}", "ParameterNameWithoutLeadingSlash"}: slash,
	// /ssm/parameter-store/high-throughput-enabled
	// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetServiceSetting.html
	{"ssm:servicesetting/${ResourceId}", "ResourceId"}: slash,
	// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CreateOpsMetadata.html
	{"ssm:opsmetadata/${ResourceId}", "ResourceId"}: slash,
	// Log groups hold "/", and most begin with it (/aws/lambda/…); log streams
	// hold anything but ":" and "*".
	// https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html
	// https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogStream.html
	{"logs:log-group:${LogGroupName}", "LogGroupName"}:                              slash | rooted,
	{"logs:log-group:${LogGroupName}:*", "LogGroupName"}:                            slash | rooted,
	{"logs:log-group:${LogGroupName}:log-stream:${LogStreamName}", "LogGroupName"}:  slash | rooted,
	{"logs:log-group:${LogGroupName}:log-stream:${LogStreamName}", "LogStreamName"}: slash | rooted,
	// https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html
	{"ecr:repository/${RepositoryName}", "RepositoryName"}:        slash,
	{"ecr-public:repository/${RepositoryName}", "RepositoryName"}: slash,
	// An alarm's name is any text.
	// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
	{"cloudwatch:alarm:${AlarmName}", "AlarmName"}: slash | colon | rooted | flat,
	// aws.partner/example.com/1234, and the bus that is named after it
	// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_CreateEventBus.html
	{"events:event-source/${EventSourceName}", "EventSourceName"}: slash,
	{"events:event-bus/${EventBusName}", "EventBusName"}:          slash,
	// alias/aws/s3
	// https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html
	{"kms:alias/${Alias}", "Alias"}:                  slash | flat,
	{"payment-cryptography:alias/${Alias}", "Alias"}: slash | flat,

	// Topics are paths, and their parts any text.
	// https://docs.aws.amazon.com/iot/latest/developerguide/topics.html
	{"iot:topic/${TopicName}", "TopicName"}:           slash | colon,
	{"iot:topicfilter/${TopicFilter}", "TopicFilter"}: slash | colon,
	// [a-zA-Z0-9:_-]+, and a client goes by its thing's name
	// https://docs.aws.amazon.com/iot/latest/apireference/API_CreateThing.html
	{"iot:thing/${ThingName}", "ThingName"}:                colon,
	{"iot:thinggroup/${ThingGroupName}", "ThingGroupName"}: colon,
	{"iot:thingtype/${ThingTypeName}", "ThingTypeName"}:    colon,
	{"iot:client/${ClientId}", "ClientId"}:                 colon,

	// HTTP paths. The root of an API has an empty one.
	// https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-control-access-using-iam-policies-to-invoke-api.html
	{"execute-api:${ApiId}/${Stage}/${Method}/${ApiSpecificResourcePath}", "ApiSpecificResourcePath"}: slash | colon | closed | blank,
	// https://docs.aws.amazon.com/opensearch-service/latest/developerguide/ac.html
	{"es:domain/${DomainName}/${Path}", "Path"}: slash | colon,
	// https://docs.aws.amazon.com/vpc-lattice/latest/ug/auth-policies.html
	{"vpc-lattice:service/${ServiceId}/${RequestPath}", "RequestPath"}: slash | colon | closed,

	// IAM names with their path, and providers that are named by URL.
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
	{"iam:access-report/${EntityPath}", "EntityPath"}:                                      slash,
	{"iam:group/${GroupNameWithPath}", "GroupNameWithPath"}:                                slash,
	{"iam:instance-profile/${InstanceProfileNameWithPath}", "InstanceProfileNameWithPath"}: slash,
	{"iam:mfa/${MfaTokenIdWithPath}", "MfaTokenIdWithPath"}:                                slash,
	{"iam:oidc-provider/${OidcProviderName}", "OidcProviderName"}:                          slash,
	{"iam:policy/${PolicyNameWithPath}", "PolicyNameWithPath"}:                             slash,
	{"iam:role/${RoleNameWithPath}", "RoleNameWithPath"}:                                   slash,
	{"iam:server-certificate/${CertificateNameWithPath}", "CertificateNameWithPath"}:       slash,
	{"iam:sms-mfa/${MfaTokenIdWithPath}", "MfaTokenIdWithPath"}:                            slash,
	{"iam:user/${UserNameWithPath}", "UserNameWithPath"}:                                   slash,
	// user/<namespace>/<name>
	// https://docs.aws.amazon.com/quicksight/latest/APIReference/API_User.html
	{"quicksight:user/${ResourceId}", "ResourceId"}:  slash,
	{"quicksight:group/${ResourceId}", "ResourceId"}: slash,

	// Names with a version, a date or a part of their own in them.
	// A function may be named with its version or alias, which is then what a
	// call is authorised on.
	// https://docs.aws.amazon.com/lambda/latest/dg/lambda-api-permissions-ref.html
	{"lambda:function:${FunctionName}", "FunctionName"}: oneColon,
	// anthropic.claude-3-haiku-20240307-v1:0
	// https://docs.aws.amazon.com/bedrock/latest/userguide/model-ids.html
	{"bedrock:foundation-model/${ResourceId}", "ResourceId"}:        colon,
	{"bedrock:inference-profile/${ResourceId}", "ResourceId"}:       colon,
	{"bedrock:default-prompt-router/${ResourceId}", "ResourceId"}:   colon,
	{"bedrock:guardrail-profile/${ResourceId}", "ResourceId"}:       colon,
	{"bedrock:custom-model/${ResourceId}", "ResourceId"}:            slash | colon | flat,
	{"bedrock:model-customization-job/${ResourceId}", "ResourceId"}: slash | colon | flat,
	// model-package/<group>/<version>
	// https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
	{"sagemaker:model-package/${ModelPackageName}", "ModelPackageName"}: slash,
	// schema/<registry>/<schema>, and catalogues within catalogues
	// https://docs.aws.amazon.com/glue/latest/dg/glue-specifying-resource-arns.html
	{"glue:schema/${SchemaName}", "SchemaName"}:    slash,
	{"glue:catalog/${CatalogName}", "CatalogName"}: slash,
	// platform/Python 3.8 running on 64bit Amazon Linux 2/3.4.9
	// https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/AWSHowTo.iam.policies.arn.html
	{"elasticbeanstalk:platform/${PlatformNameWithVersion}", "PlatformNameWithVersion"}: slash | flat,
	// model-version/<type>/<model>/<version>
	// https://docs.aws.amazon.com/frauddetector/latest/api/API_GetModelVersion.html
	{"frauddetector:detector-version/${ResourcePath}", "ResourcePath"}: slash,
	{"frauddetector:model/${ResourcePath}", "ResourcePath"}:            slash,
	{"frauddetector:model-version/${ResourcePath}", "ResourcePath"}:    slash,
	// <project>:<id>
	// https://docs.aws.amazon.com/codebuild/latest/userguide/auth-and-access-control-iam-access-control-identity-based.html
	{"codebuild:build/${BuildId}", "BuildId"}:                 colon,
	{"codebuild:build-batch/${BuildBatchId}", "BuildBatchId"}: colon,
	{"codebuild:sandbox/${SandboxId}", "SandboxId"}:           colon,
	// <region>:<id>
	// https://docs.aws.amazon.com/cognito/latest/developerguide/role-based-access-control.html
	{"cognito-identity:identitypool/${IdentityPoolId}", "IdentityPoolId"}:                                           colon,
	{"cognito-sync:identitypool/${IdentityPoolId}", "IdentityPoolId"}:                                               colon,
	{"cognito-sync:identitypool/${IdentityPoolId}/identity/${IdentityId}", "IdentityPoolId"}:                        colon,
	{"cognito-sync:identitypool/${IdentityPoolId}/identity/${IdentityId}", "IdentityId"}:                            colon,
	{"cognito-sync:identitypool/${IdentityPoolId}/identity/${IdentityId}/dataset/${DatasetName}", "IdentityPoolId"}: colon,
	{"cognito-sync:identitypool/${IdentityPoolId}/identity/${IdentityId}/dataset/${DatasetName}", "IdentityId"}:     colon,
	// 2015-05-11T21:21:33.291
	// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
	{"dynamodb:table/${TableName}/stream/${StreamLabel}", "StreamLabel"}:                            colon,
	{"cassandra:/keyspace/${KeyspaceName}/table/${TableName}/stream/${StreamLabel}", "StreamLabel"}: colon,
	// automated snapshots are rds:<name> and rs:<name>, default option groups default:<engine>
	// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_Tagging.ARN.html
	{"rds:snapshot:${SnapshotName}", "SnapshotName"}:                       colon,
	{"rds:cluster-snapshot:${ClusterSnapshotName}", "ClusterSnapshotName"}: colon,
	{"rds:og:${OptionGroupName}", "OptionGroupName"}:                       colon,
	{"redshift:snapshot:${ClusterName}/${SnapshotName}", "SnapshotName"}:   colon,

	// A name that is an ARN itself.
	// https://docs.aws.amazon.com/mediaconvert/latest/apireference/certificates.html
	{"mediaconvert:certificates/${CertificateArn}", "CertificateArn"}: slash | colon | flat,
	// https://docs.aws.amazon.com/connect/latest/APIReference/API_connect-customer-profiles_GetIntegration.html
	{"profile:domains/${DomainName}/integrations/${Uri}", "Uri"}: slash | colon | flat,

	// Most package formats have no namespace: package/<domain>/<repository>/pypi//<name>.
	// The pattern of a package group begins with "/".
	// https://docs.aws.amazon.com/codeartifact/latest/ug/repo-policies.html
	// https://docs.aws.amazon.com/codeartifact/latest/ug/package-groups.html
	{"codeartifact:package/${DomainName}/${RepositoryName}/${PackageFormat}/${PackageNamespace}/${PackageName}", "PackageNamespace"}: blank,
	{"codeartifact:package-group/${DomainName}${EncodedPackageGroupPattern}", "EncodedPackageGroupPattern"}:                          slash | absolute,
}

// owners are what stands in place of an account's number where AWS owns the
// resource.
var owners = map[string][]string{
	// AWS managed policies: arn:aws:iam::aws:policy/…
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
	"iam:policy/${PolicyNameWithPath}": {"aws"},
	// arn:aws:ssm:eu-west-1::document/AWS-RunShellScript
	// https://docs.aws.amazon.com/systems-manager/latest/userguide/documents.html
	"ssm:document/${DocumentName}": {""},
	// arn:aws:ssm:eu-west-1::parameter/aws/service/…
	// https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-public-parameters.html
	"ssm:parameter/${ParameterNameWithoutLeadingSlash}": {""},
}

// principalServices are the services whose resources are principals, accounts
// or what decides over them: a wildcard there is never one resource's leaves.
var principalServices = map[string]bool{
	"account": true, "iam": true, "identitystore": true, "organizations": true, "rds-db": true, "sso": true, "sts": true,
}

// principals are the other resource types whose leaf names who acts, or where:
// a wildcard would let the holder act as any of them.
var principals = map[string]string{
	"airflow:role/${EnvironmentName}/${RoleName}":                                                            "any role within Airflow",
	"bedrock-agentcore:workload-identity-directory/${DirectoryId}/workload-identity/${WorkloadIdentityName}": "any agent's identity",
	"chime:app-instance/${AppInstanceId}/bot/${AppInstanceBotId}":                                            "whoever writes a message",
	"chime:app-instance/${AppInstanceId}/user/${AppInstanceUserId}":                                          "whoever writes a message",
	"cognito-sync:identitypool/${IdentityPoolId}/identity/${IdentityId}":                                     "any federated user",
	"config:aggregation-authorization/${AggregatorAccount}/${AggregatorRegion}":                              "any region",
	"connect:instance/${InstanceId}/agent/${UserId}":                                                         "any user",
	"consoleapp:device/${DeviceId}/identity/${IdentityId}":                                                   "whoever uses a device",
	"finspace:kxEnvironment/${EnvironmentId}/kxUser/${UserName}":                                             "any user",
	"quicksight:group/${ResourceId}":                                                                         "any group of users",
	"quicksight:user/${ResourceId}":                                                                          "any user",
	"redshift:dbgroup:${ClusterName}/${DbGroup}":                                                             "any group of database users",
	"redshift:dbuser:${ClusterName}/${DbUser}":                                                               "any database user",
	"sagemaker:user-profile/${DomainId}/${UserProfileName}":                                                  "any user",
	"transfer:user/${ServerId}/${UserName}":                                                                  "any user",
}
