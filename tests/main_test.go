// Package tests holds the acceptance tests: the plugin's binary in a real
// Vault, against real targets.
package tests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// servers are shared by all tests; each test has a mount of its own.
var servers *lab.Lab

// plugin is the binary that servers run.
var plugin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "precision-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	plugin = filepath.Join(folder, lab.PluginName)
	if err := lab.BuildPlugin(ctx, plugin, "v0.1.0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	servers, err = lab.Start(ctx, lab.Options{Plugin: plugin, Moto: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer servers.Stop()
	code := m.Run()

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
