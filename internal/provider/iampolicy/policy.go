package iampolicy

import "github.com/precision-access/vault-plugin-secrets-precision/internal/provider"

// Policy is Write for a provider.
func Policy(statements ...Statement) (provider.Policy, error) {
	text, err := Write(statements...)
	return provider.Policy(text), err
}

// Verdict is the decision for a provider's Check.
func (d Decision) Verdict() provider.Verdict {
	return provider.Verdict{Allowed: d.Effect == Allowed, Effect: string(d.Effect), Reason: d.Reason, Clause: d.Statement, Of: string(d.Source)}
}
