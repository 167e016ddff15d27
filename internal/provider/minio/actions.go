package minio

import (
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
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

// namedAction is what one task needs of a bucket's objects, as a closed list of actions.
type namedAction struct {
	objects []string // actions on the role's objects
	lists   bool     // whether their bucket is listed besides
}

// named are the named actions. They have the same names and members on an aws target.
var named = map[string]namedAction{
	"s3:sync-up":          {[]string{"s3:PutObject", "s3:AbortMultipartUpload"}, true},
	"s3:sync-down":        {[]string{"s3:GetObject"}, true},
	"s3:multipart-upload": {[]string{"s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}, false},
}

// NamedActions lists the named actions, sorted.
func NamedActions() []string { return slices.Sorted(maps.Keys(named)) }

// part is actions that are granted on one resource.
type part struct {
	actions  []string
	resource string
}

// partsOf is what a scope grants, and the ARN of its resource. The errors are
// *invalid.Error.
func partsOf(granted scope.Scope, catalog scope.Catalog) ([]part, scope.ARN, error) {
	task, isNamed := named[granted.Action()]
	if !isNamed {
		arn, err := catalog.Check(granted)
		return []part{{[]string{granted.Action()}, granted.Resource()}}, arn, err
	}
	arn, err := scope.Catalog{granted.Action(): object}.Check(granted)
	if err != nil {
		return nil, scope.ARN{}, err
	}
	parts := []part{{task.objects, granted.Resource()}}
	if !task.lists {
		return parts, arn, nil
	}
	name, key, _ := strings.Cut(arn.Resource, "/")
	if key != "*" {
		// MinIO looks s3:prefix up among the headers of a request first, and a header
		// "Prefix" is nothing that a policy can see.
		return nil, scope.ARN{}, invalid.Field("resource", granted.Resource(),
			"on MinIO a listing can't be held to a prefix, since whoever sends a request can set the prefix that a "+
				"condition sees",
			"name all objects of a bucket, arn:aws:s3:::"+name+"/*, or s3:multipart-upload or s3:GetObject, which list nothing")
	}
	listed := arn
	listed.Resource = name
	return append(parts, part{[]string{"s3:ListBucket"}, listed.String()}), arn, nil
}
