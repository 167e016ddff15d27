// Package aws mints credentials on an AWS account: for each grant an IAM user
// with one inline policy and one access key, or an STS session with a session
// policy.
package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// iamUser is the type of credential that is a user with an access key.
const iamUser = "iam_user"

// Facts that Verify learns of an account.
const (
	factAccount   = "account_id"
	factPartition = "partition"
	factCaller    = "caller_arn" // who the engine is
)

// Type describes the provider to the registry.
func Type() provider.Type {
	bases, clocks := newCommitters(), &skews{}
	kind := provider.Type{
		Name: "aws",
		Config: map[string]*framework.FieldSchema{
			"region": {
				Type:         framework.TypeString,
				Description:  "AWS region whose endpoints are called, such as eu-west-1.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Region"},
			},
			"access_key": {
				Type:         framework.TypeString,
				Description:  "Access key that may manage users under /precision/, or assume the role that may. Left out together with secret_key, the AWS credential chain of the machine that Vault runs on is used.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Access key"},
			},
			"secret_key": {
				Type:         framework.TypeString,
				Description:  "Secret key of that access key. Never read back.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Secret key", Sensitive: true},
			},
			fieldAssumeRole: {
				Type:         framework.TypeString,
				Description:  "ARN of a role that the engine assumes with that key or chain, or with the web identity token, and works as.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Assumed role's ARN"},
			},
			fieldAssumeExternalID: {
				Type:         framework.TypeString,
				Description:  "External id that the role's trust policy asks for.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Assumed role's external id"},
			},
			fieldTokenFile: {
				Type:         framework.TypeString,
				Description:  "Absolute path, on the machine that Vault runs on, of a web identity token that assume_role_arn is assumed with, as on EKS.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Web identity token file"},
			},
			"max_retries": {
				Type:         framework.TypeInt,
				Description:  "How often a call that AWS throttles or that fails on the way is tried again; a mint's not more than twice. Default: the SDK's, 2.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Max retries"},
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
		Tagged: []string{fieldTags, fieldUserTags},
		Role: map[string]*framework.FieldSchema{
			"credential_type": {
				Type:         framework.TypeString,
				Description:  "What is minted: iam_user, a user with an access key; assumed_role, a session of a role; federation_token, a session of a federated user. Default: iam_user.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Credential type"},
			},
			"permissions_boundary_arn": {
				Type:         framework.TypeString,
				Description:  "ARN of a managed policy that the minted user gets as its permissions boundary.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Permissions boundary ARN"},
			},
			fieldReady: {
				Type:         framework.TypeBool,
				Description:  "Answer only once AWS knows the new key, which may take some seconds. For iam_user.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Wait until ready"},
			},
			fieldReadyTimeout: {
				Type:         framework.TypeDurationSecond,
				Description:  "How long to wait for that, 25 seconds at most; after that the credential is ended and the read fails with status 503. Default: 20 seconds.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Ready timeout"},
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
		Open: func(settings provider.Settings, facts provider.Facts) (provider.Provider, error) {
			opened, err := open(settings, facts)
			if err != nil {
				return nil, err
			}
			opened.bases, opened.client.skew = bases, clocks.of(settings)
			return opened, nil
		},
	}
	kind.Config[fieldDefaultRole] = defaultRoleField()
	maps.Copy(kind.Config, prefixFields())
	maps.Copy(kind.Role, sessionFields())
	return kind
}

type account struct {
	client    *client
	settings  provider.Settings
	types     map[string]credentialType
	id        string // 12 digits; empty while the connection was never verified
	partition string

	caller      caller // zero while the connection was never verified
	defaultRole string // that sessions are assumed from; may be empty
	bases       *committers
}

func open(settings provider.Settings, facts provider.Facts) (*account, error) {
	client, err := newClient(settings)
	if err != nil {
		return nil, err
	}
	opened := &account{client: client, settings: settings, id: facts[factAccount], partition: facts[factPartition], defaultRole: settings.Text(fieldDefaultRole), bases: newCommitters()}
	if text := facts[factCaller]; text != "" {
		arn, err := scope.ParseARN(text)
		if err != nil {
			return nil, fmt.Errorf("aws: the stored ARN of the engine: %s", err) // not the caller's mistake
		}
		opened.caller = caller{arn}
	}
	if opened.defaultRole != "" {
		if err := opened.checkRoleARN(fieldDefaultRole, opened.defaultRole); err != nil {
			return nil, err
		}
	}
	opened.types = map[string]credentialType{
		iamUser:         &users{client, opened.partition},
		assumedRole:     &sessions{opened, assumes{opened}},
		federationToken: &sessions{opened, federates{opened}},
	}
	return opened, nil
}

// accountShape is an account's number.
var accountShape = regexp.MustCompile(`\A[0-9]{12}\z`)

// Compile implements provider.Provider.
func (a *account) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	kind, err := a.credentials(bounds.Options.Text(handleType))
	if err != nil {
		return "", err
	}
	if err := checkOnlyUsers(bounds); err != nil {
		return "", err
	}
	if err := checkFields(bounds.Options); err != nil {
		return "", err
	}
	if err := kind.check(bounds.Options); err != nil {
		return "", err
	}
	if limited, is := kind.(*sessions); is {
		if err := limited.checkLife(bounds.TTL); err != nil {
			return "", err
		}
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
	advice := made.advise()
	if bounds.Options.Text(handleType) == assumedRole {
		advice.Definition = append(advice.Definition, callerWarnings(a.caller.ARN)...)
	}
	return advice
}

