package kubernetes

import (
	"os"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var servers *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, lab.Options{NoStore: true, Kubernetes: true}, &servers))
}
