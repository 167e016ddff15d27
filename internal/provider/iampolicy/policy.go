package iampolicy

import "github.com/precision-access/vault-plugin-secrets-precision/internal/provider"

// Policy is Write for a provider.
func Policy(statements ...Statement) (provider.Policy, error) {
	text, err := Write(statements...)
	return provider.Policy(text), err
}
