package tests

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/minio"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// attempt is a request on the object app/exact in the bucket releases, or
// beside it, and the actions that allow it. What two of them have in common,
// MinIO can't tell apart, and docs/minio.md says so.
type attempt struct {
	actions []string
	do      func(context.Context, *s3.Client) error
}

// attempts are what every granted action is tried against. One that no action
// allows is refused to all.
func attempts(oldVersion, upload *string) map[string]attempt {
	name, key := aws.String("releases"), aws.String("app/exact")
	put := func(bucket, object string, change func(*s3.PutObjectInput)) func(context.Context, *s3.Client) error {
		return func(ctx context.Context, client *s3.Client) error {
			input := &s3.PutObjectInput{Bucket: &bucket, Key: &object, Body: strings.NewReader("x")}
			change(input)
			_, err := client.PutObject(ctx, input)
			return err
		}
	}
	get := func(input *s3.GetObjectInput) func(context.Context, *s3.Client) error {
		return func(ctx context.Context, client *s3.Client) error {
			answer, err := client.GetObject(ctx, input)
			if err != nil {
				return err
			}
			return answer.Body.Close()
		}
	}
	plain := func(*s3.PutObjectInput) {}
	tags := &types.Tagging{TagSet: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}
	return map[string]attempt{
		"put":                     {[]string{"s3:PutObject"}, put("releases", "app/exact", plain)},
		"put, slash after":        {nil, put("releases", "app/exact/", func(i *s3.PutObjectInput) { i.Body = strings.NewReader("") })},
		"put, below":              {nil, put("releases", "app/exact/x", plain)},
		"put, beside":             {nil, put("releases", "app/exact2", plain)},
		"put, another bucket":     {nil, put("private", "app/exact", plain)},
		"put with tags":           {nil, put("releases", "app/exact", func(i *s3.PutObjectInput) { i.Tagging = aws.String("a=b") })},
		"get":                     {[]string{"s3:GetObject"}, get(&s3.GetObjectInput{Bucket: name, Key: key})},
		"get an old version":      {[]string{"s3:GetObject"}, get(&s3.GetObjectInput{Bucket: name, Key: key, VersionId: oldVersion})},
		"get another object":      {nil, get(&s3.GetObjectInput{Bucket: name, Key: aws.String("app/beside")})},
		"get from another bucket": {nil, get(&s3.GetObjectInput{Bucket: aws.String("private"), Key: key})},
		"get tags": {[]string{"s3:GetObjectTagging"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: name, Key: key})
			return err
		}},
		"put tags": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: name, Key: key, Tagging: tags})
			return err
		}},
		"delete tags": {[]string{"s3:DeleteObjectTagging"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: name, Key: key})
			return err
		}},
		"get attributes": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetObjectAttributes(ctx, &s3.GetObjectAttributesInput{Bucket: name, Key: key, ObjectAttributes: []types.ObjectAttributes{"ETag"}})
			return err
		}},
		"get retention": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: name, Key: key})
			return err
		}},
		"list parts": {[]string{"s3:ListMultipartUploadParts"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListParts(ctx, &s3.ListPartsInput{Bucket: name, Key: key, UploadId: upload})
			return err
		}},
		"delete an old version": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: key, VersionId: oldVersion})
			return err
		}},
		"delete":        {nil, func(ctx context.Context, c *s3.Client) error { return lab.Delete(ctx, c, "releases", "app/exact") }},
		"delete beside": {nil, func(ctx context.Context, c *s3.Client) error { return lab.Delete(ctx, c, "releases", "app/beside") }},
		"abort the upload": {[]string{"s3:AbortMultipartUpload"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: name, Key: key, UploadId: upload})
			return err
		}},
		"list":                {[]string{"s3:ListBucket"}, func(ctx context.Context, c *s3.Client) error { return lab.List(ctx, c, "releases") }},
		"list another bucket": {nil, func(ctx context.Context, c *s3.Client) error { return lab.List(ctx, c, "private") }},
		"list versions": {[]string{"s3:ListBucket"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: name})
			return err
		}},
		"list uploads": {[]string{"s3:ListBucketMultipartUploads"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: name})
			return err
		}},
		"get the bucket's place": {[]string{"s3:GetBucketLocation"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: name})
			return err
		}},
		"get the bucket's tags": {[]string{"s3:GetBucketTagging"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: name})
			return err
		}},
		"get versioning": {[]string{"s3:GetBucketVersioning"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: name})
			return err
		}},
		"put over an old version": {[]string{"s3:PutObject"}, func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: name, Key: key, Body: strings.NewReader("x")}, func(options *s3.Options) {
				options.APIOptions = append(options.APIOptions, withQuery("versionId", *oldVersion))
			})
			return err
		}},
		"delete all below, by force": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: key}, func(options *s3.Options) {
				options.APIOptions = append(options.APIOptions, smithyhttp.AddHeaderValue("X-Minio-Force-Delete", "true"))
			})
			return err
		}},
		"delete many, out of the prefix": {nil, func(ctx context.Context, c *s3.Client) error {
			answer, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: name, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
				{Key: aws.String("app/../app/beside")}, {Key: aws.String("app/./exact")}, {Key: key},
			}}})
			if err != nil {
				return err
			}
			if len(answer.Deleted) > 0 || len(answer.Errors) == 0 {
				return nil
			}
			return &smithy.GenericAPIError{Code: aws.ToString(answer.Errors[0].Code)}
		}},
		"get the bucket's policy": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: name})
			return err
		}},
		"delete the bucket": {nil, func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: name})
			return err
		}},
	}
}

