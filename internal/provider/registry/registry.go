// Package registry is the list of all provider types.
package registry

import (
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/kubernetes"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/minio"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/postgresql"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/vault"
)

// Types lists every kind of target that the engine knows.
func Types() []provider.Type {
	return []provider.Type{aws.Type(), kubernetes.Type(), minio.Type(), postgresql.Type(), vault.Type()}
}
