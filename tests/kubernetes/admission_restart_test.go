package kubernetes

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const restartedAt = "kubectl.kubernetes.io/restartedAt"

// inTemplate is a patch of a workload's pod template.
func inTemplate(change fields) fields { return fields{"spec": fields{"template": change}} }

// annotated is a patch of the annotations of a workload's pod template.
func annotated(annotations fields) fields {
	return inTemplate(fields{"metadata": fields{"annotations": annotations}})
}

// noRestarts are patches that a restart is not.
func noRestarts() map[string]fields {
	now := "2026-11-25T12:00:00Z"
	besides := func(change fields) fields { return with(annotated(fields{restartedAt: now}), change) }
	return map[string]fields{
		"another image":                         inTemplate(fields{"spec": fields{"containers": []any{fields{"name": "main", "image": "registry.test/other:1"}}}}),
		"a further container":                   inTemplate(fields{"spec": fields{"containers": []any{fields{"name": "more", "image": "registry.test/other:1"}}}}),
		"another account":                       inTemplate(fields{"spec": fields{"serviceAccountName": "default"}}),
		"a secret":                              inTemplate(fields{"spec": fields{"volumes": []any{fields{"name": "s", "secret": fields{"secretName": "s"}}}}}),
		"fewer volumes":                         inTemplate(fields{"spec": fields{"volumes": []any{fields{"$patch": "delete", "name": "a"}}}}),
		"another label of the pods":             inTemplate(fields{"metadata": fields{"labels": fields{"more": "1"}}}),
		"another annotation":                    annotated(fields{"vault.hashicorp.com/agent-inject": "true"}),
		"a changed annotation":                  annotated(fields{restartedAt: now, "kept": "changed"}),
		"an annotation taken out":               annotated(fields{restartedAt: now, "kept": nil}),
		"all annotations taken out":             annotated(nil),
		"no time":                               annotated(fields{restartedAt: "; rm -rf /"}),
		"an empty time":                         annotated(fields{restartedAt: ""}),
		"an annotation of the object":           besides(fields{"metadata": fields{"annotations": fields{"a": "1"}}}),
		"a changed annotation of the object":    besides(fields{"metadata": fields{"annotations": fields{"kept": "2"}}}),
		"an annotation of the object taken out": besides(fields{"metadata": fields{"annotations": fields{"kept": nil}}}),
		"a label of the object":                 besides(fields{"metadata": fields{"labels": fields{"a": "1"}}}),
		"a label taken out":                     besides(fields{"metadata": fields{"labels": fields{"kept": nil}}}),
		"all labels taken out":                  besides(fields{"metadata": fields{"labels": nil}}),
		"a finalizer":                           besides(fields{"metadata": fields{"finalizers": []any{"test/a"}}}),
		"nobody's fields":                       besides(fields{"metadata": fields{"managedFields": []any{fields{}}}}),
		"another's fields":                      besides(fields{"metadata": fields{"managedFields": []any{fields{"manager": "forged", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields{"f:spec": fields{"f:replicas": fields{}}}}}}}),
		"an owner":                              besides(fields{"metadata": fields{"ownerReferences": []any{fields{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}}}}),
		"another limit of revisions":            {"spec": fields{"revisionHistoryLimit": 1, "template": fields{"metadata": fields{"annotations": fields{restartedAt: now}}}}},
		"a limit taken out":                     {"spec": fields{"minReadySeconds": nil, "template": fields{"metadata": fields{"annotations": fields{restartedAt: now}}}}},
	}
}

// restartable is a workload that has all that noRestarts change. It is not as the policy
// for workloads wants it: somebody else has made it so.
func restartable(t *testing.T, kind workload, name string) *unstructured.Unstructured {
	t.Helper()
	object := kind.object(name, with(tiedPod(), fields{"serviceAccountName": "own"}))
	object.SetLabels(map[string]string{"kept": "1"})
	object.SetAnnotations(map[string]string{"kept": "1"})
	if err := unstructured.SetNestedField(object.Object, int64(5), "spec", "minReadySeconds"); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(object.Object, "1", "spec", "template", "metadata", "annotations", "kept"); err != nil {
		t.Fatal(err)
	}
	return object
}

