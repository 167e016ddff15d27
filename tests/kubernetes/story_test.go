package kubernetes

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// outcome is a request and whether it is to be let through.
type outcome struct {
	what    string
	allowed bool
	err     error
}

func judgeOutcomes(t *testing.T, outcomes []outcome) (allowed, denied int) {
	t.Helper()
	for _, one := range outcomes {
		switch {
		case one.allowed && one.err != nil:
			t.Errorf("%s: %v", one.what, one.err)
		case !one.allowed && !apierrors.IsForbidden(one.err):
			t.Errorf("%s: %v, want it forbidden", one.what, one.err)
		case one.allowed:
			allowed++
		default:
			denied++
		}
	}
	return allowed, denied
}

// serverSide is a server-side apply of an object.
func serverSide(ctx context.Context, client *kubernetes.Clientset, path string, object fields) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return client.RESTClient().Patch(types.ApplyPatchType).AbsPath(path).Param("fieldManager", "release").Body(text).Do(ctx).Error()
}

func release(t *testing.T, name string) fields {
	t.Helper()
	var object fields
	if err := json.Unmarshal(deployment(t, name, fields{"containers": []any{fields{"name": "main", "image": "registry.test/app:1"}}}), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// A role for a whole namespace deploys a release into it, and nothing more.
func TestNamespaceReleaseDeploysAndNoMore(t *testing.T) {
	const namespace, beside = "story", "story-beside"
	ctx := t.Context()
	m := newMount(t, namespace, beside)
	existing(t, namespace)
	existing(t, beside)
	answer := m.role("release", "apply", namespace+"/*")
	if !warned(answer, "workload") && !warned(answer, "service account") {
		t.Errorf("nobody is warned of workloads: %v", answer)
	}
	minted := m.mint("release/CHG-1")
	if !warned(minted.Secret, "workload") && !warned(minted.Secret, "service account") {
		t.Errorf("nobody is warned of workloads at mint: %v", minted.Warnings)
	}
	client := minted.client(t)
	core, apps := "/api/v1/namespaces/"+namespace, "/apis/apps/v1/namespaces/"+namespace
	configMap := fields{"apiVersion": "v1", "kind": "ConfigMap", "metadata": fields{"name": "settings"}, "data": fields{"a": "1"}}
	service := fields{"apiVersion": "v1", "kind": "Service", "metadata": fields{"name": "app"}, "spec": fields{"ports": []any{fields{"port": 80}}, "selector": fields{"app": "tried"}}}
	secret := fields{"apiVersion": "v1", "kind": "Secret", "metadata": fields{"name": "new"}, "type": "kubernetes.io/service-account-token"}
	rest := client.CoreV1().RESTClient()
	do := func(verb, path string, body string, parameters ...string) error {
		request := client.RESTClient().Verb(verb).AbsPath(path)
		if body != "" {
			request = request.SetHeader("Content-Type", "application/json").Body([]byte(body))
		}
		if verb == "PATCH" {
			request = request.SetHeader("Content-Type", "application/merge-patch+json")
		}
		for _, parameter := range parameters {
			name, value, _ := strings.Cut(parameter, "=")
			request = request.Param(name, value)
		}
		return request.Do(ctx).Error()
	}
	binding := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"me"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"},"subjects":[{"kind":"ServiceAccount","name":"` + minted.account + `","namespace":"precision"}]}`
	allowed, denied := judgeOutcomes(t, []outcome{
		{"apply a Deployment", true, serverSide(ctx, client, apps+"/deployments/app", release(t, "app"))},
		{"apply it again", true, serverSide(ctx, client, apps+"/deployments/app", release(t, "app"))},
		{"apply a Service", true, serverSide(ctx, client, core+"/services/app", service)},
		{"apply a ConfigMap", true, serverSide(ctx, client, core+"/configmaps/settings", configMap)},
		{"read what was applied", true, do("GET", apps+"/deployments/app", "")},

		{"read a secret", false, do("GET", core+"/secrets/named", "")},
		{"list secrets", false, do("GET", core+"/secrets", "")},
		{"watch secrets", false, do("GET", core+"/secrets", "", "watch=true", "timeoutSeconds=1")},
		{"read a secret by a patch that is none", false, do("PATCH", core+"/secrets/named", "{}", "dryRun=All")},
		{"read a secret by deleting it dry", false, do("DELETE", core+"/secrets/named", "", "dryRun=All")},
		{"read all secrets by deleting them dry", false, do("DELETE", core+"/secrets", "", "dryRun=All")},
		{"apply a secret that yields a token", false, serverSide(ctx, client, core+"/secrets/new", secret)},
		{"mint a token", false, do("POST", core+"/serviceaccounts/named/token", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"}`)},
		{"mint a token for itself", false, do("POST", "/api/v1/namespaces/precision/serviceaccounts/"+minted.account+"/token", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"}`)},
		{"make an account", false, do("POST", core+"/serviceaccounts", `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"mine"}}`)},
		{"open a shell", false, do("POST", core+"/pods/named/exec", "", "command=sh", "stdout=true")},
		{"open a shell with a GET", false, do("GET", core+"/pods/named/exec", "", "command=sh", "stdout=true")},
		{"attach", false, do("POST", core+"/pods/named/attach", "")},
		{"forward a port", false, do("GET", core+"/pods/named/portforward", "", "ports=80")},
		{"go through a pod's proxy", false, do("GET", core+"/pods/named/proxy/", "")},
		{"go through a service's proxy", false, do("GET", core+"/services/app/proxy/", "")},
		{"read logs", false, do("GET", core+"/pods/named/log", "")},
		{"add an ephemeral container", false, do("PATCH", core+"/pods/named/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"d","image":"i"}]}}`)},
		{"evict", false, do("POST", core+"/pods/named/eviction", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"named"}}`)},
		{"place a pod", false, do("POST", core+"/pods/named/binding", `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"named"},"target":{"kind":"Node","name":"n"}}`)},
		{"write a status", false, do("PATCH", core+"/services/app/status", "{}")},
		{"bind itself to more", false, do("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/"+namespace+"/rolebindings", binding)},
		{"delete", false, do("DELETE", apps+"/deployments/app", "")},
		{"list", false, do("GET", core+"/configmaps", "")},
		{"change the namespace", false, do("PATCH", "/api/v1/namespaces/"+namespace, `{"metadata":{"labels":{"a":"1"}}}`)},
		{"ask what others may do", false, do("POST", "/apis/authorization.k8s.io/v1/namespaces/"+namespace+"/localsubjectaccessreviews", `{"apiVersion":"authorization.k8s.io/v1","kind":"LocalSubjectAccessReview","metadata":{"namespace":"`+namespace+`"},"spec":{"user":"a"}}`)},

		{"apply in another namespace", false, serverSide(ctx, client, "/apis/apps/v1/namespaces/"+beside+"/deployments/app", release(t, "app"))},
		{"read in another namespace", false, do("GET", "/api/v1/namespaces/"+beside+"/configmaps/named", "")},
		{"read in all namespaces", false, rest.Get().Resource("configmaps").Do(ctx).Error()},
		{"make a namespace", false, do("POST", "/api/v1/namespaces", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"mine"}}`)},
		{"read nodes", false, do("GET", "/api/v1/nodes", "")},
		{"act as somebody else", false, client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("secrets").SetHeader("Impersonate-User", "administrator").SetHeader("Impersonate-Group", "system:masters").Do(ctx).Error()},
	})
	figures.Log(t, "a release of one namespace: %d requests let through, %d refused", allowed, denied)
}

// An apply of one object by its name makes that object and no other.
func TestNamedApplyCreatesOneObject(t *testing.T) {
	const namespace, beside = "named", "named-beside"
	ctx := t.Context()
	m := newMount(t, namespace, beside)
	m.role("web", "apply", namespace+"/deployments.apps/web")
	client := m.mint("web/CHG-1").client(t)
	path := func(namespace, resource, name string) string {
		return "/apis/apps/v1/namespaces/" + namespace + "/" + resource + "/" + name
	}
	daemons := with(release(t, "web"), fields{"kind": "DaemonSet"})
	delete(daemons["spec"].(fields), "replicas")
	post := func(namespace string, object fields) error {
		text, err := json.Marshal(object)
		if err != nil {
			return err
		}
		return client.RESTClient().Post().AbsPath("/apis/apps/v1/namespaces/" + namespace + "/deployments").Body(text).Do(ctx).Error()
	}
	allowed, denied := judgeOutcomes(t, []outcome{
		{"create it by apply", true, serverSide(ctx, client, path(namespace, "deployments", "web"), release(t, "web"))},
		{"change it by apply", true, serverSide(ctx, client, path(namespace, "deployments", "web"), with(release(t, "web"), fields{"spec": with(release(t, "web")["spec"].(fields), fields{"replicas": 3})}))},
		{"another name", false, serverSide(ctx, client, path(namespace, "deployments", "other"), release(t, "other"))},
		{"a name that starts alike", false, serverSide(ctx, client, path(namespace, "deployments", "web-2"), release(t, "web-2"))},
		{"another kind of that name", false, serverSide(ctx, client, path(namespace, "daemonsets", "web"), daemons)},
		{"another namespace", false, serverSide(ctx, client, path(beside, "deployments", "web"), release(t, "web"))},
		{"a plain create of that name", false, post(namespace, release(t, "web"))},
		{"a plain create of another name", false, post(namespace, release(t, "other"))},
		{"its scale", false, client.RESTClient().Patch(types.MergePatchType).AbsPath(path(namespace, "deployments", "web") + "/scale").Body([]byte(`{"spec":{"replicas":9}}`)).Do(ctx).Error()},
		{"its deletion", false, client.RESTClient().Delete().AbsPath(path(namespace, "deployments", "web")).Do(ctx).Error()},
	})
	// A name in the body that differs from the path's is refused before anybody is asked.
	if err := serverSide(ctx, client, path(namespace, "deployments", "web"), release(t, "other")); err == nil {
		t.Error("the body named another object than the path")
	}
	found, err := servers.Kubernetes.AppsV1().Deployments(namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Items) != 1 || found.Items[0].Name != "web" || *found.Items[0].Spec.Replicas != 3 {
		t.Errorf("there are %d Deployments, want the one", len(found.Items))
	}
	figures.Log(t, "%d requests let through, %d refused, 1 object there", allowed, denied)
}

// The answer's kubeconfig works as it is, in the library that kubectl is made of and in
// kubectl itself.
func TestKubeconfigWorks(t *testing.T) {
	const namespace = "kubeconfig"
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("release", "apply", namespace+"/*")
	minted := m.mint("release/CHG-1")
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(minted.text("kubeconfig")))
	if err != nil {
		t.Fatal(err)
	}
	if config.TLSClientConfig.Insecure || config.Host != servers.Kubernetes.Host {
		t.Errorf("the kubeconfig is for %s, unchecked: %v", config.Host, config.TLSClientConfig.Insecure)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := serverSide(ctx, client, "/apis/apps/v1/namespaces/"+namespace+"/deployments/app", release(t, "app")); err != nil {
		t.Error(err)
	}
	parsed, err := clientcmd.Load([]byte(minted.text("kubeconfig")))
	if err != nil {
		t.Fatal(err)
	}
	if current := parsed.Contexts[parsed.CurrentContext]; current == nil || current.Namespace != namespace {
		t.Errorf("the kubeconfig's namespace is not %s: %+v", namespace, current)
	}
	kubectl, err := servers.Kubernetes.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	kubectls := tryKubectl(t, kubectl, minted, namespace)
	m.revoke(minted)
	if err := serverSide(ctx, client, "/apis/apps/v1/namespaces/"+namespace+"/deployments/app", release(t, "app")); err == nil {
		t.Error("the kubeconfig works after its lease has ended")
	}
	figures.Log(t, "the kubeconfig works in client-go, and in kubectl in %d commands", kubectls)
}

func tryKubectl(t *testing.T, kubectl string, minted credential, namespace string) (commands int) {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "config")
	if err := os.WriteFile(file, []byte(minted.text("kubeconfig")), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(folder, "app.json")
	if err := os.WriteFile(manifest, deployment(t, "by-kubectl", fields{"containers": []any{fields{"name": "main", "image": "registry.test/app:1"}}}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		arguments string
		says      string // empty: it succeeds
	}{
		{"apply --server-side --validate=false -f " + manifest, ""},
		{"apply -f " + manifest, ""},
		{"get deployment by-kubectl", ""},
		{"get secrets", "forbidden"},
		{"get deployment by-kubectl -n kube-system", "forbidden"},
		{"delete deployment by-kubectl", "forbidden"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		command := exec.CommandContext(ctx, kubectl, strings.Fields(test.arguments)...)
		command.Env = append(os.Environ(), "KUBECONFIG="+file, "HOME="+folder)
		output, err := command.CombinedOutput()
		cancel()
		if (test.says == "") != (err == nil) || !strings.Contains(strings.ToLower(string(output)), test.says) {
			t.Errorf("kubectl %s: %v\n%s", test.arguments, err, output)
		}
		commands++
	}
	return commands
}
