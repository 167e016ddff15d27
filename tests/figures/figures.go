// Package figures collects what proofs have counted, so that "make test" can show
// it: a runner shows the log of a test only where it fails.
package figures

import (
	"fmt"
	"os"
	"testing"
)

// File is the environment variable that names the file to write to. Without it
// the figures are in the tests' logs only.
const File = "PRECISION_FIGURES"

// Log is t.Logf, and a line of the figures.
func Log(t testing.TB, format string, values ...any) {
	t.Helper()
	line := fmt.Sprintf(format, values...)
	t.Log(line)
	path := os.Getenv(File)
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := fmt.Fprintf(file, "%s: %s\n", t.Name(), line); err != nil {
		t.Fatal(err)
	}
}
