package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// versionPrefix is where each version of a role is in storage, so that what a grant was minted from is known after the
// role has changed or gone.
const versionPrefix = "versions/"

// roleVersion is one version of a role.
type roleVersion struct {
	Name string `json:"name"`
	Role role   `json:"role"`
	// Policy is what the version compiles to, with its times left out; empty where that depends on the reader.
	Policy string `json:"policy,omitempty"`
	// ReplacedAt is when it was seen that the role has another version, or is gone.
	ReplacedAt time.Time `json:"replaced_at,omitzero"`
}

var errNoVersion = errors.New("this version of the role is not stored")

// storeVersion stores a version of a role, unless it is stored already.
func (b *backend) storeVersion(ctx context.Context, storage logical.Storage, name string, definition role, policy provider.Policy) error {
	version, err := versionOf(definition)
	if err != nil {
		return err
	}
	_, err = readEntry[roleVersion](ctx, storage, versionPrefix+version, errNoVersion)
	if err == nil || (!errors.Is(err, errNoVersion) && !errors.Is(err, stored.ErrDamaged)) {
		return err
	}
	return writeEntry(ctx, storage, versionPrefix+version, roleVersion{Name: name, Role: definition, Policy: string(policy)})
}

// storePast stores the version of a role that a write or a delete replaces, if an older plugin wrote it.
func (b *backend) storePast(ctx context.Context, storage logical.Storage, name string, definition role) error {
	return b.storeVersion(ctx, storage, name, definition, "") // it is compiled again where that is asked for
}

// storeVersions stores the versions of the roles that an older plugin wrote.
func (b *backend) storeVersions(ctx context.Context, storage logical.Storage) error {
	names, err := storage.List(ctx, rolePrefix)
	if err != nil {
		return fmt.Errorf("listing roles: %w", err)
	}
	for _, name := range names {
		opened, err := b.openRole(ctx, storage, name)
		if errors.Is(err, errNoRole) || stored.Unreadable(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := b.storePast(ctx, storage, name, opened.role); err != nil && !stored.Unreadable(err) {
			return err
		}
	}
	return nil
}

// filledOf is what a role's references were filled in with, but for the task, as JSON; empty for nothing.
func filledOf(definition scope.Definition, parameters map[string]string, identity func(scope.Reference) (string, error)) (string, error) {
	filled := maps.Clone(parameters)
	for _, reference := range definition.References() {
		if !strings.HasPrefix(string(reference), identityReferences) {
			continue
		}
		value, err := identity(reference)
		if err != nil {
			return "", err
		}
		if filled == nil {
			filled = map[string]string{}
		}
		filled[string(reference)] = value
	}
	if len(filled) == 0 {
		return "", nil
	}
	text, err := json.Marshal(filled)
	return string(text), err
}

const identityReferences = "identity."

// describeGranted adds to a grant's answer the version of the role that it was minted from, and its policy.
func (b *backend) describeGranted(ctx context.Context, storage logical.Storage, grant ledger.Grant, answer map[string]any) (warning string, err error) {
	if grant.RoleVersion == "" {
		return "", nil // minted before versions were kept
	}
	version, err := readEntry[roleVersion](ctx, storage, versionPrefix+grant.RoleVersion, errNoVersion)
	switch {
	case errors.Is(err, errNoVersion), stored.Unreadable(err):
		return "the role as it was when the grant was minted is not known any longer: " + err.Error(), nil
	case err != nil:
		return "", err
	}
	answer["role_definition"] = describeRole(version.Role)
	policy := provider.Policy(version.Policy)
	if lifecycle.Hash(policy) != grant.PolicySHA256 {
		if policy, err = b.recompile(ctx, storage, grant, version.Role); err != nil {
			return "the policy can't be compiled again, only its hash is known: " + err.Error(), nil
		}
	}
	answer["policy"] = string(policy)
	return "", nil
}

var errOtherPolicy = errors.New("the target's provider compiles another one now")

// recompile compiles a grant's policy from the version of the role that it was minted from.
func (b *backend) recompile(ctx context.Context, storage logical.Storage, grant ledger.Grant, definition role) (provider.Policy, error) {
	opened, err := b.openTarget(ctx, storage, definition.Target)
	if err != nil {
		return "", err
	}
	defined, err := definition.define()
	if err != nil {
		return "", err
	}
	filled := map[string]string{}
	if grant.Filled != "" {
		if err := json.Unmarshal([]byte(grant.Filled), &filled); err != nil {
			return "", err
		}
	}
	values := scope.Values{Parameters: map[string]string{}, Task: grant.Task, Identity: func(reference scope.Reference) (string, error) {
		value, known := filled[string(reference)]
		if !known {
			return "", fmt.Errorf("%s is not recorded", reference)
		}
		return value, nil
	}}
	for name, value := range filled {
		if !strings.HasPrefix(name, identityReferences) {
			values.Parameters[name] = value
		}
	}
	granted, err := defined.Fill(values)
	if err != nil {
		return "", err
	}
	var address netip.Addr
	if grant.SourceIP != "" {
		if address, err = netip.ParseAddr(grant.SourceIP); err != nil {
			return "", err
		}
	}
	bounds := within(definition.bounds(address), granted)
	bounds.ExpiresAt, bounds.TTL = grant.ExpiresAt, grant.ExpiresAt.Sub(grant.IssuedAt)
	policy, err := opened.provider.Compile(granted, bounds)
	if err != nil {
		return "", err
	}
	policy = lifecycle.Blank(policy, grant.ExpiresAt, address)
	if lifecycle.Hash(policy) != grant.PolicySHA256 {
		return "", errOtherPolicy
	}
	return policy, nil
}

// tidyVersions forgets the versions of roles that no grant in the ledger can have been minted from: they were replaced
// before a time, and the longest lease of then is over.
func (b *backend) tidyVersions(ctx context.Context, storage logical.Storage, before time.Time) (deleted int, err error) {
	if err := b.storeVersions(ctx, storage); err != nil {
		return 0, err
	}
	longest := b.System().MaxLeaseTTL()
	if longest <= 0 {
		return 0, nil // Vault did not say
	}
	versions, err := storage.List(ctx, versionPrefix)
	if err != nil {
		return 0, fmt.Errorf("listing the versions of roles: %w", err)
	}
	for _, version := range versions {
		kept, err := readEntry[roleVersion](ctx, storage, versionPrefix+version, errNoVersion)
		if errors.Is(err, errNoVersion) || stored.Unreadable(err) {
			continue
		}
		if err != nil {
			return deleted, err
		}
		current, err := b.roleVersion(ctx, storage, kept.Name)
		switch {
		case stored.Unreadable(err):
			continue
		case err != nil:
			return deleted, err
		}
		switch {
		case current == version && kept.ReplacedAt.IsZero():
		case current == version:
			kept.ReplacedAt = time.Time{}
			err = writeEntry(ctx, storage, versionPrefix+version, kept)
		case kept.ReplacedAt.IsZero():
			kept.ReplacedAt = b.grants.Now().UTC()
			err = writeEntry(ctx, storage, versionPrefix+version, kept)
		case kept.ReplacedAt.Add(longest).Before(before):
			err = deleteEntry(ctx, storage, versionPrefix+version)
			deleted++
		}
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}
