// Package vault holds the proofs of target type vault: the plugin's binary in a real
// Vault, and a second real Vault as its target.
package vault

import (
	"os"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// servers are shared by all tests; each test has a mount of its own.
var servers *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, lab.Options{NoStore: true, OtherVault: true}, &servers))
}
