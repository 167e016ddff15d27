package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// errNotOurs is returned for a user that does not bear the mark of its handle's
// mount and ledger. Nothing of it is touched.
var errNotOurs = errors.New("the user does not bear this mount's mark")

// deleteBareUser deletes a user that was killed, with what it has again: a key of a
// mint whose answer was lost, or the fence of a try that failed; and on a user of this
// mount what others have added to it, which IAM refuses to delete it with:
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUser.html
func (u *users) deleteBareUser(ctx context.Context, user *string, handle provider.Handle) error {
	err := u.deleteUser(ctx, user)
	if !conflicts(err) {
		return err
	}
	ours, err := u.isOurs(ctx, user, handle)
	if err != nil {
		return err
	}
	if err := errors.Join(u.deletePolicy(ctx, user), u.deleteKeys(ctx, user)); err != nil {
		return err
	}
	if err := u.deleteUser(ctx, user); !conflicts(err) || !ours {
		return err
	}
	for _, remove := range []func(context.Context, *string) error{
		u.deletePolicies, u.detachPolicies, u.leaveGroups, u.deleteLogin,
		u.deleteMFADevices, u.deleteCertificates, u.deleteSSHKeys, u.deleteServiceCredentials,
	} {
		if err := remove(ctx, user); err != nil {
			return err
		}
	}
	return u.deleteUser(ctx, user)
}

func (u *users) deleteUser(ctx context.Context, user *string) error {
	_, err := u.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: user})
	return unlessGone("DeleteUser", err)
}

func conflicts(err error) bool { return errors.As(err, new(*types.DeleteConflictException)) }

// isOurs says whether a user bears the mark of its handle's mount and ledger. The
// error is errNotOurs where it bears another or none. Where the engine may not ask,
// it is false, and what others may have added stays.
func (u *users) isOurs(ctx context.Context, user *string, handle provider.Handle) (bool, error) {
	marked, err := u.markOf(ctx, *user)
	switch {
	case errorCode(err) == "AccessDenied":
		return false, nil
	case err != nil:
		return false, fmt.Errorf("aws: GetUser: %w", err)
	case marked.Mount == "" || marked.Handle[handlePath] != userPath(marked.Mount),
		handle[tagMount] != "" && (marked.Mount != handle[tagMount] || marked.Ledger != handle[tagLedger]):
		return false, fmt.Errorf("aws: DeleteUser %s: %w", *user, errNotOurs)
	default:
		return true, nil
	}
}

func (u *users) deletePolicies(ctx context.Context, user *string) error {
	list, err := u.iam.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: user})
	if err != nil {
		return unlessGone("ListUserPolicies", err)
	}
	for _, name := range list.PolicyNames {
		if _, err := u.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: user, PolicyName: awssdk.String(name)}); unlessGone("", err) != nil {
			return unlessGone("DeleteUserPolicy", err)
		}
	}
	return nil
}

func (u *users) detachPolicies(ctx context.Context, user *string) error {
	list, err := u.iam.ListAttachedUserPolicies(ctx, &iam.ListAttachedUserPoliciesInput{UserName: user})
	if err != nil {
		return unlessGone("ListAttachedUserPolicies", err)
	}
	for _, policy := range list.AttachedPolicies {
		if _, err := u.iam.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: user, PolicyArn: policy.PolicyArn}); unlessGone("", err) != nil {
			return unlessGone("DetachUserPolicy", err)
		}
	}
	return nil
}

func (u *users) leaveGroups(ctx context.Context, user *string) error {
	list, err := u.iam.ListGroupsForUser(ctx, &iam.ListGroupsForUserInput{UserName: user})
	if err != nil {
		return unlessGone("ListGroupsForUser", err)
	}
	for _, group := range list.Groups {
		if _, err := u.iam.RemoveUserFromGroup(ctx, &iam.RemoveUserFromGroupInput{UserName: user, GroupName: group.GroupName}); unlessGone("", err) != nil {
			return unlessGone("RemoveUserFromGroup", err)
		}
	}
	return nil
}

func (u *users) deleteLogin(ctx context.Context, user *string) error {
	_, err := u.iam.DeleteLoginProfile(ctx, &iam.DeleteLoginProfileInput{UserName: user})
	return unlessGone("DeleteLoginProfile", err)
}

func (u *users) deleteMFADevices(ctx context.Context, user *string) error {
	list, err := u.iam.ListMFADevices(ctx, &iam.ListMFADevicesInput{UserName: user})
	if err != nil {
		return unlessGone("ListMFADevices", err)
	}
	for _, device := range list.MFADevices {
		if _, err := u.iam.DeactivateMFADevice(ctx, &iam.DeactivateMFADeviceInput{UserName: user, SerialNumber: device.SerialNumber}); unlessGone("", err) != nil {
			return unlessGone("DeactivateMFADevice", err)
		}
		// A virtual one would stay in the account without a user; a hardware one has no ARN of this kind.
		if !strings.Contains(awssdk.ToString(device.SerialNumber), ":mfa/") {
			continue
		}
		if _, err := u.iam.DeleteVirtualMFADevice(ctx, &iam.DeleteVirtualMFADeviceInput{SerialNumber: device.SerialNumber}); unlessGone("", err) != nil {
			return unlessGone("DeleteVirtualMFADevice", err)
		}
	}
	return nil
}

func (u *users) deleteCertificates(ctx context.Context, user *string) error {
	list, err := u.iam.ListSigningCertificates(ctx, &iam.ListSigningCertificatesInput{UserName: user})
	if err != nil {
		return unlessGone("ListSigningCertificates", err)
	}
	for _, certificate := range list.Certificates {
		if _, err := u.iam.DeleteSigningCertificate(ctx, &iam.DeleteSigningCertificateInput{UserName: user, CertificateId: certificate.CertificateId}); unlessGone("", err) != nil {
			return unlessGone("DeleteSigningCertificate", err)
		}
	}
	return nil
}

func (u *users) deleteSSHKeys(ctx context.Context, user *string) error {
	list, err := u.iam.ListSSHPublicKeys(ctx, &iam.ListSSHPublicKeysInput{UserName: user})
	if err != nil {
		return unlessGone("ListSSHPublicKeys", err)
	}
	for _, key := range list.SSHPublicKeys {
		if _, err := u.iam.DeleteSSHPublicKey(ctx, &iam.DeleteSSHPublicKeyInput{UserName: user, SSHPublicKeyId: key.SSHPublicKeyId}); unlessGone("", err) != nil {
			return unlessGone("DeleteSSHPublicKey", err)
		}
	}
	return nil
}

func (u *users) deleteServiceCredentials(ctx context.Context, user *string) error {
	list, err := u.iam.ListServiceSpecificCredentials(ctx, &iam.ListServiceSpecificCredentialsInput{UserName: user})
	if err != nil {
		return unlessGone("ListServiceSpecificCredentials", err)
	}
	for _, credential := range list.ServiceSpecificCredentials {
		if _, err := u.iam.DeleteServiceSpecificCredential(ctx, &iam.DeleteServiceSpecificCredentialInput{UserName: user, ServiceSpecificCredentialId: credential.ServiceSpecificCredentialId}); unlessGone("", err) != nil {
			return unlessGone("DeleteServiceSpecificCredential", err)
		}
	}
	return nil
}
