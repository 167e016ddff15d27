package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// neededKeys are the installations that roles need, worked out once and kept until
// a role or a target is changed.
type neededKeys struct {
	mu   sync.Mutex
	keys map[string]bool // nil: not worked out yet
}

func (n *neededKeys) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys = nil
}

// neededByRoles returns the keys of what roles need at their targets, see
// ledger.Installation. A role that can't be opened is an error: what it needs is
// not known.
func (b *backend) neededByRoles(ctx context.Context, storage logical.Storage) (map[string]bool, error) {
	b.needed.mu.Lock()
	defer b.needed.mu.Unlock()
	if b.needed.keys != nil {
		return b.needed.keys, nil
	}
	names, err := storage.List(ctx, rolePrefix)
	if err != nil {
		return nil, fmt.Errorf("listing roles: %w", err)
	}
	own, err := b.grants.LedgerID(ctx, storage)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, name := range names {
		key, err := b.neededBy(ctx, storage, name, own)
		if err != nil {
			return nil, fmt.Errorf("what role %q needs at its target: %w", name, err)
		}
		keys[key] = true
	}
	b.needed.keys = keys
	return keys, nil
}

// neededBy is empty for a role that needs nothing, or whose needs depend on who
// reads a credential.
func (b *backend) neededBy(ctx context.Context, storage logical.Storage, name, own string) (string, error) {
	stored, err := b.openRole(ctx, storage, name)
	if errors.Is(err, errNoRole) {
		return "", nil // deleted since it was listed
	}
	if err != nil {
		return "", err
	}
	opened, err := b.openTarget(ctx, storage, stored.Target)
	if errors.Is(err, errNoTarget) {
		return "", nil // deleted by force: nothing that it has can be removed
	}
	if err != nil {
		return "", err
	}
	installer, able := opened.provider.(provider.Installer)
	if !able || len(stored.definition.References()) > 0 {
		return "", nil
	}
	granted, err := stored.definition.Fill(scope.Values{})
	if err != nil {
		return "", err
	}
	policy, err := opened.provider.Compile(granted, within(stored.widest(b.grants.Now(), b.System()), granted))
	if err != nil {
		return "", err
	}
	handle := installer.Plan(policy, b.mountUUID, own)
	if len(handle) == 0 {
		return "", nil
	}
	return ledger.NewInstallation(stored.Target, opened.system, handle, b.grants.Now()).Key, nil
}

// removeInstalled removes what no role and no grant needs on a target. What can't be
// removed stays written down, and the error says why.
func (b *backend) removeInstalled(ctx context.Context, storage logical.Storage, name string) error {
	if len(b.grants.Installed(name)) == 0 {
		return nil
	}
	needed, err := b.neededByRoles(ctx, storage)
	if err != nil {
		return err
	}
	for _, idle := range b.grants.Idle() {
		if idle.Target != name || needed[idle.Key] {
			continue
		}
		target, err := b.enderOf(ctx, storage, ledger.Grant{Target: name, System: idle.System})
		if err != nil {
			return err
		}
		byRole := func() (bool, error) {
			needed, err := b.neededByRoles(ctx, storage)
			return needed[idle.Key], err
		}
		if err := b.grants.Uninstall(ctx, storage, target, idle, byRole); err != nil && !errors.Is(err, lifecycle.ErrNeeded) {
			return err
		}
	}
	return nil
}

// disown forgets what was installed on a target that is configured no more, and says
// what a person has to remove.
func (b *backend) disown(ctx context.Context, storage logical.Storage, name string) (warnings []string, err error) {
	for _, left := range b.grants.Installed(name) {
		if err := b.grants.Disown(ctx, storage, left); err != nil {
			return warnings, err
		}
		warnings = append(warnings, fmt.Sprintf("left on the target, for you to remove: %v", maps.Clone(left.Handle)))
	}
	return warnings, nil
}
