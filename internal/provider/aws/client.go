package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Handle keys. Those that start with tagPrefix become the user's tags.
const (
	handleUser     = "user_name"
	handlePath     = "user_path"
	handleBoundary = "permissions_boundary_arn"
	handleKey      = "access_key_id" // only after Mint
	tagPrefix      = "precision:"
)

// policyName is the name of a user's one inline policy.
const policyName = "precision"

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

// createUser makes the user, then its policy and its key side by side.
func (c *client) createUser(ctx context.Context, handle provider.Handle, policy provider.Policy) (provider.Credential, error) {
	user := awssdk.String(handle[handleUser])
	input := &iam.CreateUserInput{UserName: user, Path: awssdk.String(handle[handlePath])}
	for _, key := range slices.Sorted(maps.Keys(handle)) {
		if strings.HasPrefix(key, tagPrefix) {
			input.Tags = append(input.Tags, types.Tag{Key: awssdk.String(key), Value: awssdk.String(handle[key])})
		}
	}
	if boundary := handle[handleBoundary]; boundary != "" {
		input.PermissionsBoundary = awssdk.String(boundary)
	}
	if _, err := c.iam.CreateUser(ctx, input); err != nil {
		return provider.Credential{}, fmt.Errorf("aws: CreateUser: %w", err)
	}

	var key *types.AccessKey
	var calls errgroup.Group // waits for both: a call still under way could outlive the clean-up
	calls.Go(func() error {
		_, err := c.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName), PolicyDocument: awssdk.String(string(policy))})
		if err != nil {
			return fmt.Errorf("aws: PutUserPolicy: %w", err)
		}
		return nil
	})
	calls.Go(func() error {
		answer, err := c.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: user})
		switch {
		case err != nil:
			return fmt.Errorf("aws: CreateAccessKey: %w", err)
		case answer.AccessKey == nil || answer.AccessKey.AccessKeyId == nil || answer.AccessKey.SecretAccessKey == nil:
			return errors.New("aws: CreateAccessKey: the answer holds no key")
		}
		key = answer.AccessKey
		return nil
	})
	if err := calls.Wait(); err != nil {
		return provider.Credential{}, err
	}
	minted := maps.Clone(handle)
	minted[handleKey] = *key.AccessKeyId
	return provider.Credential{
		// The session_token is there so that one template serves users and sessions.
		Fields: map[string]any{"access_key": *key.AccessKeyId, "secret_key": *key.SecretAccessKey, "session_token": ""},
		Handle: minted,
	}, nil
}

// deleteUser deletes key and policy side by side, and then the user: the key is
// dead with the first, a session that was got with it with the last. Without the
// key's id, as after a mint that failed, the keys are looked up first.
//
// Where a call fails after the policy went, the user is fenced: without a policy
// nothing would keep a key or a session of it from what a resource's own policy
// gives to everybody, nor end it.
func (c *client) deleteUser(ctx context.Context, handle provider.Handle) error {
	name := handle[handleUser]
	if name == "" {
		return errors.New("aws: DeleteUser: the handle names no user")
	}
	user := awssdk.String(name)
	var keyErr, policyErr error
	var calls errgroup.Group
	calls.Go(func() error {
		_, err := c.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName)})
		policyErr = unlessGone("DeleteUserPolicy", err)
		return nil
	})
	calls.Go(func() error {
		if key := handle[handleKey]; key != "" {
			keyErr = c.deleteKey(ctx, user, key)
		} else {
			keyErr = c.deleteKeys(ctx, user)
		}
		return nil
	})
	_ = calls.Wait() // each error has its own meaning
	err := errors.Join(keyErr, policyErr)
	if err == nil {
		err = c.deleteBareUser(ctx, user)
	}
	if err != nil && policyErr == nil {
		err = errors.Join(err, c.denyAll(ctx, user))
	}
	return err
}

// deleteBareUser deletes a user that has neither policy nor known key left.
func (c *client) deleteBareUser(ctx context.Context, user *string) error {
	_, err := c.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: user})
	if conflict := new(types.DeleteConflictException); errors.As(err, &conflict) {
		// A key that the handle doesn't name, such as one from a mint whose answer
		// was lost.
		if err := c.deleteKeys(ctx, user); err != nil {
			return err
		}
		_, err = c.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: user})
	}
	return unlessGone("DeleteUser", err)
}

// fenceTimeout bounds the putting up of denyAll.
const fenceTimeout = 5 * time.Second

// denyAll gives a user a policy that denies everything. That the user is gone is
// as good.
func (c *client) denyAll(ctx context.Context, user *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceTimeout)
	defer cancel()
	policy, err := iampolicy.Policy(iampolicy.Statement{Effect: "Deny", Action: "*", Resource: "*"})
	if err != nil {
		return err
	}
	_, err = c.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName), PolicyDocument: awssdk.String(string(policy))})
	return unlessGone("PutUserPolicy", err)
}

func (c *client) deleteKeys(ctx context.Context, user *string) error {
	keys, err := c.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: user})
	if err != nil {
		return unlessGone("ListAccessKeys", err)
	}
	for _, key := range keys.AccessKeyMetadata {
		if err := c.deleteKey(ctx, user, awssdk.ToString(key.AccessKeyId)); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) deleteKey(ctx context.Context, user *string, key string) error {
	_, err := c.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: user, AccessKeyId: awssdk.String(key)})
	return unlessGone("DeleteAccessKey", err)
}

// unlessGone is nil where the thing to delete does not exist.
func unlessGone(call string, err error) error {
	if err == nil {
		return nil
	}
	if gone := new(types.NoSuchEntityException); errors.As(err, &gone) {
		return nil
	}
	return fmt.Errorf("aws: %s: %w", call, err)
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
