package kubernetes

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var servers *lab.Lab

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "kubectl" { // the test of the documentation has linked it so
		os.Exit(runStandIn(os.Args[1:]))
	}
	os.Exit(lab.Main(m, lab.Options{NoStore: true, Kubernetes: true}, &servers))
}
