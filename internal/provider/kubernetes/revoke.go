package kubernetes

import (
	"context"
	"errors"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Revoke implements provider.Provider in two calls, side by side. Without its binding
// an account may do nothing at once; a token of an account that is gone would still be
// taken for some seconds.
func (c *cluster) Revoke(ctx context.Context, handle provider.Handle) error {
	name, accounts, namespace := handle[handleName], handle[handleAccounts], handle[handleNamespace]
	if name == "" || accounts == "" || namespace == "" {
		return errors.New("kubernetes: deleting the role binding: the handle names none")
	}
	return sideBySide(
		func() error {
			return c.client.deleteObject(ctx, "role binding", rbacPath(namespace, "rolebindings")+"/"+name)
		},
		func() error {
			return c.client.deleteObject(ctx, "service account", accountsPath(accounts)+"/"+name)
		},
	)
}
