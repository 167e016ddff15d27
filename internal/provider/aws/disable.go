package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
)

// revoke implements credentialType in four calls: two that disable the user, made
// concurrently, and two that clean it up.
func (u *users) revoke(ctx context.Context, handle provider.Handle) error {
	user, err := u.disable(ctx, handle)
	if err != nil || user == nil {
		return err
	}
	return u.cleanUp(ctx, user, handle)
}

// disable deletes a user's key and, concurrently, replaces its policy by one that
// denies everything. A session that the holder got with the key has the policies that
// the user has at each call, so it can do nothing from then on. These calls go before
// all others where AWS throttles.
//
// disable returns the name that the user has by now, or nil where it is gone.
func (u *users) disable(ctx context.Context, handle provider.Handle) (*string, error) {
	user, err := userOf(handle)
	if err != nil {
		return nil, err
	}
	ctx = circuit.WithUrgency(ctx, circuit.Kill)
	keyErr, denyErr := u.disableNamed(ctx, user, handle[handleKey])
	switch {
	case keyErr == nil && denyErr == nil:
		return user, nil
	case keyErr != nil && !isGone(keyErr), denyErr != nil && !isGone(denyErr):
		return nil, u.unlessMoved(ctx, user, handle, errors.Join(keyErr, denyErr))
	case handle[handleKey] == "": // the mint never finished, so nobody has its key
		return nil, nil
	}
	return u.follow(ctx, user, handle, denyErr == nil)
}

// disableNamed disables the user of a name. Without a key's id, as after a mint that
// failed, it deletes all keys of the user.
func (u *users) disableNamed(ctx context.Context, user *string, key string) (keyErr, denyErr error) {
	var calls errgroup.Group
	calls.Go(func() error {
		denyErr = u.denyAll(ctx, user)
		return nil
	})
	calls.Go(func() error {
		if key != "" {
			keyErr = u.deleteKey(ctx, user, key)
		} else {
			keyErr = u.deleteKeys(ctx, user)
		}
		return nil
	})
	_ = calls.Wait() // each error has its own meaning
	return keyErr, denyErr
}

// follow finds the user that a handle means, where the user of its name does not have
// its key, or does not exist: somebody may have renamed it, and its key works on.
// denied says that a user of that name exists, and was denied everything.
func (u *users) follow(ctx context.Context, user *string, handle provider.Handle, denied bool) (*string, error) {
	if denied {
		ours, err := u.isOurs(ctx, user, handle)
		if ours || (err != nil && !errors.Is(err, errNotOurs) && !isGone(err)) {
			return user, err // its key was deleted before
		}
		if errors.Is(err, errNotOurs) {
			// It was created under the name after somebody had renamed or deleted ours.
			provider.Note(ctx, fmt.Sprintf("the user %q is not the one that this engine has created", *user))
			if err := u.deletePolicy(ctx, user); err != nil && !isGone(err) {
				return nil, err
			}
			denied = false
		}
	}
	owner, err := u.ownerOf(ctx, handle[handleKey])
	if err != nil {
		return nil, err
	}
	if owner == nil && denied {
		return user, nil // whose id the engine may not ask for
	}
	if owner == nil || *owner == *user && !denied { // AWS may answer with the old name for a while
		byID, err := u.findByID(ctx, handle[handleUserID])
		if err != nil || byID == nil && owner == nil {
			return nil, err
		}
		owner = cmp.Or(byID, owner)
	}
	provider.Note(ctx, fmt.Sprintf("somebody renamed or moved the user %q: it is now %q, and is revoked under that name", *user, *owner))
	keyErr, denyErr := u.disableNamed(ctx, owner, handle[handleKey])
	if isGone(keyErr) {
		keyErr = nil // it was found by its id, or AWS has listed a key that was just deleted
	}
	if err := errors.Join(keyErr, denyErr); err != nil {
		return nil, elsewhere(err, *owner)
	}
	return owner, nil
}

// unlessMoved is the error of disabling a user under the name that it still has. AWS
// judges by name and path together, so that it refuses what is done to a user that
// somebody has moved to a path on which the engine has no rights. An engine that may not
// even ask whose the key is has lost its rights, and is to try again.
func (u *users) unlessMoved(ctx context.Context, user *string, handle provider.Handle, err error) error {
	if errorCode(err) != "AccessDenied" {
		return err
	}
	if key := handle[handleKey]; key == "" {
		return err
	} else if owner, asked := u.ownerOf(ctx, key); asked != nil || owner == nil {
		return err
	}
	marked, asked := u.markOf(ctx, *user)
	switch {
	case asked == nil && marked.Handle[handlePath] == handle[handlePath]: // the engine lacks a right
		return err
	case asked != nil && errorCode(asked) != "AccessDenied":
		return errors.Join(err, called("GetUser", asked))
	}
	return &provider.Unconfirmed{Reason: fmt.Sprintf(
		"AWS does not let the engine change the user %q, which somebody may have moved to another path: %v", *user, err)}
}

