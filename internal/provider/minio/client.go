package minio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/hashicorp/go-cleanhttp"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// client speaks to one store: its STS API through the AWS SDK, and the
// calls of its admin API that the engine needs.
type client struct {
	endpoint  *url.URL
	region    string
	accessKey string
	secretKey string
	sts       *sts.Client
	http      *http.Client
	signer    *v4.Signer
}

func newClient(endpoint *url.URL, region, accessKey, secretKey string) *client {
	transport := cleanhttp.DefaultPooledClient()
	return &client{
		endpoint: endpoint, region: region, accessKey: accessKey, secretKey: secretKey,
		http:   transport,
		signer: v4.NewSigner(),
		sts: sts.New(sts.Options{
			Region:       region,
			BaseEndpoint: aws.String(endpoint.String()),
			HTTPClient:   transport,
		}),
	}
}

// assumeRole opens a session of a user of the engine's, see keyOf. RoleArn and RoleSessionName
// are required by the protocol and ignored by MinIO.
func (c *client) assumeRole(ctx context.Context, user string, policy provider.Policy, duration time.Duration, revokeType string) (*types.Credentials, error) {
	answer, err := c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{
		RoleArn:         aws.String("arn:minio:iam:::role/precision"),
		RoleSessionName: aws.String("precision"),
		Policy:          aws.String(string(policy)),
		DurationSeconds: aws.Int32(int32(duration / time.Second)),
	}, func(options *sts.Options) {
		key := c.keyOf(user)
		options.Credentials = credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, "")
		options.APIOptions = append(options.APIOptions, withRevokeType(revokeType))
	})
	if err != nil {
		return nil, fmt.Errorf("minio: AssumeRole: %w", err)
	}
	if answer.Credentials == nil || answer.Credentials.AccessKeyId == nil || answer.Credentials.SecretAccessKey == nil || answer.Credentials.SessionToken == nil {
		return nil, errors.New("minio: AssumeRole: the answer holds no session")
	}
	return answer.Credentials, nil
}

// withRevokeType adds MinIO's own parameter TokenRevokeType to the call's form.
func withRevokeType(revokeType string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("TokenRevokeType", func(ctx context.Context, input middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			request, ok := input.Request.(*smithyhttp.Request)
			if !ok {
				return middleware.BuildOutput{}, middleware.Metadata{}, fmt.Errorf("unexpected request type %T", input.Request)
			}
			form, err := io.ReadAll(request.GetStream())
			if err != nil {
				return middleware.BuildOutput{}, middleware.Metadata{}, err
			}
			body := string(form) + "&TokenRevokeType=" + url.QueryEscape(revokeType)
			if input.Request, err = request.SetStream(strings.NewReader(body)); err != nil {
				return middleware.BuildOutput{}, middleware.Metadata{}, err
			}
			return next.HandleBuild(ctx, input)
		}), middleware.Before)
	}
}

// revokeTokens ends the sessions of user that were opened with revokeType. That
// there are none is no error.
func (c *client) revokeTokens(ctx context.Context, user, revokeType string) error {
	if user == "" || revokeType == "" {
		return errors.New("minio: RevokeTokens: the handle names no session") // an empty type would end all of the user's
	}
	query := url.Values{"user": {user}, "tokenRevokeType": {revokeType}}
	_, err := c.admin(ctx, c.credentials(), http.MethodPost, revokeTokens, query, nil)
	return err
}

// answersTo says whether the store still knows an access key: it asks in that
// key's name without knowing its secret, and looks at why it is refused. As a
// side effect a store that has the session on disk only, as after a restart,
// loads it, and only then does revokeTokens find it.
func (c *client) answersTo(ctx context.Context, accessKey string) (bool, error) {
	_, err := c.admin(ctx, aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: "unknown"}, http.MethodGet, accountInfo, nil, nil)
	var refusal *apiError
	switch {
	case err == nil:
		return true, nil
	case !errors.As(err, &refusal) || refusal.status >= http.StatusInternalServerError:
		return false, err
	default:
		return refusal.code != "InvalidAccessKeyId", nil
	}
}

func (c *client) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: c.accessKey, SecretAccessKey: c.secretKey}
}

// apiError is an answer of the admin API that says no.
type apiError struct {
	call   string
	status int
	code   string
}

func (e *apiError) Error() string {
	return fmt.Sprintf("minio: %s: %s (status %d)", e.call, e.code, e.status)
}

const accountInfo = "/minio/admin/v3/accountinfo"

// maxAnswer is more than any answer that the engine reads has, in bytes.
const maxAnswer = 1 << 20

func (c *client) admin(ctx context.Context, signedBy aws.Credentials, method, path string, query url.Values, content []byte) ([]byte, error) {
	target := *c.endpoint
	target.Path, target.RawQuery = path, query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("minio: %s: %w", path, err)
	}
	sum := sha256.Sum256(content)
	payload := hex.EncodeToString(sum[:])
	request.Header.Set("X-Amz-Content-Sha256", payload)
	if err := c.signer.SignHTTP(ctx, signedBy, request, payload, "s3", c.region, time.Now()); err != nil {
		return nil, fmt.Errorf("minio: %s: signing: %w", path, err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("minio: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("minio: %s: %w", path, err)
	}
	if answer.StatusCode/100 != 2 {
		var refusal struct{ Code string }
		_ = json.Unmarshal(body, &refusal) // an answer that isn't JSON has no code to show
		return nil, &apiError{call: path, status: answer.StatusCode, code: refusal.Code}
	}
	return body, nil
}

// explain turns a failed verification into what the operator can mend.
func (c *client) explain(err error) error {
	if errors.As(err, new(*invalid.Error)) {
		return err
	}
	code := ""
	var fromSTS smithy.APIError
	var fromAdmin *apiError
	var fromNetwork *net.OpError
	switch {
	case errors.As(err, &fromSTS):
		code = fromSTS.ErrorCode()
	case errors.As(err, &fromAdmin):
		code = fromAdmin.code
	case errors.As(err, &fromNetwork):
		return invalid.Field("endpoint", c.endpoint.String(), "the store can't be reached: "+fromNetwork.Error(), "check the URL and that the store runs, or write verify_connection=false")
	}
	switch code {
	case "SignatureDoesNotMatch":
		return invalid.Hidden("secret_key", "the store says that it is not the one of access_key "+invalid.Mask(c.accessKey), "give that user's secret key")
	case "InvalidAccessKeyId", "InvalidClientTokenId":
		return invalid.Field("access_key", invalid.Mask(c.accessKey), "the store knows no such user", "name a user of this store")
	case "AccessDenied":
		return invalid.Field("access_key", invalid.Mask(c.accessKey), "the store does not let this user open sessions", "name a user, not a service account or a session")
	default:
		return invalid.Field("endpoint", c.endpoint.String(), "the store does not answer as MinIO does: "+invalid.Clip(err.Error()), "check the URL, or write verify_connection=false")
	}
}

func isLoopback(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || (address != nil && address.IsLoopback())
}
