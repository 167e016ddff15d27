package aws

import (
	"context"
	"errors"
	"fmt"
	"net"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// client speaks to one account.
type client struct {
	iam       *iam.Client
	sts       *sts.Client
	region    string
	accessKey string // empty where the default credential chain is used
}

func newClient(settings provider.Settings) (*client, error) {
	region, accessKey, secretKey := settings.Text("region"), settings.Text("access_key"), settings.Text("secret_key")
	switch {
	case !scope.IsRegion(region):
		return nil, invalid.Field("region", region, "not an AWS region", "name one, such as eu-west-1")
	case accessKey == "" && secretKey != "":
		return nil, invalid.Field("access_key", accessKey, "missing beside secret_key", "give both, or neither to use the machine's AWS credential chain")
	case accessKey != "" && secretKey == "":
		return nil, invalid.Hidden("secret_key", "missing beside access_key", "give both, or neither to use the machine's AWS credential chain")
	}
	endpoints := map[string]*string{}
	for _, field := range []string{"iam_endpoint", "sts_endpoint"} {
		if text := settings.Text(field); text != "" {
			endpoint, err := provider.ParseEndpoint(field, text)
			if err != nil {
				return nil, err
			}
			endpoints[field] = awssdk.String(endpoint.String())
		}
	}
	options := []func(*config.LoadOptions) error{config.WithRegion(region)}
	if accessKey != "" {
		options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")))
	}
	// Loading reads the environment and files; the chain is only asked, over the
	// network if need be, when a request is signed.
	loaded, err := config.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		return nil, fmt.Errorf("aws: loading the SDK's configuration: %w", err)
	}
	return &client{
		iam:       iam.NewFromConfig(loaded, func(o *iam.Options) { o.BaseEndpoint = endpoints["iam_endpoint"] }),
		sts:       sts.NewFromConfig(loaded, func(o *sts.Options) { o.BaseEndpoint = endpoints["sts_endpoint"] }),
		region:    region,
		accessKey: accessKey,
	}, nil
}

// callerIdentity is the ARN that AWS knows the engine by.
func (c *client) callerIdentity(ctx context.Context) (scope.ARN, error) {
	answer, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return scope.ARN{}, fmt.Errorf("aws: GetCallerIdentity: %w", err)
	}
	arn, err := scope.ParseARN(awssdk.ToString(answer.Arn))
	if err != nil {
		return scope.ARN{}, fmt.Errorf("aws: GetCallerIdentity: the answer's ARN: %s", err) // not the caller's mistake
	}
	return arn, nil
}

// reachIAM proves that the IAM API answers and knows the key. That the key may
// not list users is no failure: it doesn't need to.
func (c *client) reachIAM(ctx context.Context) error {
	_, err := c.iam.ListUsers(ctx, &iam.ListUsersInput{PathPrefix: awssdk.String("/precision/"), MaxItems: awssdk.Int32(1)})
	if code := errorCode(err); code == "AccessDenied" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("aws: ListUsers: %w", err)
	}
	return nil
}

func errorCode(err error) string {
	var fromAPI smithy.APIError
	if errors.As(err, &fromAPI) {
		return fromAPI.ErrorCode()
	}
	return ""
}

// explain turns a failed verification into what the operator can mend. Codes:
// https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
func (c *client) explain(err error, endpointField string) error {
	switch errorCode(err) {
	case "SignatureDoesNotMatch", "IncompleteSignature":
		return invalid.Hidden("secret_key", "AWS says that it is not the one of access_key "+invalid.Mask(c.accessKey), "give that key's secret")
	case "InvalidClientTokenId", "UnrecognizedClientException":
		return invalid.Field("access_key", invalid.Mask(c.accessKey), "AWS knows no such key", "give an active access key of the account")
	case "AccessDenied":
		return invalid.Field("access_key", invalid.Mask(c.accessKey), "AWS does not let this key ask who it is", "remove what denies it sts:GetCallerIdentity")
	}
	var fromNetwork *net.OpError
	if errors.As(err, &fromNetwork) {
		return invalid.Hidden(endpointField, "the API can't be reached: "+fromNetwork.Error(), "check "+endpointField+" and region, or write verify_connection=false")
	}
	return invalid.Field("region", c.region, "the API does not answer as AWS does: "+invalid.Clip(err.Error()), "check "+endpointField+", region and credentials, or write verify_connection=false")
}
