package precision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// configPrefix is where the targets are in storage, sealed.
const configPrefix = "config/"

// target is a system that credentials are minted on, as it is stored.
type target struct {
	Type     string            `json:"type"`
	Settings provider.Settings `json:"settings"`
	Facts    provider.Facts    `json:"facts,omitempty"`
}

// openTarget is a target that is ready for use.
type openTarget struct {
	target
	provider provider.Provider
	// system tells where its credentials are minted, and so where a revoke has
	// to go: a hash of the provider's Identity, or empty where it has none.
	system string
}

// errNoTarget is returned for a target that is not configured.
var errNoTarget = errors.New("target is not configured")

// readTarget reads a target's entry. The error is errNoTarget where it has none.
func readTarget(ctx context.Context, storage logical.Storage, name string) (target, error) {
	return readEntry[target](ctx, storage, configPrefix+name, errNoTarget)
}

// openTarget returns the target of that name with its provider, from the cache
// where it can.
func (b *backend) openTarget(ctx context.Context, storage logical.Storage, name string) (openTarget, error) {
	return b.targets.get(ctx, name, func() (openTarget, error) {
		stored, err := readTarget(ctx, storage, name)
		if err != nil {
			return openTarget{}, err
		}
		if err := b.settingsKnown(name, stored); err != nil {
			return openTarget{}, err
		}
		opened, err := b.open(stored)
		if err == nil {
			b.grants.Opened(name, stored.Type)
		}
		return opened, err
	})
}

// settingsKnown refuses a stored target of a type, or with a setting, that this plugin does not have.
func (b *backend) settingsKnown(name string, read target) error {
	kind, known := b.types[read.Type]
	if !known {
		return fmt.Errorf("%s%s was %w: it is of type %q", configPrefix, name, stored.ErrNewer, read.Type)
	}
	for _, setting := range slices.Sorted(maps.Keys(read.Settings)) {
		if _, known := kind.Config[setting]; !known && !slices.Contains(kind.Stored, setting) {
			return fmt.Errorf("%s%s was %w: it has setting %q", configPrefix, name, stored.ErrNewer, setting)
		}
	}
	return nil
}

func (b *backend) open(stored target) (openTarget, error) {
	kind, known := b.types[stored.Type]
	if !known {
		return openTarget{}, fmt.Errorf("this version of the plugin has no provider %q", stored.Type)
	}
	opened, err := kind.Open(stored.Settings, stored.Facts)
	if err != nil {
		return openTarget{}, err
	}
	if keeper, able := opened.(provider.Keeper); able {
		keeper.Remember(b.grants.Ledger())
	}
	return openTarget{target: stored, provider: opened, system: systemOf(opened)}, nil
}

func systemOf(known provider.Provider) string {
	identified, able := known.(provider.Identified)
	if !able || identified.Identity() == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(identified.Identity()))
	return hex.EncodeToString(sum[:8])
}

// typeNames lists the types of target that there are.
func (b *backend) typeNames() []string { return slices.Sorted(maps.Keys(b.types)) }

// settingsOf takes from the request's data the fields that belong to a type of
// target. taken are all fields of all types; one that was given and belongs to
// another type is refused.
func settingsOf(data *framework.FieldData, taken, own map[string]*framework.FieldSchema, owner string) (provider.Settings, error) {
	settings := provider.Settings{}
	for _, name := range slices.Sorted(maps.Keys(taken)) {
		value, given := data.GetOk(name)
		if !given {
			continue
		}
		if _, ok := own[name]; !ok {
			return nil, invalid.Hidden(name, owner+" does not take it", "leave it out, or name the right target or type")
		}
		settings[name] = value
	}
	return settings, nil
}

// mergeFields collects the fields of all types of target into one schema. A
// name that several types use describes itself once for each.
func mergeFields(types []provider.Type, fieldsOf func(provider.Type) map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	merged := map[string]*framework.FieldSchema{}
	for _, kind := range types {
		for name, field := range fieldsOf(kind) {
			described := fmt.Sprintf("For type %s: %s", kind.Name, field.Description)
			if already, ok := merged[name]; ok {
				already.Description += " " + described
				continue
			}
			copied := *field
			copied.Description = described
			merged[name] = &copied
		}
	}
	return merged
}
