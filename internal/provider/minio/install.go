package minio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Plan implements provider.Installer: a user for each action and resource, of which
// the sessions are where roles are isolated.
func (m *minio) Plan(policy provider.Policy, mount, ledger string) provider.Handle {
	if !m.isolates {
		return nil
	}
	rules, err := rulesOf(policy)
	if err != nil {
		return nil // Compile wrote it
	}
	return provider.Handle{handleParent: parentName(m.client.accessKey, mount, ledger, rules)}
}

var errNoParent = errors.New("minio: the handle names no user")

// Install implements provider.Installer: it makes the user, with a policy of its name,
// or puts both right. It is done if the user itself says what it may do.
func (m *minio) Install(ctx context.Context, handle provider.Handle, policy provider.Policy) error {
	parent := handle[handleParent]
	if parent == "" {
		return errNoParent
	}
	rules, err := rulesOf(policy)
	if err != nil {
		return err
	}
	if err := m.client.importUser(ctx, parent, rules); err != nil {
		return m.client.lacking(err)
	}
	shown, err := m.client.policyOf(ctx, m.client.keyOf(parent))
	if err != nil {
		return err
	}
	if same, err := sameRules(shown, rules); err != nil {
		return err
	} else if !same {
		return invalid.Field("access_key", parent, "the store shows another policy of this user of the engine's than the one that its role has made", "take the user out of every group, and write the role again")
	}
	return nil
}

// Uninstall implements provider.Installer: the user first, since a policy that is in
// use can't be removed.
func (m *minio) Uninstall(ctx context.Context, handle provider.Handle) error {
	parent := handle[handleParent]
	if parent == "" {
		return errNoParent
	}
	if err := m.client.removeUser(ctx, parent); err != nil {
		return m.client.lacking(err)
	}
	return m.client.lacking(m.client.removePolicy(ctx, parent))
}

// notInstalled says whether AssumeRole was refused for who asked: the store does not
// know the parent, or knows it by another secret.
func notInstalled(err error) bool {
	var refusal smithy.APIError
	if !errors.As(err, &refusal) {
		return false
	}
	switch refusal.ErrorCode() {
	case "AccessDenied", "InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch":
		return true
	default:
		return false
	}
}

// tryParent makes a user that may do nothing, opens and ends a session of it, and
// removes it. What removes comes first: so whoever can't remove makes nothing.
func (m *minio) tryParent(ctx context.Context) error {
	probe := provider.Handle{handleParent: (parentPrefix + strings.ToLower(rand.Text()))[:parentNameLength]}
	parent := probe[handleParent]
	if err := m.Uninstall(ctx, probe); err != nil {
		return err
	}
	if err := m.client.revokeTokens(ctx, parent, verification); err != nil {
		return m.client.lacking(err)
	}
	work := func() error {
		if err := m.Install(ctx, probe, denyAll); err != nil {
			return err
		}
		if _, err := m.client.assumeRole(ctx, parent, denyAll, shortestSession, verification); err != nil {
			return err
		}
		return m.client.revokeTokens(ctx, parent, verification)
	}
	err := work()
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	if left := m.Uninstall(detached, probe); left != nil {
		return errors.Join(err, fmt.Errorf("minio: the user %s is left, for you to remove: %w", parent, left))
	}
	return err
}
