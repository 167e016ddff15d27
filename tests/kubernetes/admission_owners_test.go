package kubernetes

import (
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// Who may patch an object could have the cluster delete it, by an owner that is not
// there, or keep it from being deleted, by a finalizer: the policies let no account of the
// engine name one, and leave alone what has one.
func TestAdmissionPolicyHoldsOwners(t *testing.T) {
	const namespace = "guarded-owners"
	ctx := t.Context()
	minted, own := guarded(t, namespace)
	type owned struct {
		resource schema.GroupVersionResource
		made     func(name string) *unstructured.Unstructured
		policy   string
	}
	var all []owned
	for _, kind := range workloads() {
		all = append(all, owned{kind.GroupVersionResource, func(name string) *unstructured.Unstructured { return kind.object(name, tiedPod()) }, "precision-workloads"})
	}
	for _, kind := range []struct {
		resource      schema.GroupVersionResource
		version, kind string
		spec          fields
	}{
		{configMaps, "v1", "ConfigMap", nil},
		{schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, "v1", "Secret", nil},
		{schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, "v1", "ServiceAccount", nil},
		{schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
			"coordination.k8s.io/v1", "Lease", fields{}},
		{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
			"networking.k8s.io/v1", "NetworkPolicy", fields{"podSelector": fields{}}},
		{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "v1", "Service", fields{"ports": []any{fields{"port": 80}}}},
		{schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}, "v1", "PersistentVolumeClaim", fields{"accessModes": []any{"ReadWriteOnce"}, "resources": fields{"requests": fields{"storage": "1Gi"}}}},
		{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}, "networking.k8s.io/v1", "Ingress", fields{"defaultBackend": fields{"service": fields{"name": "a", "port": fields{"number": 80}}}}},
		{schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}, "autoscaling/v2", "HorizontalPodAutoscaler", fields{"maxReplicas": 2, "scaleTargetRef": fields{"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}},
		{schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, "policy/v1", "PodDisruptionBudget", fields{"minAvailable": 1, "selector": fields{"matchLabels": fields{"app": "tried"}}}},
	} {
		all = append(all, owned{kind.resource, func(name string) *unstructured.Unstructured {
			object := fields{"apiVersion": kind.version, "kind": kind.kind, "metadata": fields{"name": name}}
			if kind.spec != nil {
				object["spec"] = kind.spec
			}
			return plain(&unstructured.Unstructured{Object: object})
		}, "precision-objects"})
	}
	const absent = `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"absent","uid":"00000000-1111-2222-3333-444444444444"}]}}`
	denied := 0
	for _, kind := range all {
		as, asOwn := minted.Resource(kind.resource).Namespace(namespace), own.Resource(kind.resource).Namespace(namespace)
		what := kind.resource.Resource
		bearing := kind.made("bearing")
		bearing.SetOwnerReferences([]meta.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "00000000-1111-2222-3333-444444444444"}})
		if _, err := as.Create(ctx, bearing, meta.CreateOptions{}); !deniedBy(err, kind.policy) {
			t.Errorf("%s with an owner: %v", what, err)
		} else {
			denied++
		}
		if _, err := asOwn.Create(ctx, bearing, meta.CreateOptions{}); err != nil {
			t.Fatalf("%s with an owner is refused to others too, and so proves nothing: %v", what, err)
		}
		if _, err := as.Patch(ctx, "bearing", types.MergePatchType, []byte(`{"metadata":{"labels":{"changed":"yes"}}}`), meta.PatchOptions{}); err != nil {
			t.Errorf("%s that has an owner can't be changed: %v", what, err)
		}
		if _, err := as.Create(ctx, kind.made("plain"), meta.CreateOptions{}); err != nil {
			t.Fatalf("%s without an owner: %v", what, err)
		}
		kept := kind.made("kept")
		kept.SetFinalizers([]string{"example.com/hold"})
		if _, err := as.Create(ctx, kept, meta.CreateOptions{}); !deniedBy(err, kind.policy) {
			t.Errorf("%s with a finalizer: %v", what, err)
		} else {
			denied++
		}
		if _, err := asOwn.Create(ctx, kept, meta.CreateOptions{DryRun: []string{meta.DryRunAll}}); err != nil {
			t.Errorf("%s with a finalizer is refused to others too, and so proves nothing: %v", what, err)
		}
		for _, change := range []struct{ name, patch string }{
			{"plain", absent}, {"bearing", `{"metadata":{"ownerReferences":null}}`}, {"plain", `{"metadata":{"finalizers":["example.com/hold"]}}`},
		} {
			if _, err := as.Patch(ctx, change.name, types.MergePatchType, []byte(change.patch), meta.PatchOptions{}); !deniedBy(err, kind.policy) {
				t.Errorf("%s, %s, changed by %s: %v", what, change.name, change.patch, err)
			} else {
				denied++
			}
		}
	}
	figures.Log(t, "owners and finalizers of %d kinds: %d changes refused", len(all), denied)
}
