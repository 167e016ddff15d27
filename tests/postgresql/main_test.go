// Package postgresql holds the proof of the target of that name: the plugin's
// binary in a real Vault, against a real PostgreSQL server.
package postgresql

import (
	"os"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// servers are shared by all tests; each has a mount and databases of its own.
var servers *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, lab.Options{NoStore: true, PostgreSQL: true}, &servers))
}