// mintDirectly mints without Vault, so that nothing but the store ends it.
func mintDirectly(t *testing.T, store provider.Provider, action, resource string, ttl time.Duration) provider.Credential {
	t.Helper()
	granted, err := scope.New(action, resource)
	if err != nil {
		t.Fatal(err)
	}
	expiresAt := time.Now().Add(ttl).Truncate(time.Second)
	policy, err := store.Compile(granted, provider.Bounds{ExpiresAt: expiresAt})
	if err != nil {
		t.Fatal(err)
	}
	handle, err := store.Prepare(t.Context(), provider.Grant{ID: ledger.NewID(expiresAt)})
	if err != nil {
		t.Fatal(err)
	}
	minted, err := store.Mint(t.Context(), handle, policy, expiresAt)
	if err != nil {
		t.Fatal(err)
	}
	return minted
}

// Each action that the provider grants is tried against all that is beside it,
// on a bucket that keeps versions.
func TestStoreActionsAreExact(t *testing.T) {
	ctx, root := t.Context(), servers.Store.S3(servers.Store.Root)
	name, key := aws.String("releases"), aws.String("app/exact")
	store := openProvider(t, minio.Type(), provider.Settings{"endpoint": servers.Store.Endpoint, "access_key": servers.Store.Engine.Access, "secret_key": servers.Store.Engine.Secret})
	if _, err := root.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := root.PutBucketVersioning(context.Background(), &s3.PutBucketVersioningInput{Bucket: name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}}); err != nil {
			t.Error(err)
		}
	})
	judged := 0
	for _, action := range minio.Actions() {
		resource := "arn:aws:s3:::releases/app/exact"
		if strings.Contains(action, "Bucket") {
			resource = "arn:aws:s3:::releases"
		}
		minted := mintDirectly(t, store, action, resource, time.Hour)

		// What is asked for exists, so that a refusal is one.
		for _, object := range []string{"app/exact", "app/beside"} {
			if err := lab.Put(ctx, root, "private", object); err != nil {
				t.Fatal(err)
			}
			if err := lab.Put(ctx, root, "releases", object); err != nil {
				t.Fatal(err)
			}
		}
		old, err := root.PutObject(ctx, &s3.PutObjectInput{Bucket: name, Key: key, Body: strings.NewReader("old")})
		if err != nil {
			t.Fatal(err)
		}
		if err := lab.Put(ctx, root, "releases", "app/exact"); err != nil {
			t.Fatal(err)
		}
		upload, err := root.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: name, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		client := servers.Store.S3(keyIn(minted.Fields).key)
		tried := attempts(old.VersionId, upload.UploadId)
		// What is granted comes last: it may delete what the others ask for.
		order := slices.SortedFunc(maps.Keys(tried), func(a, b string) int {
			return cmp.Or(cmp.Compare(slices.Index(tried[a].actions, action), slices.Index(tried[b].actions, action)), cmp.Compare(a, b))
		})
		for _, what := range order {
			err := tried[what].do(ctx, client)
			if want := slices.Contains(tried[what].actions, action); want == refused(err) {
				t.Errorf("%s: %s is refused: %v, want %v (%v)", action, what, refused(err), !want, err)
			}
			judged++
		}
		if err := store.Revoke(ctx, minted.Handle); err != nil {
			t.Fatal(err)
		}
	}
	figures.Log(t, "%d verdicts of the store", judged)
}

