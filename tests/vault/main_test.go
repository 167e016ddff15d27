// Package vault holds the proofs of target type vault: the plugin's binary in a real
// Vault, and a second real Vault as its target.
package vault

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// servers are shared by all tests; each test has a mount of its own.
var servers *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	servers, err = lab.Start(context.Background(), lab.Options{NoStore: true, OtherVault: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer servers.Close()
	code := m.Run()

	servers.Stop() // the plugin's last words are in the log then
	log, err := os.ReadFile(servers.Vault.Log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if at := strings.Index(string(log), "DATA RACE"); at >= 0 {
		fmt.Fprintf(os.Stderr, "the race detector found this in the plugin:\n%s\n", log[at:min(len(log), at+8000)])
		return 1
	}
	return code
}
