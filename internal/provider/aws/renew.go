package aws

import (
	"context"
	"errors"
	"fmt"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// renewer is a credentialType whose credentials can be moved to a later end.
type renewer interface {
	renew(context.Context, provider.Handle, provider.Policy) error
}

// Renew implements provider.Renewer.
func (a *account) Renew(ctx context.Context, handle provider.Handle, policy provider.Policy, _ time.Time) error {
	kind, err := a.credentials(handle[handleType])
	if err != nil {
		return fmt.Errorf("aws: a handle of an unknown type: %v", err) // not the caller's mistake
	}
	able, ok := kind.(renewer)
	if !ok {
		return fmt.Errorf("aws: a credential of type %s can't be renewed", handle[handleType])
	}
	return busy(able.renew(ctx, handle, policy))
}

// renew implements renewer: IAM replaces the one policy that the user has, and
// refuses where there is no user any more.
func (u *users) renew(ctx context.Context, handle provider.Handle, policy provider.Policy) error {
	if handle[handleUser] == "" {
		return errors.New("aws: PutUserPolicy: the handle names no user")
	}
	_, err := u.quickIAM.PutUserPolicy(ctx, &iam.PutUserPolicyInput{
		UserName: awssdk.String(handle[handleUser]), PolicyName: awssdk.String(policyName), PolicyDocument: awssdk.String(string(policy)),
	})
	if err != nil {
		return fmt.Errorf("aws: PutUserPolicy: %w", err)
	}
	return nil
}
