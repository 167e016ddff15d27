package kubernetes

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// statefulSet is a StatefulSet as the policy wants it, with one claim that is changed.
func statefulSet(t *testing.T, name string, metadata, claim, set fields) *unstructured.Unstructured {
	t.Helper()
	made := workloads()[6].object(name, tiedPod())
	if made.GetKind() != "StatefulSet" {
		t.Fatalf("workloads()[6] is a %s", made.GetKind())
	}
	spec := made.Object["spec"].(fields)
	maps.Copy(spec, set)
	spec["volumeClaimTemplates"] = []any{fields{
		"metadata": with(fields{"name": "data"}, metadata),
		"spec":     with(fields{"accessModes": []any{"ReadWriteOnce"}, "resources": fields{"requests": fields{"storage": "1Gi"}}}, claim),
	}}
	return plain(made)
}

// hostileClaims are StatefulSets whose claims take from neighbours what the same claim,
// sent directly, is refused.
func hostileClaims(t *testing.T, prefix string) map[string]*unstructured.Unstructured {
	t.Helper()
	neighbour := fields{"kind": "PersistentVolumeClaim", "name": "neighbour"}
	made := map[string]*unstructured.Unstructured{
		"dataSource":    statefulSet(t, prefix+"-source", nil, fields{"dataSource": neighbour}, nil),
		"dataSourceRef": statefulSet(t, prefix+"-reference", nil, fields{"dataSourceRef": neighbour}, nil),
		"volumeName":    statefulSet(t, prefix+"-volume", nil, fields{"volumeName": "neighbours"}, nil),
		"selector": statefulSet(t, prefix+"-selector", nil,
			fields{"selector": fields{"matchLabels": fields{"of": "neighbours"}}}, nil),
		"a finalizer": statefulSet(t, prefix+"-finalizer", fields{"finalizers": []any{"example.com/hold"}}, nil, nil),
		"an owner": statefulSet(t, prefix+"-owner", fields{"ownerReferences": []any{fields{
			"apiVersion": "v1", "kind": "ConfigMap", "name": "absent", "uid": "00000000-1111-2222-3333-444444444444"}}}, nil, nil),
		"claims that go with it": statefulSet(t, prefix+"-gone", nil, nil, fields{"persistentVolumeClaimRetentionPolicy": fields{"whenDeleted": "Delete", "whenScaled": "Retain"}}),
		"claims that go with scale": statefulSet(t, prefix+"-scaled", nil, nil,
			fields{"persistentVolumeClaimRetentionPolicy": fields{"whenDeleted": "Retain", "whenScaled": "Delete"}}),
	}
	kept := statefulSet(t, prefix+"-pod", nil, nil, nil)
	if err := unstructured.SetNestedStringSlice(kept.Object, []string{"example.com/hold"}, "spec", "template", "metadata", "finalizers"); err != nil {
		t.Fatal(err)
	}
	made["pods with a finalizer"] = kept
	return made
}

// The cluster's own controller makes what a StatefulSet's templates say, with its own
// rights: the policy looks into them. The real controller runs.
func TestAdmissionPolicyHoldsClaimTemplates(t *testing.T) {
	const namespace = "guarded-claims"
	ctx := t.Context()
	minted, own := guarded(t, namespace)
	stop, err := servers.Kubernetes.StartControllers("statefulset-controller")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	sets := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}
	denied := 0
	for _, what := range slices.Sorted(maps.Keys(hostileClaims(t, "minted"))) {
		set := hostileClaims(t, "minted")[what]
		if _, err := minted.Resource(sets).Namespace(namespace).Create(ctx, set, meta.CreateOptions{}); !deniedBy(err, "precision-workloads") {
			t.Errorf("a StatefulSet with %s: %v", what, err)
		} else {
			denied++
		}
		others := hostileClaims(t, "own")[what]
		if _, err := own.Resource(sets).Namespace(namespace).Create(ctx, others, meta.CreateOptions{}); err != nil {
			t.Errorf("a StatefulSet with %s is refused to others too, and so proves nothing: %v", what, err)
		}
	}
	if _, err := minted.Resource(sets).Namespace(namespace).Create(ctx, statefulSet(t, "ordinary", nil, nil, nil), meta.CreateOptions{}); err != nil {
		t.Errorf("an ordinary StatefulSet: %v", err)
	}
	claims := func() map[string]core.PersistentVolumeClaim {
		found, err := servers.Kubernetes.CoreV1().PersistentVolumeClaims(namespace).List(context.Background(), meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]core.PersistentVolumeClaim{}
		for _, claim := range found.Items {
			byName[claim.Name] = claim
		}
		return byName
	}
	// The controller has made the claims of others' StatefulSets: it would have made these.
	eventually(t, "the controller has made the claims", time.Minute, func() bool {
		there := claims()
		return there["data-ordinary-0"].Name != "" && there["data-own-source-0"].Spec.DataSource != nil && there["data-own-volume-0"].Spec.VolumeName == "neighbours"
	})
	for name := range claims() {
		if strings.HasPrefix(name, "data-minted-") {
			t.Errorf("the controller has made the claim %s", name)
		}
	}
	figures.Log(t, "%d StatefulSets with hostile templates refused, an ordinary one's claim made by the controller", denied)
}
