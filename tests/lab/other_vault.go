package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/vault/api"
)

// OtherVault is a second real Vault, which the first one's engine has as a target. It
// has KV version 2 at secret and deep/er, version 1 at kv1, and an AppRole for the engine.
type OtherVault struct {
	*Vault
	RoleID, SecretID string // the engine's
}

// engineVaultPolicy is the name of the engine's own policy at the other Vault. Its text is
// the documented one.
const engineVaultPolicy = "engine"

func (l *Lab) startOtherVault(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	vault, err := l.newVault("other-vault", ports, fmt.Sprintf(fileStorage, filepath.Join(l.Folder, "other-vault")))
	if err != nil {
		return err
	}
	vault.Audit = filepath.Join(l.Folder, "other-audit.log")
	if err := vault.up(ctx); err != nil {
		return err
	}
	if err := vault.initialise(ctx); err != nil {
		return err
	}
	l.Other = &OtherVault{Vault: vault}
	return l.Other.prepare(ctx)
}

func (o *OtherVault) prepare(ctx context.Context) error {
	for path, version := range map[string]string{"secret": "2", "deep/er": "2", "kv1": "1"} {
		if err := o.Client.Sys().MountWithContext(ctx, path, &api.MountInput{Type: "kv", Options: map[string]string{"version": version}}); err != nil {
			return fmt.Errorf("mounting %s: %w", path, err)
		}
	}
	if err := AdmitEngine(ctx, o.Client); err != nil {
		return err
	}
	if err := o.Client.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
		return fmt.Errorf("enabling AppRole: %w", err)
	}
	if _, err := o.Client.Logical().WriteWithContext(ctx, "auth/approle/role/engine", map[string]any{"token_policies": engineVaultPolicy, "token_ttl": "1h", "token_max_ttl": "4h"}); err != nil {
		return fmt.Errorf("making the engine's AppRole: %w", err)
	}
	role, err := o.Client.Logical().ReadWithContext(ctx, "auth/approle/role/engine/role-id")
	if err != nil {
		return err
	}
	secret, err := o.Client.Logical().WriteWithContext(ctx, "auth/approle/role/engine/secret-id", nil)
	if err != nil {
		return err
	}
	o.RoleID, o.SecretID = role.Data["role_id"].(string), secret.Data["secret_id"].(string)
	return nil
}

// AdmitEngine writes the documented policy for the engine into a Vault.
func AdmitEngine(ctx context.Context, vault *api.Client) error {
	root, err := Repository()
	if err != nil {
		return err
	}
	policy, err := os.ReadFile(filepath.Join(root, "deploy", "vault", "engine-policy.hcl"))
	if err != nil {
		return err
	}
	return vault.Sys().PutPolicyWithContext(ctx, engineVaultPolicy, string(policy))
}

// EngineToken makes a token for the engine, with the documented policy and nothing
// else, that has to be renewed within each period.
func EngineToken(ctx context.Context, vault *api.Client, period string) (string, error) {
	made, err := vault.Auth().Token().CreateOrphanWithContext(ctx, &api.TokenCreateRequest{
		Policies: []string{engineVaultPolicy}, NoDefaultPolicy: true, Period: period, DisplayName: "engine",
	})
	if err != nil {
		return "", fmt.Errorf("making the engine's token: %w", err)
	}
	return made.Auth.ClientToken, nil
}
