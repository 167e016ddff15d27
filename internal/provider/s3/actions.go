// Package s3 lists the S3 actions that can be granted on one object prefix or
// one bucket, for every target that speaks S3.
//
// Left out on purpose: actions without resource-level permission
// (s3:ListAllMyBuckets), and those that change who may do what or what is kept
// (bucket policies, ACLs, lifecycle, retention, replication, encryption).
package s3

import "github.com/precision-access/vault-plugin-secrets-precision/internal/scope"

// Actions maps each action to the type of resource that it works on. Source:
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
func Actions() scope.Catalog {
	object := scope.NewPattern("arn:${Partition}:s3:::${BucketName}/${ObjectName}")
	bucket := scope.NewPattern("arn:${Partition}:s3:::${BucketName}")
	return scope.Catalog{
		"s3:AbortMultipartUpload":     object,
		"s3:DeleteObject":             object,
		"s3:DeleteObjectTagging":      object,
		"s3:DeleteObjectVersion":      object,
		"s3:GetObject":                object,
		"s3:GetObjectAttributes":      object,
		"s3:GetObjectTagging":         object,
		"s3:GetObjectVersion":         object,
		"s3:GetObjectVersionTagging":  object,
		"s3:ListMultipartUploadParts": object,
		"s3:PutObject":                object,
		"s3:PutObjectTagging":         object,
		"s3:RestoreObject":            object,

		"s3:GetBucketLocation":          bucket,
		"s3:GetBucketTagging":           bucket,
		"s3:GetBucketVersioning":        bucket,
		"s3:ListBucket":                 bucket,
		"s3:ListBucketMultipartUploads": bucket,
		"s3:ListBucketVersions":         bucket,
	}
}
