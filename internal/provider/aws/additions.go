package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// errNotOurs is returned for a user of a handle's name that is another user, or that
// bears another mark. Nothing of it is changed.
var errNotOurs = errors.New("the user is not the one that this engine has created")

// errNotDenied is returned where nothing denies a user everything although it could not
// be deleted.
var errNotDenied = errors.New("the user could not be denied everything again")

// cleanUp deletes a user that was disabled, with what others have added to it. It is
// idempotent. Where it fails, the user is denied everything, unless the error is
// errNotDenied.
func (u *users) cleanUp(ctx context.Context, user *string, handle provider.Handle) error {
	ctx = circuit.WithUrgency(ctx, circuit.Tidy)
	gone, err := u.deleteWhole(ctx, user, handle)
	if !gone {
		return blockedBy(err, *user)
	}
	renamed, err := u.findByID(ctx, handle[handleUserID])
	if err != nil || renamed == nil {
		return err
	}
	_, err = u.deleteWhole(ctx, renamed, handle)
	return blockedBy(err, *renamed)
}

// deleteWhole deletes a disabled user, and first what keeps it from being deleted. gone says
// that the handle's user does not have that name, or not any longer.
func (u *users) deleteWhole(ctx context.Context, user *string, handle provider.Handle) (gone bool, err error) {
	if gone, err = u.deleteDisabled(ctx, user); !conflicts(err) {
		return gone, err
	}
	err = u.removeAdditions(ctx, user, handle)
	switch {
	case errors.Is(err, errNotOurs) && handle[handleUserID] != "":
		return true, nil
	case err != nil:
		return false, err
	}
	_, err = u.deleteDisabled(ctx, user)
	return false, err
}

// deleteDisabled deletes the policy that denies a user everything, and then the user.
// Where the user can't be deleted, the policy is put back. gone says that there was no
// such user.
func (u *users) deleteDisabled(ctx context.Context, user *string) (gone bool, err error) {
	if err := u.seal(ctx, user); err != nil {
		return false, err
	}
	policyErr := u.deletePolicy(ctx, user)
	if policyErr != nil && !isGone(policyErr) {
		return false, policyErr
	}
	// Nothing denies a session of the user what a resource's own policy gives to everybody,
	// unless the user is sealed: so this goes before all other calls.
	err = u.deleteUser(circuit.WithUrgency(ctx, circuit.Kill), user)
	if err == nil || isGone(err) {
		return isGone(policyErr) && isGone(err), nil
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), denyTimeout)
	defer cancel()
	if denyErr := u.denyAll(circuit.WithUrgency(limited, circuit.Kill), user); denyErr != nil && !isGone(denyErr) {
		return false, errors.Join(err, errNotDenied, denyErr)
	}
	return false, err
}

// seal bounds a user by AWS's own policy that denies everything. Unlike other policies,
// a boundary does not keep a user from being deleted, so that everything is denied until
// the user is gone. It takes a right that the engine can do without.
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutUserPermissionsBoundary.html
func (u *users) seal(ctx context.Context, user *string) error {
	if u.unsealed.Load() {
		return nil
	}
	_, err := u.iam.PutUserPermissionsBoundary(ctx, &iam.PutUserPermissionsBoundaryInput{
		UserName: user, PermissionsBoundary: awssdk.String("arn:" + cmp.Or(u.partition, "aws") + ":iam::aws:policy/AWSDenyAll"),
	})
	code := errorCode(err)
	if code == "" || isGone(err) || throttled(err) || slices.Contains(passing, code) {
		return unlessGone("PutUserPermissionsBoundary", err)
	}
	u.unsealed.Store(true) // as a rule, since the right is missing
	return nil
}

// passing are IAM's errors that do not last, besides throttling.
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutUserPermissionsBoundary.html
// https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
var passing = []string{
	"ServiceFailure", "ServiceUnavailable", "InternalFailure", "ConcurrentModification", "EntityTemporarilyUnmodifiable",
}

func (u *users) deleteUser(ctx context.Context, user *string) error {
	_, err := u.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: user})
	return called("DeleteUser", err)
}

func conflicts(err error) bool { return errors.As(err, new(*types.DeleteConflictException)) }

// removeAdditions removes from a user what IAM refuses to delete it with: keys, and what
// others have added.
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUser.html
func (u *users) removeAdditions(ctx context.Context, user *string, handle provider.Handle) error {
	ours, err := u.isOurs(ctx, user, handle)
	if errors.Is(err, errNotOurs) {
		return errors.Join(err, unlessGone("", u.deletePolicy(ctx, user))) // that deleteDisabled has put on it
	}
	if err != nil {
		return unlessGone("", err)
	}
	if err := u.deleteKeys(ctx, user); err != nil {
		return unlessGone("", err)
	}
	if !ours {
		return nil
	}
	for _, remove := range []func(context.Context, *string) error{
		u.deletePolicies, u.detachPolicies, u.leaveGroups, u.deleteLogin,
		u.deleteMFADevices, u.deleteCertificates, u.deleteSSHKeys, u.deleteServiceCredentials,
	} {
		if err := remove(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

// blockedBy is the error of a clean-up that goes on only once somebody has done
// something.
func blockedBy(err error, user string) error {
	switch {
	case errors.Is(err, errNotDenied):
		return err
	case errors.Is(err, errNotOurs):
		return &provider.CleanupBlocked{
			Reason: fmt.Sprintf("the user %q is not the one that this engine has created, or bears another mark", user),
			Remedy: "aws iam get-user --user-name " + user,
		}
	case errorCode(err) == "AccessDenied", conflicts(err):
		return &provider.CleanupBlocked{
			Reason: fmt.Sprintf("somebody has added to the user %q what AWS does not let the engine remove: %v", user, err),
			Remedy: "give the engine the rights to remove what others add, or delete the user: aws iam delete-user --user-name " + user,
		}
	default:
		return err
	}
}

// isOurs says whether a user is the one that a handle means: it has the handle's id,
// or where the handle has none, the mark of its mount and ledger. The error is errNotOurs
// where it is another. Where the engine may not ask, it is false, and what others may
// have added stays.
func (u *users) isOurs(ctx context.Context, user *string, handle provider.Handle) (bool, error) {
	marked, err := u.markOf(ctx, *user)
	switch id := handle[handleUserID]; {
	case errorCode(err) == "AccessDenied":
		return false, nil
	case err != nil:
		return false, called("GetUser", err)
	case id != "" && marked.Handle[handleUserID] == id:
		return true, nil
	case id != "",
		marked.Mount == "" || marked.Handle[handlePath] != userPath(marked.Mount),
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
		if name == policyName {
			continue // it denies everything until the user is deleted
		}
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