// An account of a restart changes the time of the last restart, although RBAC would
// let it do all.
func TestRestartIsARestart(t *testing.T) {
	const namespace, name = "guarded-restart", "precision-restart-tried"
	ctx := t.Context()
	_, own := guarded(t, namespace)
	makeAccount(t, lab.AccountsNamespace, name)
	bind(t, namespace, "ClusterRole", "cluster-admin", account(lab.AccountsNamespace, name))
	secret := token(t, lab.AccountsNamespace, name)
	restart := dynamicAs(t, secret)
	dry := meta.PatchOptions{DryRun: []string{meta.DryRunAll}}
	restarted, denied := 0, 0
	for _, kind := range workloads() {
		if kind.Group != "apps" || kind.kind == "ReplicaSet" {
			continue
		}
		if _, err := own.Resource(kind.GroupVersionResource).Namespace(namespace).Create(ctx, restartable(t, kind, "there"), meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		there := restart.Resource(kind.GroupVersionResource).Namespace(namespace)
		for _, change := range slices.Sorted(maps.Keys(noRestarts())) {
			text, err := json.Marshal(noRestarts()[change])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := own.Resource(kind.GroupVersionResource).Namespace(namespace).Patch(ctx, "there", types.StrategicMergePatchType, text, dry); err != nil {
				t.Errorf("%s with %s is refused to others too, and so proves nothing: %v", kind.kind, change, err)
			}
			if _, err := there.Patch(ctx, "there", types.StrategicMergePatchType, text, dry); !deniedBy(err, "precision-restart") {
				t.Errorf("%s with %s: %v", kind.kind, change, err)
			} else {
				denied++
			}
		}
		if kind.kind != "DaemonSet" { // whose server counts in it
			counted := with(annotated(fields{restartedAt: "2026-11-25T12:00:00Z"}), fields{"metadata": fields{"annotations": fields{"deprecated.daemonset.template.generation": strings.Repeat("1", 180_000)}}})
			text, err := json.Marshal(counted)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := there.Patch(ctx, "there", types.MergePatchType, text, dry); !deniedBy(err, "precision-restart") {
				t.Errorf("%s with 180 kB in an annotation: %v", kind.kind, err)
			} else {
				denied++
			}
		}
		for _, now := range []string{"2026-11-25T12:00:00Z", "2026-11-25T13:00:00+01:00"} { // the first, and a further one
			text, err := json.Marshal(annotated(fields{restartedAt: now}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := there.Patch(ctx, "there", types.StrategicMergePatchType, text, meta.PatchOptions{}); err != nil {
				t.Errorf("%s is not restarted: %v", kind.kind, err)
			} else {
				restarted++
			}
		}
		if err := there.Delete(ctx, "there", meta.DeleteOptions{DryRun: []string{meta.DryRunAll}}); !deniedBy(err, "precision-restart") {
			t.Errorf("deleting a %s: %v", kind.kind, err)
		} else {
			denied++
		}
	}
	denied += refusedBesides(t, namespace, secret)
	figures.Log(t, "%d restarts, and %d other writes of the account refused", restarted, denied)
}

// refusedBesides tries what has nothing to do with a restart.
func refusedBesides(t *testing.T, namespace, secret string) (denied int) {
	t.Helper()
	ctx := t.Context()
	if _, err := dynamicAs(t, token(t, namespace, "own")).Resource(workloads()[0].GroupVersionResource).Namespace(namespace).Create(ctx, workloads()[0].object("there", tiedPod()), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(servers.Kubernetes.As(secret))
	if err != nil {
		t.Fatal(err)
	}
	core, apps := client.CoreV1().RESTClient(), client.AppsV1().RESTClient()
	patch := []byte(`{"metadata":{"annotations":{"` + restartedAt + `":"2026-11-25T12:00:00Z"}}}`)
	for what, err := range map[string]error{
		"a shell":            core.Post().Namespace(namespace).Resource("pods").Name("there").SubResource("exec").Param("command", "sh").Do(ctx).Error(),
		"a token":            core.Post().Namespace(namespace).Resource("serviceaccounts").Name("own").SubResource("token").Body([]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"}`)).Do(ctx).Error(),
		"an eviction":        core.Post().Namespace(namespace).Resource("pods").Name("there").SubResource("eviction").Body([]byte(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"there"}}`)).Do(ctx).Error(),
		"a pod's change":     core.Patch(types.MergePatchType).Namespace(namespace).Resource("pods").Name("there").Body(patch).Do(ctx).Error(),
		"a pod's deletion":   core.Delete().Namespace(namespace).Resource("pods").Name("there").Do(ctx).Error(),
		"a config map":       core.Post().Namespace(namespace).Resource("configmaps").Body([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`)).Do(ctx).Error(),
		"a scale":            apps.Patch(types.MergePatchType).Namespace(namespace).Resource("deployments").Name("there").SubResource("scale").Body([]byte(`{"spec":{"replicas":0}}`)).Do(ctx).Error(),
		"a status":           apps.Patch(types.MergePatchType).Namespace(namespace).Resource("deployments").Name("there").SubResource("status").Body(patch).Do(ctx).Error(),
		"another Deployment": apps.Post().Namespace(namespace).Resource("deployments").Body(deployment(t, "more", tiedPod())).Do(ctx).Error(),
		"all Deployments":    apps.Delete().Namespace(namespace).Resource("deployments").Do(ctx).Error(),
	} {
		if !deniedBy(err, "precision-restart") {
			t.Errorf("%s: %v", what, err)
		} else {
			denied++
		}
	}
	return denied
}

func deployment(t *testing.T, name string, pod fields) []byte {
	t.Helper()
	text, err := json.Marshal(workloads()[4].object(name, pod))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is no workload has ways of its own to take from its neighbours.
func TestAdmissionPolicyHoldsOtherObjects(t *testing.T) {
	const namespace = "guarded-objects"
	ctx := t.Context()
	minted, own := guarded(t, namespace)
	object := func(version, kind, name string, spec fields) *unstructured.Unstructured {
		return plain(&unstructured.Unstructured{Object: with(spec, fields{"apiVersion": version, "kind": kind, "metadata": with(fields{"name": name}, annotations(spec))})})
	}
	services := schema.GroupVersionResource{Version: "v1", Resource: "services"}
	claims := schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}
	ingresses := schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}
	revisions := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "controllerrevisions"}
	ports := fields{"ports": []any{fields{"port": 80}}}
	claim := fields{"accessModes": []any{"ReadWriteOnce"}, "resources": fields{"requests": fields{"storage": "1Gi"}}}
	ingress := fields{"defaultBackend": fields{"service": fields{"name": "a", "port": fields{"number": 80}}}}
	tried := []struct {
		what     string
		resource schema.GroupVersionResource
		object   *unstructured.Unstructured
		denied   bool
	}{
		{"a config map", configMaps, object("v1", "ConfigMap", "a", fields{"data": fields{"a": "1"}}), false},
		{"the cluster's authority", configMaps, object("v1", "ConfigMap", "kube-root-ca.crt", fields{"data": fields{"ca.crt": "1"}}), true},
		{"a Service", services, object("v1", "Service", "a", fields{"spec": ports}), false},
		{"a Service with another's address", services, object("v1", "Service", "a", fields{"spec": with(ports, fields{"externalIPs": []any{"192.0.2.1"}})}), true},
		{"a Service by another's name", services, object("v1", "Service", "a", fields{"spec": fields{"type": "ExternalName", "externalName": "other.test"}}), true},
		{"a claim", claims, object("v1", "PersistentVolumeClaim", "a", fields{"spec": claim}), false},
		{"a claim of one volume", claims, object("v1", "PersistentVolumeClaim", "a", fields{"spec": with(claim, fields{"volumeName": "v"})}), true},
		{"a claim of a volume by its labels", claims, object("v1", "PersistentVolumeClaim", "a", fields{
			"spec": with(claim, fields{"selector": fields{"matchLabels": fields{"of": "neighbours"}}})}), true},
		{"a copy of a claim", claims, object("v1", "PersistentVolumeClaim", "a", fields{"spec": with(claim, fields{"dataSource": fields{"kind": "PersistentVolumeClaim", "name": "b"}})}), true},
		{"a copy of a claim, new name", claims, object("v1", "PersistentVolumeClaim", "a", fields{"spec": with(claim, fields{"dataSourceRef": fields{"kind": "PersistentVolumeClaim", "name": "b"}})}), true},
		{"an Ingress", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": ingress}), false},
		{"an Ingress with a snippet", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": ingress, "annotations": fields{"nginx.ingress.kubernetes.io/configuration-snippet": "x"}}), true},
		{"an Ingress with a secret", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": with(ingress, fields{"tls": []any{fields{"hosts": []any{"a.test"}, "secretName": "neighbours"}}})}), true},
		{"an Ingress without a secret", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": with(ingress, fields{"tls": []any{fields{"hosts": []any{"a.test"}}}})}), false},
		{"an Ingress that asks elsewhere", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": ingress, "annotations": fields{"nginx.ingress.kubernetes.io/auth-url": "https://other.test"}}), true},
		{"an Ingress with a secret of another namespace", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": ingress, "annotations": fields{"nginx.ingress.kubernetes.io/auth-tls-secret": "other/neighbours"}}), true},
		{"an Ingress with a secret for what is behind it", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": ingress, "annotations": fields{"nginx.ingress.kubernetes.io/proxy-ssl-secret": "neighbours"}}), true},
		{"an Ingress that sends a copy elsewhere", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{
			"spec": ingress, "annotations": fields{"nginx.ingress.kubernetes.io/mirror-target": "https://other.test"}}), true},
		{"an Ingress with configuration", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{
			"spec": ingress, "annotations": fields{"haproxy-ingress.github.io/config-backend": "x"}}), true},
		{"a revision", revisions, object("apps/v1", "ControllerRevision", "a", fields{
			"revision": 1, "data": fields{"spec": fields{}}}), true},
		{"an Ingress with a stream's snippet", ingresses, object("networking.k8s.io/v1", "Ingress", "a", fields{"spec": ingress, "annotations": fields{"nginx.org/server-snippets": "x"}}), true},
	}
	denied := 0
	for _, one := range tried {
		dry := meta.CreateOptions{DryRun: []string{meta.DryRunAll}}
		if _, err := own.Resource(one.resource).Namespace(namespace).Create(ctx, one.object, dry); err != nil {
			t.Errorf("%s is refused to others too, and so proves nothing: %v", one.what, err)
		}
		_, err := minted.Resource(one.resource).Namespace(namespace).Create(ctx, one.object, dry)
		switch {
		case one.denied && !deniedBy(err, "precision-objects"):
			t.Errorf("%s: %v", one.what, err)
		case !one.denied && err != nil:
			t.Errorf("%s is refused: %v", one.what, err)
		case one.denied:
			denied++
		}
	}
	// An Ingress that somebody else has given secrets keeps them, and gets no other.
	there := object("networking.k8s.io/v1", "Ingress", "there", fields{"spec": with(ingress, fields{"tls": []any{fields{"secretName": "its-own"}}}),
		"annotations": fields{"nginx.ingress.kubernetes.io/auth-secret": "its-own"}})
	if _, err := own.Resource(ingresses).Namespace(namespace).Create(ctx, there, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for patch, refused := range map[string]bool{
		`{"metadata":{"labels":{"a":"1"}}}`:                                                          false,
		`{"spec":{"tls":[{"secretName":"its-own","hosts":["a.test"]}]}}`:                             false,
		`{"spec":{"tls":[{"secretName":"its-own"},{"secretName":"neighbours"}]}}`:                    true,
		`{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/auth-secret":"neighbours"}}}`:      true,
		`{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/auth-signin":"https://a.test/"}}}`: true,
	} {
		_, err := minted.Resource(ingresses).Namespace(namespace).Patch(ctx, "there", types.MergePatchType, []byte(patch), meta.PatchOptions{DryRun: []string{meta.DryRunAll}})
		if refused != deniedBy(err, "precision-objects") || !refused && err != nil {
			t.Errorf("an Ingress with secrets, changed by %s: %v", patch, err)
		}
	}
	if err := minted.Resource(configMaps).Namespace(namespace).Delete(ctx, "kube-root-ca.crt", meta.DeleteOptions{}); !deniedBy(err, "precision-objects") && !apierrors.IsNotFound(err) {
		t.Errorf("deleting the cluster's authority: %v", err)
	}
	authority := object("v1", "ConfigMap", "kube-root-ca.crt", fields{})
	if _, err := own.Resource(configMaps).Namespace(namespace).Create(ctx, authority, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	every := minted.Resource(configMaps).Namespace(namespace)
	if err := every.DeleteCollection(ctx, meta.DeleteOptions{}, meta.ListOptions{}); !deniedBy(err, "precision-objects") {
		t.Errorf("deleting all config maps, the cluster's authority too: %v", err)
	}
	figures.Log(t, "%d objects that take from their neighbours refused, %d others allowed", denied, len(tried)-denied)
}

// annotations moves annotations to where they belong.
func annotations(spec fields) fields {
	values, ok := spec["annotations"]
	delete(spec, "annotations")
	if !ok {
		return nil
	}
	return fields{"annotations": values}
}
