package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// handlePolicy is the key of an installation's handle: the policy's name.
const handlePolicy = "policy"

// Plan implements provider.Installer: a policy for each path and capability. Tokens
// with other bounds, and with other ends, share it.
func (v *vault) Plan(policy provider.Policy, mount, ledger string) provider.Handle {
	written, err := read(policy)
	if err != nil {
		return nil // Compile wrote it
	}
	rules, err := written.rules()
	if err != nil {
		return nil
	}
	return provider.Handle{handlePolicy: policyName(mount, ledger, rules)}
}

// changed refuses a policy of the engine's that is not what it has written. Nothing is
// put right: tokens may hang on what somebody else wants them to do.
func changed(name string) error {
	return invalid.Field("resource", name, "somebody has changed the policy of that name at the target", "end the grants that hang on it and delete it, then it is written anew")
}

// Install implements provider.Installer. A policy is never changed: its name says
// what is in it.
func (v *vault) Install(ctx context.Context, handle provider.Handle, policy provider.Policy) error {
	name := handle[handlePolicy]
	if name == "" {
		return errors.New("vault: the handle names no policy")
	}
	written, err := read(policy)
	if err != nil {
		return err
	}
	rules, err := written.rules()
	if err != nil {
		return err
	}
	switch there, err := v.policy(ctx, name); {
	case err != nil:
		return err
	case there == rules:
		return nil
	case there != "":
		return changed(name)
	}
	return v.call(ctx, http.MethodPut, policyPath(name), map[string]string{"policy": rules}, nil)
}

// Uninstall implements provider.Installer.
func (v *vault) Uninstall(ctx context.Context, handle provider.Handle) error {
	name := handle[handlePolicy]
	if name == "" {
		return errors.New("vault: the handle names no policy")
	}
	return v.call(ctx, http.MethodDelete, policyPath(name), nil, nil)
}

func policyPath(name string) string { return "sys/policies/acl/" + name }

// policy is what a policy of the target's says; empty where there is none.
func (v *vault) policy(ctx context.Context, name string) (string, error) {
	var answer struct{ Data struct{ Policy string } }
	err := v.call(ctx, http.MethodGet, policyPath(name), nil, &answer)
	if statusOf(err) == http.StatusNotFound {
		return "", nil
	}
	return answer.Data.Policy, err
}

// installed says whether the policy is there, as it should be. Vault would mint
// without one, and with another.
func (v *vault) installed(ctx context.Context, name, rules string) error {
	switch there, err := v.policy(ctx, name); {
	case err != nil:
		return &provider.NotMade{Reason: err}
	case there == rules:
		return nil
	case there == "":
		return &provider.NotMade{Reason: fmt.Errorf("vault: policy %s: %w", name, provider.ErrNotInstalled)}
	default:
		return &provider.NotMade{Reason: changed(name)}
	}
}