// credentialType is one way to hand a grant's policy to its holder. Its methods
// are those of provider.Provider.
type credentialType interface {
	// check refuses a role's fields that this type can't do with.
	check(options provider.Settings) error
	prepare(context.Context, provider.Grant) (provider.Handle, error)
	mint(context.Context, provider.Handle, provider.Policy, time.Time) (provider.Credential, error)
	revoke(context.Context, provider.Handle) error
}

// handleType is the key of every handle that says which type of credential it
// names. Those of before there were several have none.
const handleType = "credential_type"

// credentials finds the type of credential of that name; empty for the default.
// The error is an *invalid.Error.
func (a *account) credentials(name string) (credentialType, error) {
	found, known := a.types[cmp.Or(name, iamUser)]
	if !known {
		return nil, invalid.Field(handleType, name, "not a credential type of an aws target", "write "+invalid.OneOf(slices.Sorted(maps.Keys(a.types))))
	}
	return found, nil
}

// Prepare implements provider.Provider.
func (a *account) Prepare(ctx context.Context, grant provider.Grant) (provider.Handle, error) {
	name := grant.Options.Text(handleType)
	kind, err := a.credentials(name)
	if err != nil {
		return nil, err
	}
	handle, err := kind.prepare(ctx, grant)
	if err != nil {
		return nil, err
	}
	handle[handleType] = cmp.Or(name, iamUser)
	return handle, nil
}

// Mint implements provider.Provider.
func (a *account) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	kind, err := a.credentials(handle[handleType])
	if err != nil {
		return provider.Credential{}, err
	}
	ctx = circuit.WithUrgency(ctx, circuit.Make)
	if err := a.client.awaitSkew(ctx); err != nil {
		return provider.Credential{}, &provider.NotMade{Reason: busy(err)}
	}
	minted, err := kind.mint(ctx, handle, policy, expiresAt)
	if err == nil {
		err = a.client.checkSkew() // which that has measured
	}
	if err != nil {
		return provider.Credential{}, busy(err)
	}
	minted.Warnings = append(minted.Warnings, a.client.skewWarnings()...)
	return minted, nil
}

// Revoke implements provider.Provider.
func (a *account) Revoke(ctx context.Context, handle provider.Handle) error {
	kind, err := a.credentials(handle[handleType])
	if err != nil {
		return fmt.Errorf("aws: a handle of an unknown type: %v", err) // not the caller's mistake
	}
	return kind.revoke(ctx, handle)
}

// Kill implements provider.Killer. Only a user takes several calls to revoke: the
// clean-up is left for later where AWS throttles, and where it fails.
func (a *account) Kill(ctx context.Context, handle provider.Handle) (left bool, err error) {
	killer, able := a.types[cmp.Or(handle[handleType], iamUser)].(*users)
	if !able {
		return false, a.Revoke(ctx, handle)
	}
	user, err := killer.disable(ctx, handle)
	switch {
	case err != nil || user == nil:
		return false, err
	case a.client.limiter.Pressed():
		return true, nil
	}
	err = killer.cleanUp(ctx, user, handle)
	if errors.Is(err, errNotDenied) {
		return false, err
	}
	return err != nil, nil
}

// Tidy implements provider.Killer.
func (a *account) Tidy(ctx context.Context, handle provider.Handle) error {
	killer, able := a.types[cmp.Or(handle[handleType], iamUser)].(*users)
	if !able {
		return a.Revoke(ctx, handle)
	}
	user, err := userOf(handle)
	if err != nil {
		return err
	}
	return killer.cleanUp(ctx, user, handle)
}

// Identity implements provider.Identified.
func (a *account) Identity() string { return a.id }

// Verify implements provider.Verifier.
func (a *account) Verify(ctx context.Context) (provider.Verification, error) {
	if err := a.client.reachCredentials(ctx); err != nil {
		if mendable := a.client.identity.explain(err); mendable != nil {
			return provider.Verification{}, mendable
		}
		return provider.Verification{}, a.client.explain(err, "sts_endpoint")
	}
	identity, err := a.client.callerIdentity(ctx)
	if err != nil {
		return provider.Verification{}, a.client.explain(err, "sts_endpoint")
	}
	if err := a.client.reachIAM(ctx); err != nil {
		return provider.Verification{}, a.client.explain(err, "iam_endpoint")
	}
	verification := provider.Verification{Facts: provider.Facts{factAccount: identity.Account, factPartition: identity.Partition, factCaller: identity.String()}}
	if identity.Resource == "root" {
		verification.Warnings = append(verification.Warnings, fmt.Sprintf(
			"access_key is the root user's of account %s: make a user for this engine that may manage users under /precision/ only", identity.Account))
	}
	verification.Warnings = append(verification.Warnings, callerWarnings(identity)...)
	verification.Warnings = append(verification.Warnings, a.client.skewWarnings()...)
	return verification, nil
}
