package minio

import (
	"maps"
	"slices"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// object and bucket are the two types of resource that MinIO knows. Its ARNs
// name no partition but aws.
var (
	object = scope.NewPattern("arn:aws:s3:::${BucketName}/${ObjectName}")
	bucket = scope.NewPattern("arn:aws:s3:::${BucketName}")
)

// actions lists what MinIO can be made to grant alone; a test tries each of them
// against everything beside it. Left out are actions that MinIO only grants
// together with another one (s3:GetObjectVersion also reads the current object,
// s3:DeleteObjectVersion and s3:GetObjectAttributes want a second action), and
// those that change who may do what or what is kept. Names:
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
func actions() scope.Catalog {
	return scope.Catalog{
		"s3:AbortMultipartUpload":     object,
		"s3:DeleteObject":             object,
		"s3:DeleteObjectTagging":      object,
		"s3:GetObject":                object,
		"s3:GetObjectTagging":         object,
		"s3:ListMultipartUploadParts": object,
		"s3:PutObject":                object,
		"s3:PutObjectTagging":         object,

		"s3:GetBucketLocation":          bucket,
		"s3:GetBucketTagging":           bucket,
		"s3:GetBucketVersioning":        bucket,
		"s3:ListBucket":                 bucket,
		"s3:ListBucketMultipartUploads": bucket,
	}
}

// Actions lists the actions that can be granted, sorted.
func Actions() []string { return slices.Sorted(maps.Keys(actions())) }
