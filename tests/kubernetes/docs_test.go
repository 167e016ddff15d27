package kubernetes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var (
	shell    = regexp.MustCompile("(?ms)^<!-- scene: (.*?) -->$|^```sh\n(.*?)^```$")
	expected = regexp.MustCompile(`^(.*\S)\s+# refused$`)
)

// scenes are the commands that make it another day: the page's window is moved, so that
// it is closed or open whatever day it is.
func scenes(now time.Time) map[string]string {
	return map[string]string{
		"it is Tuesday":      fmt.Sprintf("vault write precision/roles/release window='0 22 * * %d'", now.AddDate(0, 0, 3).Weekday()),
		"it is Friday night": fmt.Sprintf("vault write precision/roles/release window='%d %d * * *'", now.Minute(), now.Hour()),
	}
}

// script is the page's commands, one after the other. Those that are said to be refused
// have to be, by the API server or by the engine.
func script(page string, scenes map[string]string) (text string, commands, refusals int) {
	var lines []string
	document := "" // the end of a here-document, while in one
	for _, block := range shell.FindAllStringSubmatch(page, -1) {
		if block[1] != "" {
			lines = append(lines, scenes[block[1]])
			delete(scenes, block[1])
			continue
		}
		for line := range strings.Lines(block[2]) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case document != "":
				if line == document {
					document = ""
				}
			case strings.Contains(line, "<<'"):
				_, document, _ = strings.Cut(line, "<<'")
				document = strings.TrimSuffix(document, "'")
			case expected.MatchString(line):
				line = "refused " + expected.FindStringSubmatch(line)[1]
				refusals++
			case strings.Contains(line, "admission-policy.yaml"):
				line += "\ntries=20"
				commands++
			case !strings.HasPrefix(line, " "): // a further line of a command
				commands++
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n", commands, refusals
}

// An API server puts a policy into force a moment after it was made: what the page says
// is refused then may take another try.
const preamble = `set -euo pipefail
tries=1
refused() {
  for ((try = tries; ; try--)); do
    "$@" >refusal 2>&1 || break
    if ((try == 1)); then
      echo "was not refused: $*" >&2
      exit 1
    fi
    sleep 0.5
  done
  if ! grep -qiE 'forbidden|unauthorized|must be logged in|provide credentials|window is closed|not a task' refusal; then
    echo "failed for another reason: $*" >&2
    cat refusal >&2
    exit 1
  fi
}
set -x
`

// readPage reads the documentation of this target type.
func readPage(t *testing.T) string {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// The page's commands do what it says: in a shell, with Vault's own command and kubectl.
func TestDocumentedCommandsWork(t *testing.T) {
	page := readPage(t)
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	moved := scenes(time.Now().In(zone))
	text, commands, refusals := script(page, moved)
	if len(moved) > 0 {
		t.Errorf("the page has no scene of %v", moved)
	}
	if commands < 15 || refusals < 5 {
		t.Fatalf("%d commands and %d refusals were found on the page", commands, refusals)
	}
	runScript(t, preamble+text)
	figures.Log(t, "%d commands of the page, and %d that are refused", commands, refusals)
}

// runScript runs the page's commands as an administrator of both Vault and cluster.
func runScript(t *testing.T, text string) {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	t.Helper()
	ctx := t.Context()
	// The namespace of the page, with what it has in every cluster.
	if err := servers.Kubernetes.MakeNamespace(ctx, "prod"); err != nil {
		t.Fatal(err)
	}
	// What an earlier run has left, and the page makes.
	for _, err := range []error{
		servers.Kubernetes.CoreV1().ServiceAccounts("prod").Delete(ctx, "precision-workload", meta.DeleteOptions{}),
		servers.Kubernetes.AppsV1().Deployments("prod").Delete(ctx, "app", meta.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	folder := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "deploy"), filepath.Join(folder, "deploy")); err != nil {
		t.Fatal(err)
	}
	programs := filepath.Join(folder, "bin")
	if err := os.Mkdir(programs, 0o700); err != nil {
		t.Fatal(err)
	}
	kubectl, err := servers.Kubernetes.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"kubectl": kubectl, "vault": servers.Vault.Binary} {
		if err := os.Symlink(program, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	admin := filepath.Join(folder, "admin.kubeconfig")
	for path, content := range map[string]string{
		admin: servers.Kubernetes.Kubeconfig(servers.Kubernetes.Admin.BearerToken, "default"), filepath.Join(folder, "ca.crt"): servers.Kubernetes.CA,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(limited, "bash", "-c", text)
	command.Dir = folder
	command.Env = append(os.Environ(), "PATH="+programs+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+folder, "KUBECONFIG="+admin,
		"HOST="+servers.Kubernetes.Host, "VAULT_ADDR="+servers.Vault.Address, "VAULT_TOKEN="+servers.Vault.Root, "VAULT_CLI_NO_COLOR=1")
	output, err := command.CombinedOutput()
	if err != nil {
		t.Errorf("the page's commands: %v\n%s", err, output)
	}
	if err := servers.Vault.Client.Sys().UnmountWithContext(ctx, "precision"); err != nil {
		t.Error(err)
	}
	removePolicies(t)
	time.Sleep(time.Second) // until the server has noticed
}
