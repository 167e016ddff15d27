package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// toolRow is a row of the documentation's table of tools: a command, and whether it works
// with each of the table's actions.
var toolRow = regexp.MustCompile("(?m)^\\| `((?:kubectl|helm) [^`]+)` \\| (yes|no) \\| (yes|no) \\| (yes|no) \\| (yes|no) \\|")

// reportsError finds what kubectl and Helm log of a request that was refused, where they
// end with status 0 in spite of it.
var reportsError = regexp.MustCompile("(?m)^level=ERROR|err=\".* is forbidden: ")

// toolActions are the table's columns.
var toolActions = []struct {
	action string
	more   fields
}{{"apply", nil}, {"write", nil}, {"deploy", nil}, {"deploy", fields{"allow_watch": true}}}

// The page's table of commands says what the real kubectl and the real Helm can do with
// each action. The deployment controller runs, and no node: nothing has replicas.
func TestToolsWorkAsDocumented(t *testing.T) {
	page := readPage(t)
	rows := toolRow.FindAllStringSubmatch(page, -1)
	if len(rows) < 20 {
		t.Fatalf("the page's table has %d commands", len(rows))
	}
	stop, err := servers.Kubernetes.StartControllers("deployment-controller", "replicaset-controller")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	namespace := func(column int) string { return fmt.Sprintf("tools-%d", column) }
	m := newMount(t, namespace(0), namespace(1), namespace(2), namespace(3))
	var columns sync.WaitGroup
	for column, of := range toolActions {
		role := fmt.Sprintf("role-%d", column)
		m.role(role, of.action, namespace(column)+"/*", of.more)
		bench := newToolBench(t, m.mint(role+"/TOOLS"), namespace(column))
		columns.Go(func() {
			for _, row := range rows {
				if err := bench.reset(t.Context()); err != nil {
					t.Errorf("%s: %v", row[1], err)
					return
				}
				output, err := bench.run(t.Context(), row[1])
				if works := err == nil && !reportsError.MatchString(output); works != (row[2+column] == "yes") {
					t.Errorf("%s with %s %v: the page says %s, and it ends so: %v\n%s", row[1], of.action, of.more, row[2+column], err, output)
				}
			}
		})
	}
	columns.Wait()
	figures.Log(t, "%d commands of kubectl and Helm x %d actions: as the page says", len(rows), len(toolActions))
}

// toolBench is a folder with a credential's kubeconfig and what commands name.
type toolBench struct{ folder, namespace, kubectl, helm string }

const manifestOfApp = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  labels: {app: app}
spec:
  replicas: 0
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      containers:
      - name: app
        image: registry.example.com/app:%[2]d
`

func newToolBench(t *testing.T, minted credential, namespace string) toolBench {
	t.Helper()
	bench := toolBench{folder: t.TempDir(), namespace: namespace}
	var err error
	if bench.kubectl, err = servers.Kubernetes.Kubectl(); err != nil {
		t.Fatal(err)
	}
	if bench.helm, err = servers.Kubernetes.Helm(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"kubeconfig": minted.text("kubeconfig"),
		"app.yaml":   fmt.Sprintf(manifestOfApp, "app", 2), "new.yaml": fmt.Sprintf(manifestOfApp, "new", 1),
		"chart/Chart.yaml":         "apiVersion: v2\nname: chart\nversion: 1.0.0\n",
		"chart/values.yaml":        "tag: 1\n",
		"chart/templates/app.yaml": strings.ReplaceAll(fmt.Sprintf(manifestOfApp, "released", 0), "app:0", "app:{{ .Values.tag }}"),
	} {
		path := filepath.Join(bench.folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for image := 1; image <= 2; image++ { // a revision to go back to
		if err := bench.reset(t.Context(), image); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the controller has seen the Deployment", time.Minute, func() bool {
			found, err := servers.Kubernetes.AppsV1().Deployments(namespace).Get(t.Context(), "app", meta.GetOptions{})
			return err == nil && found.Status.ObservedGeneration == found.Generation && found.Annotations["deployment.kubernetes.io/revision"] == fmt.Sprint(image)
		})
	}
	return bench
}

// reset makes the Deployment "app" as the manifest has it, and removes the one that is
// "new".
func (b toolBench) reset(ctx context.Context, image ...int) error {
	deployments := servers.Kubernetes.AppsV1().Deployments(b.namespace)
	if err := deployments.Delete(ctx, "new", meta.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	at := 2
	if len(image) > 0 {
		at = image[0]
	}
	manifest := apps.Deployment{}
	decoded, err := yaml.ToJSON([]byte(fmt.Sprintf(manifestOfApp, "app", at)))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(decoded, &manifest); err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": string(decoded)}
	for { // the controller changes it, too
		there, err := deployments.Get(ctx, "app", meta.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = deployments.Create(ctx, &manifest, meta.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		if there.Annotations == nil { // a command has made it again
			there.Annotations = map[string]string{}
		}
		maps.Copy(there.Annotations, manifest.Annotations)
		there.Spec = manifest.Spec
		if _, err := deployments.Update(ctx, there, meta.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// run runs a command with nothing but the credential.
func (b toolBench) run(ctx context.Context, command string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	name, rest, _ := strings.Cut(command, " ")
	program := b.kubectl
	if name == "helm" {
		program = b.helm
	}
	made := exec.CommandContext(limited, "sh", "-c", "exec "+program+" "+rest)
	made.Dir = b.folder
	made.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.folder, "KUBECONFIG=" + filepath.Join(b.folder, "kubeconfig"), "HELM_DRIVER=configmap"}
	output, err := made.CombinedOutput()
	return string(output), err
}
