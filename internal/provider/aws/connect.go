package aws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// client speaks to one account.
type client struct {
	iam, quickIAM *iam.Client
	limiter       *circuit.Limiter // of these two
	sts, quickSTS *sts.Client      // the quick ones are for mints
	// newSTS makes a quick client that signs with other credentials.
	newSTS      func(awssdk.CredentialsProvider) *sts.Client
	region      string
	identity    identity
	credentials awssdk.CredentialsProvider
	skew        *skew
	// unsealed says that AWS does not let the engine set users' permissions boundaries.
	unsealed atomic.Bool

	usernamePrefix, sessionPrefix string
}

func newClient(settings provider.Settings) (*client, error) {
	region := settings.Text("region")
	if !scope.IsRegion(region) {
		return nil, invalid.Field("region", region, "not an AWS region", "name one, such as eu-west-1")
	}
	usernamePrefix, sessionPrefix, err := prefixesIn(settings)
	if err != nil {
		return nil, err
	}
	known, err := newIdentity(settings)
	if err != nil {
		return nil, err
	}
	endpoints := map[string]*string{}
	for _, field := range []string{"iam_endpoint", "sts_endpoint"} {
		if text := settings.Text(field); text != "" {
			endpoint, err := parseEndpoint(field, text)
			if err != nil {
				return nil, err
			}
			endpoints[field] = awssdk.String(endpoint.String())
		}
	}
	// Loading reads the environment and files; the chain is only asked, over the
	// network if need be, when a request is signed.
	loaded, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(region))
	if err != nil {
		return nil, fmt.Errorf("aws: loading the SDK's configuration: %w", err)
	}
	attempts, err := attemptsOf(settings, loaded.RetryMaxAttempts)
	if err != nil {
		return nil, err
	}
	loaded.RetryMaxAttempts = 0 // what the retryers say counts
	made := &client{
		skew: &skew{}, region: region, identity: known,
		usernamePrefix: usernamePrefix, sessionPrefix: sessionPrefix,
	}
	measure := func(stack *middleware.Stack) error { return made.skew.measure(stack) } // it may be replaced until the first call
	stsClient := func(source awssdk.CredentialsProvider, retryer awssdk.Retryer) *sts.Client {
		return sts.NewFromConfig(loaded, func(o *sts.Options) {
			o.BaseEndpoint, o.Credentials, o.Retryer = endpoints["sts_endpoint"], source, retryer
			o.APIOptions = append(o.APIOptions, measure)
		})
	}
	own := known.provide(loaded.Credentials, func(source awssdk.CredentialsProvider) *sts.Client {
		return stsClient(source, quick(attempts))
	})
	limiter := &circuit.Limiter{}
	iamClient := func(retryer awssdk.Retryer) *iam.Client {
		return iam.NewFromConfig(loaded, func(o *iam.Options) {
			o.BaseEndpoint, o.Credentials, o.Retryer = endpoints["iam_endpoint"], own, retryer
			o.APIOptions = append(o.APIOptions, pace(limiter), measure)
		})
	}
	made.credentials, made.limiter = own, limiter
	made.iam, made.quickIAM = iamClient(paced(attempts)), iamClient(quick(attempts))
	made.sts, made.quickSTS = stsClient(own, patient(attempts)), stsClient(own, quick(attempts))
	made.newSTS = func(source awssdk.CredentialsProvider) *sts.Client { return stsClient(source, quick(attempts)) }
	return made, nil
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

// reachCredentials gets the engine's own credentials.
func (c *client) reachCredentials(ctx context.Context) error {
	_, err := c.credentials.Retrieve(ctx)
	return err
}

// explain turns a failed verification into what the operator can mend. Codes:
// https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
func (c *client) explain(err error, endpointField string) error {
	if throttled(err) {
		return busy(err)
	}
	key := invalid.Mask(c.identity.accessKey)
	switch errorCode(err) {
	case "SignatureDoesNotMatch", "IncompleteSignature":
		return invalid.Hidden("secret_key", "AWS says that it is not the one of access_key "+key, "give that key's secret")
	case "InvalidClientTokenId", "UnrecognizedClientException":
		return invalid.Field("access_key", key, "AWS knows no such key", "give an active access key of the account")
	case "AccessDenied":
		return invalid.Field("access_key", key, "AWS does not let this key ask who it is", "remove what denies it sts:GetCallerIdentity")
	}
	if fromNetwork := new(net.OpError); errors.As(err, &fromNetwork) {
		return invalid.Hidden(endpointField, "the API can't be reached: "+fromNetwork.Error(), "check "+endpointField+" and region, or write verify_connection=false")
	}
	return invalid.Field("region", c.region, "the API does not answer as AWS does: "+invalid.Clip(err.Error()), "check "+endpointField+", region and credentials, or write verify_connection=false")
}

// unreachable says whether the network failed, and not AWS.
func unreachable(err error) bool {
	var fromNetwork *net.OpError
	return errors.As(err, &fromNetwork)
}
