package kubernetes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// roleName names the Role that holds the rules. What a mint checks besides, such as
// the rights that are tolerated, is not in it.
func roleName(policy document, mount, ledger string) string {
	text, err := json.Marshal([]any{mount, ledger, policy.Namespace, policy.Rules})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	sum := sha256.Sum256(text)
	short := mount[:min(len(mount), 8)]
	return accountPrefix + short + "-" + hex.EncodeToString(sum[:10])
}

// Plan implements provider.Installer.
func (c *cluster) Plan(policy provider.Policy, mount, ledger string) provider.Handle {
	needed, err := parsePolicy(policy)
	if err != nil {
		return provider.Handle{} // Mint says so
	}
	handle := provider.Handle{handleName: roleName(needed, mount, ledger), handleNamespace: needed.Namespace, markMount: mount}
	if ledger != "" {
		handle[markLedger] = ledger
	}
	return handle
}

// installAttempts is how often a Role is read anew that somebody else has changed
// meanwhile.
const installAttempts = 3

// Install implements provider.Installer: it makes the Role, or puts its rules right. A
// Role of that name and with these rules that somebody else has made does as well.
func (c *cluster) Install(ctx context.Context, handle provider.Handle, policy provider.Policy) error {
	needed, err := parsePolicy(policy)
	if err != nil {
		return err
	}
	if handle[handleName] == "" || handle[handleNamespace] != needed.Namespace {
		return errors.New("kubernetes: the handle is of another policy")
	}
	for range installAttempts {
		if err = c.putRight(ctx, handle, needed); !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return err
}

func (c *cluster) putRight(ctx context.Context, handle provider.Handle, needed document) error {
	role, err := c.client.getRole(ctx, needed.Namespace, handle[handleName])
	switch {
	case apierrors.IsNotFound(err):
		role = rbac.Role{ObjectMeta: metaOf(handle, needed.Namespace)}
	case err != nil:
		return c.notInstalled(handle, needed, err)
	case sameRules(role.Rules, needed.Rules):
		return nil
	}
	role.Rules = needed.Rules
	return c.notInstalled(handle, needed, c.client.putRole(ctx, role))
}

func sameRules(a, b []rbac.PolicyRule) bool { return equality.Semantic.DeepEqual(a, b) }

// notInstalled turns what the role's author or the operator can mend into an
// *invalid.Error.
func (c *cluster) notInstalled(handle provider.Handle, needed document, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return invalid.Field("resource", needed.Namespace, "the cluster has no such namespace", "name one that it has")
	case forbidden(err):
		rules, _ := json.Marshal(needed.Rules) // as they were read
		return invalid.Hidden("target", fmt.Sprintf("the engine can't have the Role %s in the namespace %s: %s", handle[handleName], needed.Namespace, saysNo(err)),
			"let it make Roles there and hold what is granted, or make that Role yourself and let the engine read and bind it; its rules are "+string(rules))
	default:
		return err
	}
}

// Uninstall implements provider.Installer. A Role that the engine has not made stays.
func (c *cluster) Uninstall(ctx context.Context, handle provider.Handle) error {
	name, namespace := handle[handleName], handle[handleNamespace]
	if name == "" || namespace == "" {
		return errors.New("kubernetes: deleting the role: the handle names none")
	}
	role, err := c.client.getRole(ctx, namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case role.Labels[markMount] != handle[markMount]:
		return nil
	}
	return c.client.deleteObject(ctx, "role", rbacPath(namespace, "roles")+"/"+name)
}

// saysNo is what the API server says of why it refuses.
func saysNo(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return invalid.Clip(status.Status().Message)
	}
	return err.Error()
}
