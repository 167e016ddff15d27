// Package tests holds the acceptance tests: the plugin's binary in a real
// Vault, against real targets.
package tests

import (
	"os"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// servers are shared by all tests; each test has a mount of its own.
var servers *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, lab.Options{Moto: true}, &servers))
}
