package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
)

// Keys of a user's handle. Those that start with tagPrefix become the user's tags.
const (
	handleUser     = "user_name"
	handlePath     = "user_path"
	handleBoundary = "permissions_boundary_arn"
	handleKey      = "access_key_id" // only after Mint
	handleUserTag  = "user_tag:"     // and a key
	tagPrefix      = "precision:"
)

// policyName is the name of a user's one inline policy.
const policyName = "precision"

// maxUserName is IAM's limit for a user's name, in characters.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const maxUserName = 64

// users mints a user for each grant: with the grant's policy as its one inline
// policy, and one access key.
type users struct{ *client }

// boundaryShape is a managed policy's ARN, the customer's or AWS's own.
var boundaryShape = regexp.MustCompile(`\Aarn:(?:aws|aws-cn|aws-us-gov):iam::(?:[0-9]{12}|aws):policy/[\w+=,.@/-]{1,512}\z`)

// check implements credentialType.
func (u *users) check(options provider.Settings) error {
	if boundary := options.Text("permissions_boundary_arn"); boundary != "" && !boundaryShape.MatchString(boundary) {
		return invalid.Field("permissions_boundary_arn", boundary, "not the ARN of a managed policy", "write it as arn:aws:iam::123456789012:policy/name")
	}
	tags, err := tagsOf(options, fieldUserTags, maxTags-ownTags)
	if err != nil {
		return err
	}
	for key := range tags {
		if strings.HasPrefix(strings.ToLower(key), tagPrefix) {
			return invalid.Field(fieldUserTags, key, "the engine's own tags start with "+tagPrefix, "choose another key")
		}
	}
	return checkReady(options)
}

// ownTags is how many tags of a user are the engine's.
const ownTags = 7

// prepare implements credentialType. The user's name carries the grant's id,
// so that CloudTrail leads back to the grant, then role and task as far as they
// fit.
func (u *users) prepare(_ context.Context, grant provider.Grant) (provider.Handle, error) {
	name := strings.TrimRight(u.usernamePrefix+"-"+grant.ID+"-"+grant.Role+"-"+grant.Task, "-")
	handle := provider.Handle{
		handleUser: name[:min(len(name), maxUserName)],
		handlePath: userPath(grant.Mount),
	}
	for key, value := range map[string]string{
		handleBoundary:       grant.Options.Text("permissions_boundary_arn"),
		fieldReady:           readyIn(grant.Options),
		tagMount:             grant.Mount,
		tagLedger:            grant.Ledger,
		tagGrant:             grant.ID,
		tagExpires:           grant.ExpiresAt.UTC().Format(time.RFC3339),
		tagPrefix + "role":   grant.Role,
		tagPrefix + "task":   grant.Task,
		tagPrefix + "entity": grant.EntityID,
	} {
		if value != "" {
			handle[key] = value
		}
	}
	for key, value := range grant.Options.Pairs(fieldUserTags) {
		handle[handleUserTag+key] = value
	}
	return handle, nil
}

