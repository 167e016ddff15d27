package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Keys of a rotation's plan.
const (
	planUser  = "user_name"
	planOwner = "user_arn"
	planOld   = "old_access_key"
	planNew   = "new_access_key" // once it is known
	planBegun = "begun_at"
)

// mostKeys is how many access keys a user may have.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const mostKeys = 2

// strangeness is how far a key's creation may be from when the rotation began,
// in either direction, for a key whose name was never learnt to be the rotation's:
// the clocks of Vault and AWS differ, and a call takes its time.
const strangeness = 5 * time.Minute

// keyOwner is a client that signs with the stored key itself, even where the
// engine works as a role that it assumes with it.
func (a *account) keyOwner() (*client, error) {
	if a.client.identity.role == "" {
		return a.client, nil
	}
	settings := maps.Clone(a.settings)
	delete(settings, fieldAssumeRole)
	delete(settings, fieldAssumeExternalID)
	return newClient(settings)
}

// PlanRotation implements provider.RootRotator.
func (a *account) PlanRotation(ctx context.Context) (provider.RotationPlan, error) {
	old := a.client.identity.accessKey
	if old == "" {
		return nil, invalid.Hidden("target", "it has no key of its own to rotate: its credentials come from the machine", "rotate them where they come from")
	}
	owner, err := a.keyOwner()
	if err != nil {
		return nil, err
	}
	caller, err := owner.callerIdentity(ctx)
	if err != nil {
		return nil, owner.explain(err, "sts_endpoint")
	}
	kind, path, _ := strings.Cut(caller.Resource, "/")
	if caller.Service != "iam" || kind != "user" || path == "" {
		return nil, invalid.Field("access_key", invalid.Mask(old), "it is not the key of an IAM user: "+caller.String(), "make a user for this engine")
	}
	name := path[strings.LastIndex(path, "/")+1:]
	keys, err := owner.keysOf(ctx, name)
	if err != nil {
		return nil, owner.explainKeys(err, name)
	}
	if len(keys) >= mostKeys {
		return nil, invalid.Field("access_key", invalid.Mask(old), fmt.Sprintf("its user %q has %d access keys, and no room for a new one", name, len(keys)), "delete the key that this engine does not use")
	}
	return provider.RotationPlan{
		planUser: name, planOwner: caller.String(), planOld: old, planBegun: time.Now().UTC().Format(time.RFC3339),
	}, nil
}

// NextRoot implements provider.RootRotator.
func (a *account) NextRoot(ctx context.Context, plan provider.RotationPlan) (provider.RotationPlan, provider.Settings, error) {
	owner, err := a.keyOwner()
	if err != nil {
		return nil, nil, err
	}
	// Asked once: a refusal then means that there is no key of this rotation, and a
	// second one is somebody else's, such as of another Vault that rotates the same
	// user's.
	answer, err := owner.quickIAM.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: awssdk.String(plan[planUser])}, func(o *iam.Options) { o.Retryer = awssdk.NopRetryer{} })
	if full := new(types.LimitExceededException); errors.As(err, &full) {
		return nil, nil, &provider.NotMade{Reason: invalid.Hidden("access_key", fmt.Sprintf("its user %q has as many access keys as it may", plan[planUser]), "delete the key that this engine does not use")}
	}
	if err != nil {
		explained := owner.explainKeys(fmt.Errorf("aws: CreateAccessKey: %w", err), plan[planUser])
		if errorCode(err) == "AccessDenied" || throttled(err) {
			explained = &provider.NotMade{Reason: explained}
		}
		return nil, nil, explained
	}
	if answer.AccessKey == nil || answer.AccessKey.AccessKeyId == nil || answer.AccessKey.SecretAccessKey == nil {
		return nil, nil, errors.New("aws: CreateAccessKey: the answer holds no key")
	}
	made := maps.Clone(plan)
	made[planNew] = *answer.AccessKey.AccessKeyId
	settings := maps.Clone(a.settings)
	settings["access_key"], settings["secret_key"] = *answer.AccessKey.AccessKeyId, *answer.AccessKey.SecretAccessKey
	return made, settings, nil
}

// explainKeys says what the operator can mend where the engine's user may not
// manage its own keys.
func (c *client) explainKeys(err error, user string) error {
	if errorCode(err) == "AccessDenied" {
		return invalid.Field("access_key", invalid.Mask(c.identity.accessKey), fmt.Sprintf("AWS does not let its user %q manage its own keys", user),
			"allow it iam:ListAccessKeys, iam:CreateAccessKey and iam:DeleteAccessKey on itself")
	}
	return busy(err)
}

// AwaitRoot implements provider.RootRotator.
func (a *account) AwaitRoot(ctx context.Context) error {
	return poll(ctx, func() error {
		if err := a.client.reachCredentials(ctx); err != nil {
			return err
		}
		if _, err := a.client.callerIdentity(ctx); err != nil {
			return err
		}
		return a.client.reachIAM(ctx)
	})
}

// EndOtherRoots implements provider.RootRotator.
func (a *account) EndOtherRoots(ctx context.Context, plan provider.RotationPlan) error {
	owner, err := a.keyOwner()
	if err != nil {
		return err
	}
	own := owner.identity.accessKey
	if own == "" {
		return nil // somebody has configured another identity, which can't judge
	}
	caller, err := owner.callerIdentity(ctx)
	if err != nil {
		return err
	}
	if caller.String() != plan[planOwner] {
		return nil // likewise
	}
	keys, err := owner.keysOf(ctx, plan[planUser])
	if err != nil {
		return err
	}
	others, err := leftBy(plan, own, keys)
	if err != nil {
		return err
	}
	for _, key := range others {
		_, err := owner.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: awssdk.String(plan[planUser]), AccessKeyId: awssdk.String(key)})
		if err := unlessGone("DeleteAccessKey", err); err != nil {
			return err
		}
	}
	return nil
}

// leftBy picks, of the keys that a user has, those that a rotation has left
// beside the one in use.
func leftBy(plan provider.RotationPlan, inUse string, keys []types.AccessKeyMetadata) ([]string, error) {
	begun, err := time.Parse(time.RFC3339, plan[planBegun])
	if err != nil {
		return nil, fmt.Errorf("aws: a rotation's plan: %w", err)
	}
	var left []string
	for _, key := range keys {
		id := awssdk.ToString(key.AccessKeyId)
		var ours bool
		switch {
		case id == inUse:
		case id == plan[planOld]:
			ours = plan[planNew] != "" && inUse == plan[planNew]
		case plan[planNew] != "":
			ours = id == plan[planNew]
		default: // the answer that named it was lost
			ours = inUse == plan[planOld] && awssdk.ToTime(key.CreateDate).Sub(begun).Abs() <= strangeness
		}
		if ours {
			left = append(left, id)
		}
	}
	slices.Sort(left)
	return left, nil
}

// keysOf lists a user's access keys.
func (c *client) keysOf(ctx context.Context, user string) ([]types.AccessKeyMetadata, error) {
	answer, err := c.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: awssdk.String(user)})
	if err != nil {
		return nil, fmt.Errorf("aws: ListAccessKeys: %w", err)
	}
	return answer.AccessKeyMetadata, nil
}
