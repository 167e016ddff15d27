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
// against everything beside it. Actions that change who may do what or what is
// kept are left out. Names:
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
func actions() scope.Catalog {
	return scope.Catalog{
		"s3:AbortMultipartUpload":     object,
		"s3:DeleteObjectTagging":      object,
		"s3:GetObject":                object,
		"s3:GetObjectTagging":         object,
		"s3:ListMultipartUploadParts": object,
		"s3:PutObject":                object,

		"s3:GetBucketLocation":          bucket,
		"s3:GetBucketTagging":           bucket,
		"s3:GetBucketVersioning":        bucket,
		"s3:ListBucket":                 bucket,
		"s3:ListBucketMultipartUploads": bucket,
	}
}

// inexact are the actions that MinIO can't be made to grant alone, and why.
var inexact = map[string]string{
	"s3:DeleteObject":            "with a header of its own, MinIO lets it delete everything below a name and every version, for good",
	"s3:DeleteObjectVersion":     "MinIO grants it only together with s3:DeleteObject",
	"s3:GetObjectAttributes":     "MinIO grants it only together with s3:GetObject",
	"s3:GetObjectVersion":        "MinIO lets it read the current object too",
	"s3:GetObjectVersionTagging": "MinIO lets it read the current object's tags too",
	"s3:ListBucketVersions":      "MinIO lets s3:ListBucket do the same",
	"s3:PutObjectTagging":        "on MinIO the tags of a request can set the clock that ends a session, so a session may send none",
}

// Actions lists the actions that can be granted, sorted.
func Actions() []string { return slices.Sorted(maps.Keys(actions())) }
