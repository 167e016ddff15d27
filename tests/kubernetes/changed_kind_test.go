package kubernetes

import (
	"context"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// A kind that is made anew as something else after a role was written is not what the
// role grants: a grant of a namespace's objects is none of the cluster's.
func TestKindThatChanges(t *testing.T) {
	const namespace, group = "changing", "changing.test"
	ctx := t.Context()
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	admin, err := dynamic.NewForConfig(servers.Kubernetes.Admin)
	if err != nil {
		t.Fatal(err)
	}
	m := newEscalatingMount(t, namespace)
	kind := makeCustomKind(t, "gadgets", group)
	m.role("kind", "write", namespace+"/gadgets."+group)
	m.role("all", "write", namespace+"/*", fields{"include_groups": group})
	before := m.mint("kind/CHG-1")
	use := func(minted credential, where string) error {
		client := dynamicAs(t, minted.token).Resource(kind)
		object := &unstructured.Unstructured{Object: fields{"apiVersion": group + "/v1", "kind": "Xgadgets", "metadata": fields{"generateName": "any-"}}}
		dry := meta.CreateOptions{DryRun: []string{meta.DryRunAll}}
		if where == "" {
			_, err := client.Create(ctx, object, dry)
			return err
		}
		_, err := client.Namespace(where).Create(ctx, object, dry)
		return err
	}
	if err := use(before, namespace); err != nil {
		t.Fatal(err)
	}

	old, err := admin.Resource(definitions).Get(ctx, "gadgets."+group, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Resource(definitions).Delete(ctx, old.GetName(), meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the kind is gone", 20*time.Second, func() bool {
		_, err := admin.Resource(definitions).Get(ctx, old.GetName(), meta.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	changed := &unstructured.Unstructured{Object: fields{"apiVersion": old.GetAPIVersion(), "kind": old.GetKind(), "metadata": fields{"name": old.GetName()}, "spec": old.Object["spec"]}}
	if err := unstructured.SetNestedField(changed.Object, "Cluster", "spec", "scope"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Resource(definitions).Create(ctx, changed, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has the kind anew", 20*time.Second, func() bool {
		_, err := admin.Resource(kind).List(context.Background(), meta.ListOptions{})
		return err == nil
	})

	refusals := 0
	for what, minted := range map[string]credential{"minted before": before, "of the kind": m.mint("kind/CHG-2"), "of the namespace": m.mint("all/CHG-2")} {
		if err := use(minted, ""); !apierrors.IsForbidden(err) {
			t.Errorf("a credential %s on the cluster's objects: %v", what, err)
		} else {
			refusals++
		}
		m.revoke(minted)
	}
	// Written again, the role says what has become of the kind.
	m.refuses("roles/kind", fields{"target": target, "action": "write", "resource": namespace + "/gadgets." + group, "ttl": "15m"}, "not in a namespace")
	m.refuses("roles/all", fields{"target": target, "action": "write", "resource": namespace + "/*", "include_groups": group, "ttl": "15m"}, "include_groups")
	figures.Log(t, "1 kind that became the cluster's: %d credentials refused on it, 2 roles refused anew", refusals)
}