// MinIO takes condition keys from a request's headers and query too. The time
// that ends a session is not to be had that way.
func TestStoreSessionCannotSetTheClock(t *testing.T) {
	ctx := t.Context()
	store := openProvider(t, minio.Type(), provider.Settings{"endpoint": servers.Store.Endpoint, "access_key": servers.Store.Engine.Access, "secret_key": servers.Store.Engine.Secret})
	minted := mintDirectly(t, store, putObject, uploads, 2*time.Second)
	client := servers.Store.S3(keyIn(minted.Fields).key)
	if err := lab.Put(ctx, servers.Store.S3(servers.Store.Root), "releases", "app/there"); err != nil {
		t.Fatal(err)
	}
	reader := servers.Store.S3(keyIn(mintDirectly(t, store, "s3:GetObject", uploads, 2*time.Second).Fields).key)
	time.Sleep(3 * time.Second) // a second more than it lives
	denied(t, "the session after its end", lab.Put(ctx, client, "releases", "app/late"))
	past := "2020-01-01T00:00:00Z"
	for _, header := range []string{"CurrentTime", "Currenttime", "currenttime", "Aws-Currenttime", "X-Amz-Currenttime", "X-Amz-Meta-Currenttime"} {
		for _, values := range [][]string{{past}, {past, time.Now().UTC().Format(time.RFC3339)}} {
			_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("releases"), Key: aws.String("app/late"), Body: strings.NewReader("x")}, func(options *s3.Options) {
				for _, value := range values {
					options.APIOptions = append(options.APIOptions, smithyhttp.AddHeaderValue(header, value))
				}
			})
			denied(t, fmt.Sprintf("the session after its end with header %s: %v", header, values), err)
		}
	}
	// A request's tags are condition keys as well, under names that can be left.
	for _, tag := range []string{"../CurrentTime=", "../../CurrentTime=", "../Currenttime=", "a=b&../CurrentTime=", "../RequestObjectTagKeys=x&../CurrentTime="} {
		tagged := func(options *s3.Options) {
			options.APIOptions = append(options.APIOptions, smithyhttp.AddHeaderValue("X-Amz-Tagging", tag+past), smithyhttp.AddHeaderValue("Requestobjecttagkeys", "x"))
		}
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("releases"), Key: aws.String("app/late"), Body: strings.NewReader("x")}, tagged)
		denied(t, "putting after the end with tags "+tag, err)
		_, err = reader.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("releases"), Key: aws.String("app/there")}, tagged)
		denied(t, "getting after the end with tags "+tag, err)
	}
	for _, parameter := range []string{"CurrentTime", "Currenttime", "currenttime", "aws:CurrentTime"} {
		presigned, err := s3.NewPresignClient(client).PresignPutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("releases"), Key: aws.String("app/late")}, func(options *s3.PresignOptions) {
			options.ClientOptions = append(options.ClientOptions, func(options *s3.Options) { options.APIOptions = append(options.APIOptions, withQuery(parameter, past)) })
		})
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, presigned.URL, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden {
			t.Errorf("a presigned request after the end with parameter %s: status %d, want 403", parameter, answer.StatusCode)
		}
	}
}

// withQuery adds a parameter to a request before it is signed.
func withQuery(name, value string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("query", func(ctx context.Context, input middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			request := input.Request.(*smithyhttp.Request)
			query := request.URL.Query()
			query.Set(name, value)
			request.URL.RawQuery = query.Encode()
			return next.HandleBuild(ctx, input)
		}), middleware.After)
	}
}
