package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// plugin is the binary, with the race detector in it, that all labs run.
var plugin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "precision-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	plugin = filepath.Join(folder, lab.PluginName)
	if err := lab.BuildPlugin(context.Background(), plugin, "v0.1.0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
