// Package aws mints IAM users on an AWS account: one user, one inline policy
// and one access key for each grant.
package aws

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// iamUser is the one credential type so far: a user with an access key.
const iamUser = "iam_user"

// maxUserName is IAM's limit for a user's name, in characters.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const maxUserName = 64

// Facts that Verify learns of an account.
const (
	factAccount   = "account_id"
	factPartition = "partition"
)

// Type describes the provider to the registry.
func Type() provider.Type {
	return provider.Type{
		Name: "aws",
		Config: map[string]*framework.FieldSchema{
			"region": {
				Type:         framework.TypeString,
				Description:  "AWS region whose endpoints are called, such as eu-west-1.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Region"},
			},
			"access_key": {
				Type:         framework.TypeString,
				Description:  "Access key that may manage users under /precision/. Left out together with secret_key, the AWS credential chain of the machine that Vault runs on is used.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Access key"},
			},
			"secret_key": {
				Type:         framework.TypeString,
				Description:  "Secret key of that access key. Never read back.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Secret key", Sensitive: true},
			},
			"iam_endpoint": {
				Type:         framework.TypeString,
				Description:  "URL of the IAM API, where it isn't AWS's own.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "IAM endpoint"},
			},
			"sts_endpoint": {
				Type:         framework.TypeString,
				Description:  "URL of the STS API, where it isn't AWS's own.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "STS endpoint"},
			},
		},
		Role: map[string]*framework.FieldSchema{
			"credential_type": {
				Type:         framework.TypeString,
				Description:  "What is minted: iam_user, a user with an access key. Default: iam_user.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Credential type"},
			},
			"permissions_boundary_arn": {
				Type:         framework.TypeString,
				Description:  "ARN of a managed policy that the minted user gets as its permissions boundary.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Permissions boundary ARN"},
			},
			"resource_account": {
				Type:         framework.TypeString,
				Description:  "Number of the account that the resource belongs to, if it is not the target's.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Resource account"},
			},
			"kms_key": {
				Type:         framework.TypeString,
				Description:  "ARN of the customer managed KMS key that the resource is encrypted with. The credential may use it for the action, through the action's service only.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "KMS key"},
			},
		},
		Open: open,
	}
}

type account struct {
	client    *client
	id        string // 12 digits; empty while the connection was never verified
	partition string
}

func open(settings provider.Settings, facts provider.Facts) (provider.Provider, error) {
	client, err := newClient(settings)
	if err != nil {
		return nil, err
	}
	return &account{client: client, id: facts[factAccount], partition: facts[factPartition]}, nil
}

// boundaryShape is a managed policy's ARN, the customer's or AWS's own.
var boundaryShape = regexp.MustCompile(`\Aarn:(?:aws|aws-cn|aws-us-gov):iam::(?:[0-9]{12}|aws):policy/[\w+=,.@/-]{1,512}\z`)

// accountShape is an account's number.
var accountShape = regexp.MustCompile(`\A[0-9]{12}\z`)

// Compile implements provider.Provider.
func (a *account) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	if kind := bounds.Options.Text("credential_type"); kind != "" && kind != iamUser {
		return "", invalid.Field("credential_type", kind, "not a credential type of an aws target", "write "+iamUser)
	}
	if boundary := bounds.Options.Text("permissions_boundary_arn"); boundary != "" && !boundaryShape.MatchString(boundary) {
		return "", invalid.Field("permissions_boundary_arn", boundary, "not the ARN of a managed policy", "write it as arn:aws:iam::123456789012:policy/name")
	}
	made, err := a.newGrant(granted, bounds)
	if err != nil {
		return "", err
	}
	return made.compile()
}

// Advise implements provider.Adviser.
func (a *account) Advise(granted scope.Scope, bounds provider.Bounds) provider.Advice {
	made, err := a.newGrant(granted, bounds)
	if err != nil {
		return provider.Advice{} // Compile has refused it
	}
	return made.advise()
}

// Prepare implements provider.Provider. The user's name carries the grant's id,
// so that CloudTrail leads back to the grant, then role and task as far as they
// fit.
func (a *account) Prepare(grant provider.Grant) (provider.Handle, error) {
	name := strings.TrimRight("precision-"+grant.ID+"-"+grant.Role+"-"+grant.Task, "-")
	handle := provider.Handle{
		handleUser: name[:min(len(name), maxUserName)],
		handlePath: "/precision/" + grant.Mount + "/",
	}
	for key, value := range map[string]string{
		handleBoundary:       grant.Options.Text("permissions_boundary_arn"),
		tagPrefix + "mount":  grant.Mount,
		tagPrefix + "role":   grant.Role,
		tagPrefix + "task":   grant.Task,
		tagPrefix + "grant":  grant.ID,
		tagPrefix + "entity": grant.EntityID,
	} {
		if value != "" {
			handle[key] = value
		}
	}
	return handle, nil
}

// Mint implements provider.Provider: three calls in two round trips.
func (a *account) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, _ time.Time) (provider.Credential, error) {
	return a.client.createUser(ctx, handle, policy)
}

// Revoke implements provider.Provider: three calls in two round trips. The key is
// dead after the first.
func (a *account) Revoke(ctx context.Context, handle provider.Handle) error {
	return a.client.deleteUser(ctx, handle)
}

// Identity implements provider.Identified.
func (a *account) Identity() string { return a.id }

// Verify implements provider.Verifier.
func (a *account) Verify(ctx context.Context) (provider.Verification, error) {
	caller, err := a.client.callerIdentity(ctx)
	if err != nil {
		return provider.Verification{}, a.client.explain(err, "sts_endpoint")
	}
	if err := a.client.reachIAM(ctx); err != nil {
		return provider.Verification{}, a.client.explain(err, "iam_endpoint")
	}
	verification := provider.Verification{Facts: provider.Facts{factAccount: caller.Account, factPartition: caller.Partition}}
	if caller.Resource == "root" {
		verification.Warnings = append(verification.Warnings, fmt.Sprintf(
			"access_key is the root user's of account %s: make a user for this engine that may manage users under /precision/ only", caller.Account))
	}
	return verification, nil
}