// elsewhere is the error of a call on a user that somebody moved to where the engine
// has no rights.
func elsewhere(err error, user string) error {
	if errorCode(err) != "AccessDenied" {
		return err
	}
	return &provider.Unconfirmed{Reason: fmt.Sprintf("somebody renamed or moved the user: it is now %q, on which AWS does not let the engine work: %v", user, err)}
}

// ownerOf asks AWS which user an access key belongs to, whatever the user is called by
// now. It returns nil where no such key exists.
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccessKeyLastUsed.html
func (u *users) ownerOf(ctx context.Context, key string) (*string, error) {
	answer, err := u.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: awssdk.String(key)})
	switch {
	case err == nil && awssdk.ToString(answer.UserName) != "":
		return answer.UserName, nil
	case err == nil:
		return nil, errors.New("aws: GetAccessKeyLastUsed: the answer names no user")
	case isGone(err):
		return nil, nil
	case errorCode(err) != "AccessDenied":
		return nil, fmt.Errorf("aws: GetAccessKeyLastUsed: %w", err)
	}
	// AWS does not say whether it refuses for a missing right, or because the account has
	// no such key. It answers for the engine's own key where the right is there.
	if u.mayAskForKeys(ctx) {
		return nil, nil
	}
	return nil, &provider.Unconfirmed{Reason: fmt.Sprintf("the user is not found by its name, and whether its key %s exists could not be asked: allow the engine iam:GetAccessKeyLastUsed on *", key)}
}

// mayAskForKeys says whether the engine may ask for the owners of keys.
func (u *users) mayAskForKeys(ctx context.Context) bool {
	own, err := u.credentials.Retrieve(ctx)
	if err != nil || own.SessionToken != "" || !strings.HasPrefix(own.AccessKeyID, "AKIA") {
		return false
	}
	_, err = u.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: awssdk.String(own.AccessKeyID)})
	return err == nil
}

// findByID looks for the user that AWS knows by an id. A user that was renamed has
// sessions of its holder even after its key was deleted. It returns nil where there is
// none, and where the engine may not list users.
func (u *users) findByID(ctx context.Context, id string) (*string, error) {
	if id == "" {
		return nil, nil
	}
	pages := iam.NewListUsersPaginator(u.iam, &iam.ListUsersInput{MaxItems: awssdk.Int32(1000)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if errorCode(err) == "AccessDenied" {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("aws: ListUsers: %w", err)
		}
		for _, user := range page.Users {
			if awssdk.ToString(user.UserId) == id {
				return user.UserName, nil
			}
		}
	}
	return nil, nil
}

// userOf is the user that a handle names.
func userOf(handle provider.Handle) (*string, error) {
	if handle[handleUser] == "" {
		return nil, errors.New("aws: DeleteUser: the handle names no user")
	}
	return awssdk.String(handle[handleUser]), nil
}

// denyTimeout bounds the putting up of denyAll.
const denyTimeout = 5 * time.Second

// denyAll replaces a user's policy by one that denies everything.
func (u *users) denyAll(ctx context.Context, user *string) error {
	policy, err := iampolicy.Policy(iampolicy.Statement{Effect: "Deny", Action: "*", Resource: "*"})
	if err != nil {
		return err
	}
	_, err = u.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName), PolicyDocument: awssdk.String(string(policy))})
	return called("PutUserPolicy", err)
}

func (u *users) deletePolicy(ctx context.Context, user *string) error {
	_, err := u.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: user, PolicyName: awssdk.String(policyName)})
	return called("DeleteUserPolicy", err)
}

// deleteKeys deletes all keys of a user.
func (u *users) deleteKeys(ctx context.Context, user *string) error {
	keys, err := u.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: user})
	if err != nil {
		return called("ListAccessKeys", err)
	}
	for _, key := range keys.AccessKeyMetadata {
		if err := u.deleteKey(ctx, user, awssdk.ToString(key.AccessKeyId)); err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func (u *users) deleteKey(ctx context.Context, user *string, key string) error {
	_, err := u.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: user, AccessKeyId: awssdk.String(key)})
	return called("DeleteAccessKey", err)
}

// called says which call an error is of.
func called(call string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("aws: %s: %w", call, err)
}

// isGone says whether AWS knows no such thing. Not every call of the SDK has a type for
// that.
func isGone(err error) bool { return errorCode(err) == "NoSuchEntity" }

// unlessGone is nil where the thing to delete does not exist.
func unlessGone(call string, err error) error {
	if isGone(err) {
		return nil
	}
	return called(call, err)
}