// mint implements credentialType in three calls and two round trips: it makes
// the user, then its policy and its key side by side. Where the role says so, it
// waits until the key works.
func (u *users) mint(ctx context.Context, handle provider.Handle, policy provider.Policy, _ time.Time) (provider.Credential, error) {
	user := awssdk.String(handle[handleUser])
	input := &iam.CreateUserInput{UserName: user, Path: awssdk.String(handle[handlePath])}
	for _, key := range slices.Sorted(maps.Keys(handle)) {
		if strings.HasPrefix(key, tagPrefix) {
			input.Tags = append(input.Tags, types.Tag{Key: awssdk.String(key), Value: awssdk.String(handle[key])})
		} else if given, is := strings.CutPrefix(key, handleUserTag); is {
			input.Tags = append(input.Tags, types.Tag{Key: awssdk.String(given), Value: awssdk.String(handle[key])})
		}
	}
	if boundary := handle[handleBoundary]; boundary != "" {
		input.PermissionsBoundary = awssdk.String(boundary)
	}
	if _, err := u.quickIAM.CreateUser(ctx, input); err != nil {
		return provider.Credential{}, fmt.Errorf("aws: CreateUser: %w", err)
	}

	var key *types.AccessKey
	var calls errgroup.Group // waits for both: a call still under way could outlive the clean-up
	calls.Go(func() error {
		_, err := u.quickIAM.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName), PolicyDocument: awssdk.String(string(policy))})
		if err != nil {
			return fmt.Errorf("aws: PutUserPolicy: %w", err)
		}
		return nil
	})
	calls.Go(func() error {
		answer, err := u.quickIAM.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: user})
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
	if err := u.awaitReady(ctx, handle[fieldReady], key); err != nil {
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

// revoke implements credentialType in as many: it deletes key and policy side by
// side, and then the user.
func (u *users) revoke(ctx context.Context, handle provider.Handle) error {
	if err := u.kill(ctx, handle); err != nil {
		return err
	}
	return u.tidy(ctx, handle)
}

// kill deletes a user's key and policy, side by side: the key is dead then, and a
// session that was got with it has no rights of its own any more. These calls go
// before all others where AWS throttles.
//
// Where only the policy went, the user is fenced: without a policy nothing would keep
// the key or a session of it from what a resource's own policy gives to everybody,
// nor end it.
func (u *users) kill(ctx context.Context, handle provider.Handle) error {
	user, err := userOf(handle)
	if err != nil {
		return err
	}
	ctx = circuit.WithUrgency(ctx, circuit.Kill)
	var keyErr, policyErr error
	var calls errgroup.Group
	calls.Go(func() error {
		policyErr = u.deletePolicy(ctx, user)
		return nil
	})
	calls.Go(func() error {
		keyErr = u.deleteKeyOf(ctx, user, handle)
		return nil
	})
	_ = calls.Wait() // each error has its own meaning
	if keyErr != nil && policyErr == nil {
		return errors.Join(keyErr, u.denyAll(ctx, user))
	}
	return errors.Join(keyErr, policyErr)
}

// tidy deletes a user that has neither policy nor known key left, and fences it
// where that fails: but not where AWS throttles. There, a fence would take the turn of
// what kills another user, and make this one harder to delete.
func (u *users) tidy(ctx context.Context, handle provider.Handle) error {
	user, err := userOf(handle)
	if err != nil {
		return err
	}
	err = u.deleteBareUser(circuit.WithUrgency(ctx, circuit.Tidy), user, handle)
	if err != nil && !errors.Is(err, errNotOurs) && !throttled(err) && !errors.Is(err, provider.ErrUnavailable) {
		return errors.Join(err, u.denyAll(ctx, user))
	}
	return err
}

// userOf is the user that a handle names.
func userOf(handle provider.Handle) (*string, error) {
	if handle[handleUser] == "" {
		return nil, errors.New("aws: DeleteUser: the handle names no user")
	}
	return awssdk.String(handle[handleUser]), nil
}

// deleteKeyOf deletes a user's key. Without the key's id, as after a mint that
// failed, the keys are looked up first.
func (u *users) deleteKeyOf(ctx context.Context, user *string, handle provider.Handle) error {
	if key := handle[handleKey]; key != "" {
		return u.deleteKey(ctx, user, key)
	}
	return u.deleteKeys(ctx, user)
}

// fenceTimeout bounds the putting up of denyAll.
const fenceTimeout = 5 * time.Second

// denyAll gives a user a policy that denies everything. That the user is gone is
// as good. It does not wait until AWS has stopped to throttle other ends.
func (u *users) denyAll(ctx context.Context, user *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceTimeout)
	defer cancel()
	policy, err := iampolicy.Policy(iampolicy.Statement{Effect: "Deny", Action: "*", Resource: "*"})
	if err != nil {
		return err
	}
	_, err = u.quickIAM.PutUserPolicy(circuit.WithUrgency(ctx, circuit.Kill), &iam.PutUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName), PolicyDocument: awssdk.String(string(policy))})
	return unlessGone("PutUserPolicy", err)
}

func (u *users) deletePolicy(ctx context.Context, user *string) error {
	_, err := u.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName)})
	return unlessGone("DeleteUserPolicy", err)
}

func (u *users) deleteKeys(ctx context.Context, user *string) error {
	keys, err := u.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: user})
	if err != nil {
		return unlessGone("ListAccessKeys", err)
	}
	for _, key := range keys.AccessKeyMetadata {
		if err := u.deleteKey(ctx, user, awssdk.ToString(key.AccessKeyId)); err != nil {
			return err
		}
	}
	return nil
}

func (u *users) deleteKey(ctx context.Context, user *string, key string) error {
	_, err := u.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: user, AccessKeyId: awssdk.String(key)})
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
