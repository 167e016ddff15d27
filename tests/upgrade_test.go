package tests

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/docs"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The procedure for an upgrade and for the way back works as the page says, and leases go on through both.
func TestUpgradingAndDowngrading(t *testing.T) {
	ctx, vault := t.Context(), servers.Vault
	const before, after = "v0.1.0", "v0.2.0"
	command := lab.PluginName + after
	newer := filepath.Join(vault.Plugins, command)
	if err := lab.BuildPlugin(ctx, newer, after); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(newer)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(binary)
	if err := vault.RegisterPlugin(ctx, servers.Plugin, before); err != nil {
		t.Fatal(err)
	}
	m := &mount{t: t, path: "precision", Client: vault.Client, grants: map[string]bool{}}
	m.enable(&api.MountInput{Type: lab.PluginName, Config: api.MountConfigInput{PluginVersion: before}})
	m.configure()
	session := m.mint(onStore + "/JIRA-1")
	docs.Play(t, "operations.md#Upgrading and downgrading", docs.Stage{
		Environment: append(docs.Vault(vault), "NEW_SHA256="+hex.EncodeToString(sum[:]), "NEW_COMMAND="+command, "NEW_VERSION="+after, "OLD_VERSION="+before),
		People:      map[string][]string{"": {"VAULT_TOKEN=" + vault.Root}},
	})
	allowed(t, "a session from before the upgrade", session.inStore(ctx))
	if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(session.LeaseID)); err != nil {
		t.Fatal(err)
	}
	denied(t, "a session from before the upgrade, revoked after the way back", session.inStore(ctx))
}
