package kubernetes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var servers *lab.Lab

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "kubectl" { // the test of the documentation has linked it so
		os.Exit(runStandIn(os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	servers, err = lab.Start(context.Background(), lab.Options{NoStore: true, Kubernetes: true})
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
