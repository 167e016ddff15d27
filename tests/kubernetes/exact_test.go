package kubernetes

import (
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

var serializer = scheme.Codecs.WithoutConversion()

// What <namespace>/* is documented to have.
var (
	writable = []string{
		"configmaps", "persistentvolumeclaims", "pods", "podtemplates", "replicationcontrollers", "services",
		"daemonsets.apps", "deployments.apps", "replicasets.apps", "statefulsets.apps", "horizontalpodautoscalers.autoscaling",
		"cronjobs.batch", "jobs.batch", "ingresses.networking.k8s.io", "poddisruptionbudgets.policy",
	}
	readable = append(slices.Clone(writable),
		"events", "limitranges", "resourcequotas", "serviceaccounts", "controllerrevisions.apps", "leases.coordination.k8s.io",
		"endpointslices.discovery.k8s.io", "events.events.k8s.io", "networkpolicies.networking.k8s.io",
		"resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io",
		"replicationcontrollers/scale", "deployments.apps/scale", "replicasets.apps/scale", "statefulsets.apps/scale",
	)
)

// all grants verbs on kinds in a namespace, on all names.
func all(namespace string, kinds []string, verbs ...string) expectation {
	return func(r right) bool {
		return r.namespace == namespace && slices.Contains(kinds, r.resource) && slices.Contains(verbs, r.verb) &&
			!(strings.Contains(r.resource, "/") && r.verb != "get" && slices.Contains(verbs, "list")) // a subresource has no list
	}
}

// one grants verbs on one object.
func one(namespace, kind, name string, verbs ...string) expectation {
	return func(r right) bool {
		return r.namespace == namespace && r.resource == kind && r.name == name && slices.Contains(verbs, r.verb)
	}
}

// What a credential may do is what was granted and the floor: over all that the
// server has, every verb, in the granted namespace, in others, and outside.
func TestCredentialsAreExact(t *testing.T) {
	const granted, beside = "exact", "exact-beside"
	m := newMount(t, granted, beside)
	existing(t, granted)
	existing(t, beside)
	resources := discover(t)
	asked, allowed, sent, passed := 0, 0, 0, 0
	for _, test := range []struct {
		action, resource string
		names            []string
		granted          expectation
	}{
		{"apply", granted + "/*", []string{"", "named"}, all(granted, writable, "get", "create", "patch")},
		{"write", granted + "/*", []string{"named"}, all(granted, writable, "get", "create", "update", "patch", "delete")},
		{"read", granted + "/*", []string{"", "named"}, all(granted, readable, "get", "list")},
		{"apply", granted + "/deployments.apps/named", []string{"", "named", "other"}, one(granted, "deployments.apps", "named", "get", "create", "patch")},
	} {
		m.role("role", test.action, test.resource)
		minted := m.mint("role/exact")
		more, yes := judge(t, minted.account, resources, []string{granted, beside, "precision", ""}, test.names, test.granted)
		asked, allowed = asked+more, allowed+yes
		more, yes = try(t, minted.token, resources, []string{granted, beside, "precision"}, []string{"named"}, test.granted)
		sent, passed = sent+more, passed+yes
		m.revoke(minted)
		if t.Failed() {
			t.Fatalf("so %s on %s is not exact", test.action, test.resource)
		}
	}
	figures.Log(t, "%d verdicts of the authorizer over %d resources (%d yes), %d real requests (%d let through), 0 wrong", asked, len(resources), allowed, sent, passed)
}

// existing makes what a request could find.
func existing(t *testing.T, namespace string) {
	t.Helper()
	ctx, cluster := t.Context(), servers.Kubernetes
	for _, err := range []error{
		second(cluster.CoreV1().Secrets(namespace).Create(ctx, &core.Secret{ObjectMeta: meta.ObjectMeta{Name: "named"}, StringData: map[string]string{"password": "hunter2"}}, meta.CreateOptions{})),
		second(cluster.CoreV1().ConfigMaps(namespace).Create(ctx, &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: "named"}}, meta.CreateOptions{})),
		second(cluster.CoreV1().ServiceAccounts(namespace).Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "named"}}, meta.CreateOptions{})),
		second(cluster.CoreV1().Pods(namespace).Create(ctx, &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "named"}, Spec: core.PodSpec{Containers: []core.Container{{Name: "main", Image: "registry.test/app:1"}}}}, meta.CreateOptions{})),
	} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
