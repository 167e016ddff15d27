package vault

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/docs"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The documentation's story, as it is printed.
func TestTheStoryOfTheDocumentation(t *testing.T) {
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(filepath.Join(root, "deploy", "vault", "engine-policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := servers.Vault.Client.Sys().UnmountWithContext(context.Background(), "precision"); err != nil {
			t.Error(err)
		}
	})
	docs.Play(t, "vault.md", docs.Stage{
		Environment: append(docs.Vault(servers.Vault), "PAYMENTS="+servers.Other.Address),
		People: map[string][]string{
			"":         {"VAULT_ADDR=" + servers.Vault.Address, "VAULT_TOKEN=" + servers.Vault.Root},
			"payments": {"VAULT_ADDR=" + servers.Other.Address, "VAULT_TOKEN=" + servers.Other.Root},
			"alice":    {"VAULT_ADDR=" + servers.Vault.Address},
		},
		Files: map[string]string{"engine-policy.hcl": string(policy)},
	})
}
