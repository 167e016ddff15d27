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

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Keys of a user's handle. Those that start with tagPrefix become the user's tags.
const (
	handleUser     = "user_name"
	handlePath     = "user_path"
	handleBoundary = "permissions_boundary_arn"
	handleKey      = "access_key_id" // only after Mint
	handleUserID   = "user_id"       // likewise: what AWS knows the user by, whatever it is called
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
type users struct {
	*client
	partition string // empty while the connection was never verified
}

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
	created, err := u.quickIAM.CreateUser(ctx, input)
	if err != nil {
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
	if created.User != nil && awssdk.ToString(created.User.UserId) != "" {
		minted[handleUserID] = *created.User.UserId
	}
	return provider.Credential{
		// The session_token is there so that one template serves users and sessions.
		Fields: map[string]any{"access_key": *key.AccessKeyId, "secret_key": *key.SecretAccessKey, "session_token": ""},
		Handle: minted,
		// A user that somebody renames is found by its key and its id alone.
		Unforeseen: true,
	}, nil
}
