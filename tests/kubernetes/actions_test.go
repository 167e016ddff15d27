package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	admission "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// newEscalatingMount mounts the engine with rights to grant in the namespaces what it
// does not hold.
func newEscalatingMount(t *testing.T, namespaces ...string) *mount {
	t.Helper()
	jwt, err := servers.Kubernetes.EngineRights(t.Context(), lab.EscalateRights, namespaces...)
	if err != nil {
		t.Fatal(err)
	}
	return newMountWith(t, jwt)
}

// makeCustomKind makes a kind that Kubernetes does not have itself.
func makeCustomKind(t *testing.T, plural, group string) schema.GroupVersionResource {
	t.Helper()
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	client, err := dynamic.NewForConfig(servers.Kubernetes.Admin)
	if err != nil {
		t.Fatal(err)
	}
	definition := plain(&unstructured.Unstructured{Object: fields{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": fields{"name": plural + "." + group},
		"spec": fields{
			"group": group, "scope": "Namespaced", "names": fields{"plural": plural, "singular": "x" + plural, "kind": "X" + plural},
			"versions": []any{fields{"name": "v1", "served": true, "storage": true, "schema": fields{"openAPIV3Schema": fields{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}, "subresources": fields{"status": fields{}}}},
		},
	}})
	if _, err := client.Resource(definitions).Create(t.Context(), definition, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Resource(definitions).Delete(context.Background(), definition.GetName(), meta.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	kind := schema.GroupVersionResource{Group: group, Version: "v1", Resource: plural}
	eventually(t, "the server has the new kind", 20*time.Second, func() bool {
		_, err := client.Resource(kind).Namespace("default").List(t.Context(), meta.ListOptions{})
		lists, missing := servers.Kubernetes.Discovery().ServerResourcesForGroupVersion(group + "/v1")
		return err == nil && missing == nil && len(lists.APIResources) > 0
	})
	return kind
}

// Every action, on whole kinds and on single objects, lets through what it stands for.
func TestEveryActionIsExact(t *testing.T) {
	const namespace, group = "actions", "example.test"
	m := newEscalatingMount(t, namespace)
	existing(t, namespace)
	guarded(t, "actions-guarded") // the policy for restarts is in force
	makeCustomKind(t, "widgets", group)
	makeCustomKind(t, "gadgets", "other.test")
	resources := discover(t)
	watched := fields{"allow_watch": true}
	power := fields{"allow_escalation": true}
	asked, roles := 0, 0
	for _, test := range []struct {
		action, resource string
		more             fields
		granted          expectation
	}{
		{"apply", "/services", nil, all(namespace, []string{"services"}, "get", "create", "patch")},
		{"apply", "/configmaps/named", nil, one(namespace, "configmaps", "named", "get", "create", "patch")},
		{"apply", "/widgets." + group, nil, all(namespace, []string{"widgets." + group}, "get", "create", "patch")},
		{"write", "/configmaps", nil, all(namespace, []string{"configmaps"}, "get", "create", "update", "patch", "delete")},
		{"write", "/statefulsets.apps", nil, all(namespace, []string{"statefulsets.apps"}, "get", "create", "update", "patch", "delete")},
		{"deploy", "/*", nil, all(namespace, writable, "get", "list", "create", "update", "patch", "delete")},
		{"deploy", "/*", watched, all(namespace, writable, "get", "list", "watch", "create", "update", "patch", "delete")},
		{"read", "/pods/named", nil, one(namespace, "pods", "named", "get", "list")},
		{"read", "/events", nil, all(namespace, []string{"events"}, "get", "list")},
		{"read", "/*", watched, all(namespace, readable, "get", "list", "watch")},
		{"read", "/*", with(power, fields{"include_secrets": true}), all(namespace, append(slices.Clone(readable), "secrets"), "get", "list")},
		{"apply", "/*", with(power, fields{"include_groups": group}), all(namespace, append(slices.Clone(writable), "widgets."+group), "get", "create", "patch")},
		{"scale", "/deployments.apps", nil, all(namespace, []string{"deployments.apps/scale"}, "get", "update", "patch")},
		{"scale", "/statefulsets.apps/named", nil, one(namespace, "statefulsets.apps/scale", "named", "get", "update", "patch")},
		{"logs", "/pods", watched, all(namespace, []string{"pods/log"}, "get")},
		{"logs", "/pods/named", watched, one(namespace, "pods/log", "named", "get")},
		{"restart", "/deployments.apps/named", nil, one(namespace, "deployments.apps", "named", "get", "patch")},
		{"restart", "/daemonsets.apps", nil, all(namespace, []string{"daemonsets.apps"}, "get", "patch")},
		{"get", "/leases.coordination.k8s.io", nil, all(namespace, []string{"leases.coordination.k8s.io"}, "get")},
		{"get", "/secrets/named", power, one(namespace, "secrets", "named", "get")},
		{"list", "/configmaps", nil, all(namespace, []string{"configmaps"}, "list")},
		{"watch", "/pods", watched, all(namespace, []string{"pods"}, "watch")},
		{"create", "/jobs.batch", nil, all(namespace, []string{"jobs.batch"}, "create")},
		{"deletecollection", "/jobs.batch", nil, all(namespace, []string{"jobs.batch"}, "deletecollection")},
		{"update", "/services/named", nil, one(namespace, "services", "named", "update")},
		{"delete", "/pods/named", nil, one(namespace, "pods", "named", "delete")},
	} {
		role := fmt.Sprintf("role-%d", roles) // a further write of the same one would keep what it leaves out
		m.role(role, test.action, namespace+test.resource, test.more)
		minted := m.mint(role + "/actions")
		names := []string{"named"}
		if strings.HasSuffix(test.resource, "/named") {
			names = []string{"", "named"}
		}
		more, yes := judge(t, minted.account, resources, []string{namespace}, names, test.granted)
		if yes == 0 {
			t.Errorf("nothing is allowed")
		}
		asked += more
		roles++
		m.revoke(minted)
		if t.Failed() {
			t.Fatalf("so %s on %s is not exact", test.action, test.resource)
		}
	}
	figures.Log(t, "%d roles, %d verdicts of the authorizer, 0 wrong", roles, asked)
}

// A role to restart restarts, and changes nothing else; without the admission policy it
// is neither written nor minted.
func TestRestartNeedsItsPolicy(t *testing.T) {
	const namespace = "restarts"
	ctx := t.Context()
	m := newMount(t, namespace)
	policies, bindings := servers.Kubernetes.AdmissionregistrationV1().ValidatingAdmissionPolicies(), servers.Kubernetes.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	role := fields{"target": target, "action": "restart", "resource": namespace + "/deployments.apps/app", "ttl": "15m"}
	m.refuses("roles/restart", role, "restart", "precision-restart")
	_, own := guarded(t, namespace)
	m.write("roles/restart", role)
	if _, err := own.Resource(workloads()[4].GroupVersionResource).Namespace(namespace).Create(ctx, restartable(t, workloads()[4], "app"), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	minted := m.mint("restart/INC-1")
	patch := func(change fields) error {
		text, err := json.Marshal(change)
		if err != nil {
			t.Fatal(err)
		}
		_, err = minted.client(t).AppsV1().Deployments(namespace).Patch(ctx, "app", types.StrategicMergePatchType, text, meta.PatchOptions{})
		return err
	}
	if err := patch(annotated(fields{restartedAt: "2026-11-25T12:00:00Z"})); err != nil {
		t.Errorf("it does not restart: %v", err)
	}
	denied := 0
	for what, change := range noRestarts() {
		if err := patch(change); err == nil {
			t.Errorf("%s is let through", what)
		} else {
			denied++
		}
	}
	m.revoke(minted)

	tampered := 0
	for what, change := range map[string]func(){
		"a condition that is false": func() {
			changePolicy(t, func(spec *admission.ValidatingAdmissionPolicySpec) { spec.MatchConditions[0].Expression = "false" })
		},
		"expressions that are true": func() {
			changePolicy(t, func(spec *admission.ValidatingAdmissionPolicySpec) {
				for i := range spec.Validations {
					spec.Validations[i].Expression = "true"
				}
			})
		},
		"constraints that leave it out": func() {
			changePolicy(t, func(spec *admission.ValidatingAdmissionPolicySpec) {
				spec.MatchConstraints.ResourceRules[0].APIGroups = []string{"batch"}
			})
		},
		"a selector of other namespaces": func() {
			changePolicy(t, func(spec *admission.ValidatingAdmissionPolicySpec) {
				spec.MatchConstraints.NamespaceSelector = &meta.LabelSelector{MatchLabels: map[string]string{"guarded": "yes"}}
			})
		},
		"a binding of other namespaces": func() {
			binding, err := bindings.Get(ctx, "precision-restart", meta.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			binding.Spec.MatchResources = &admission.MatchResources{NamespaceSelector: &meta.LabelSelector{MatchLabels: map[string]string{"guarded": "yes"}}}
			if _, err := bindings.Update(ctx, binding, meta.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"no binding": func() {
			if err := bindings.Delete(ctx, "precision-restart", meta.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"no policy": func() {
			if err := policies.Delete(ctx, "precision-restart", meta.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		change()
		minted, err := m.tryMint("restart/INC-2")
		m.wasRefused("a mint with "+what, err, "precision-restart")
		if err == nil {
			m.revoke(minted)
		}
		m.refuses("roles/restart", role, "restart", "precision-restart")
		restorePolicy(t)
		tampered++
	}
	figures.Log(t, "1 restart, %d other changes refused; refused at role write and at mint with a policy changed in %d ways", denied, tampered)
}

// changePolicy changes the policy for restarts.
func changePolicy(t *testing.T, change func(*admission.ValidatingAdmissionPolicySpec)) {
	t.Helper()
	policies := servers.Kubernetes.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	policy, err := policies.Get(t.Context(), "precision-restart", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	change(&policy.Spec)
	if _, err := policies.Update(t.Context(), policy, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// restorePolicy makes the policy for restarts, and its binding, as they are documented.
func restorePolicy(t *testing.T) {
	t.Helper()
	ctx, api := t.Context(), servers.Kubernetes.AdmissionregistrationV1()
	for _, err := range []error{
		api.ValidatingAdmissionPolicyBindings().Delete(ctx, "precision-restart", meta.DeleteOptions{}),
		api.ValidatingAdmissionPolicies().Delete(ctx, "precision-restart", meta.DeleteOptions{}),
		servers.Kubernetes.Apply(ctx, "admission-policy.yaml", ""),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
}

// A policy that is as documented, and that the API server does not ask, grants no restart:
// the engine tries something else with the token before it hands it out.
func TestRestartIsTriedFirst(t *testing.T) {
	const namespace = "restarts-tried"
	ctx := t.Context()
	m := newMount(t, namespace)
	_, own := guarded(t, namespace)
	for _, name := range []string{"one", "every"} {
		resource := namespace + "/deployments.apps"
		if name == "one" {
			resource += "/app"
		}
		m.write("roles/"+name, fields{"target": target, "action": "restart", "resource": resource, "ttl": "15m"})
		minted := m.mint(name + "/NOTHING-THERE") // there is nothing to try it on
		if !warned(minted.Secret, "was not tried") {
			t.Errorf("a mint that tried nothing else does not say so: %q", minted.Warnings)
		}
		m.revoke(minted)
	}
	if _, err := own.Resource(workloads()[4].GroupVersionResource).Namespace(namespace).Create(ctx, restartable(t, workloads()[4], "app"), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "every"} {
		minted := m.mint(name + "/IN-FORCE")
		if warned(minted.Secret, "was not tried") {
			t.Errorf("a mint that tried something else says that it has not: %q", minted.Warnings)
		}
		m.revoke(minted)
	}
	if err := servers.Kubernetes.Restart(ctx, "--disable-admission-plugins=ValidatingAdmissionPolicy"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := servers.Kubernetes.Restart(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"one", "every"} {
		minted, err := m.tryMint(name + "/OFF")
		m.wasRefused("a mint of "+name+" where the API server asks no policies", err, "precision-restart")
		if err == nil {
			m.revoke(minted)
		}
		m.nothingMinted(namespace)
	}
	figures.Log(t, "2 roles to restart minted where the policy refuses, and refused where the API server does not ask it")
}

// nothingMinted checks that a namespace has no binding of a grant.
func (m *mount) nothingMinted(namespace string) {
	m.t.Helper()
	found, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).List(m.t.Context(), meta.ListOptions{LabelSelector: "precision/grant"})
	if err != nil || len(found.Items) > 0 {
		m.t.Errorf("%d bindings of grants are there: %v", len(found.Items), err)
	}
}

// A token is for the audiences that the role names.
func TestTokenIsForItsAudiences(t *testing.T) {
	const namespace, issuer = "audiences", "https://kubernetes.default.svc.cluster.local"
	m := newMount(t, namespace)
	m.role("read", "read", namespace+"/configmaps", fields{"audiences": []string{issuer, "release-service"}})
	minted := m.mint("read/CHG-1")
	if _, err := minted.client(t).CoreV1().ConfigMaps(namespace).List(t.Context(), meta.ListOptions{}); err != nil {
		t.Error(err)
	}
	reviewed := tokenReview(t, minted.token, "release-service")
	if !reviewed {
		t.Error("the token is not for release-service")
	}
	if tokenReview(t, minted.token, "another-service") {
		t.Error("the token is for another-service, too")
	}
	m.role("unwaited", "read", namespace+"/configmaps", fields{"audiences": []string{"release-service"}, "wait_ready": false})
	m.mint("unwaited/CHG-2") // for a service that asks the server, and for nothing at the server itself
	m.refuses("roles/unusable", fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "audiences": []string{"release-service"}}, "audiences")
}

// The engine can grant what it holds, or what its rights to escalate say, and do
// nothing with it elsewhere.
func TestHeldRightsBoundTheEngine(t *testing.T) {
	const namespace, escalating, untouched = "held", "escalating", "untouched"
	ctx := t.Context()
	if err := servers.Kubernetes.MakeNamespace(ctx, untouched); err != nil {
		t.Fatal(err)
	}
	m := newMount(t, namespace)
	existing(t, namespace)
	existing(t, untouched)
	secret := fields{"target": target, "action": "get", "resource": namespace + "/secrets/named", "ttl": "15m", "allow_escalation": true}
	m.refuses("roles/secret", secret, "target", namespace)
	m.refuses("roles/elsewhere", fields{"target": target, "action": "read", "resource": untouched + "/configmaps", "ttl": "15m"}, "target", untouched)
	m.refuses("roles/nowhere", fields{"target": target, "action": "read", "resource": "nowhere/configmaps", "ttl": "15m"}, "nowhere")

	e := newSecondMount(t, m, escalating)
	existing(t, escalating)
	e.write("roles/secret", with(secret, fields{"resource": escalating + "/secrets/named"}))
	minted := e.mint("secret/CHG-1")
	if found, err := minted.client(t).CoreV1().Secrets(escalating).Get(ctx, "named", meta.GetOptions{}); err != nil || string(found.Data["password"]) != "hunter2" {
		t.Errorf("the secret: %v", err)
	}
	e.refuses("roles/elsewhere", fields{"target": target, "action": "read", "resource": untouched + "/configmaps", "ttl": "15m"}, "target", untouched)

	// The engine itself, with what it has in each way.
	jwt := token(t, lab.EngineNamespace, lab.EngineAccount)
	engine := credential{token: jwt, account: lab.EngineAccount}.client(t)
	admin := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"%s","metadata":{"name":"mine"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"ServiceAccount","name":"precision-engine","namespace":"vault"}]}`
	everything := []byte(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"mine"},"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`)
	const rbac = "/apis/rbac.authorization.k8s.io/v1"
	post := func(path string, body []byte) error {
		return engine.RESTClient().Post().AbsPath(rbac+path).Param("dryRun", "All").Body(body).Do(ctx).Error()
	}
	_, read := engine.CoreV1().Secrets(namespace).Get(ctx, "named", meta.GetOptions{})
	_, readElsewhere := engine.CoreV1().ConfigMaps(untouched).List(ctx, meta.ListOptions{})
	_, accounts := engine.CoreV1().ServiceAccounts(namespace).Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "mine"}}, meta.CreateOptions{})
	_, token := engine.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "named", nil, meta.CreateOptions{})
	_, own := engine.CoreV1().ServiceAccounts(lab.EngineNamespace).CreateToken(ctx, lab.EngineAccount, nil, meta.CreateOptions{})
	allowed, denied := judgeOutcomes(t, []outcome{
		{"bind itself to cluster-admin in the cluster", false, post("/clusterrolebindings", fmt.Appendf(nil, admin, "ClusterRoleBinding"))},
		{"bind itself to cluster-admin in a namespace, held", false, post("/namespaces/"+namespace+"/rolebindings", fmt.Appendf(nil, admin, "RoleBinding"))},
		{"bind itself to cluster-admin in a namespace, escalating", false, post("/namespaces/"+escalating+"/rolebindings", fmt.Appendf(nil, admin, "RoleBinding"))},
		{"make a Role of everything, held", false, post("/namespaces/"+namespace+"/roles", everything)},
		{"make a Role of everything elsewhere", false, post("/namespaces/"+untouched+"/roles", everything)},
		{"read a secret", false, read},
		{"read elsewhere", false, readElsewhere},
		{"make an account in a granted namespace", false, accounts},
		{"a token of an account of a granted namespace", false, token},
		{"a token of its own account", false, own},
		// What the documentation says of this way.
		{"make a Role of everything, escalating", true, post("/namespaces/"+escalating+"/roles", everything)},
	})
	figures.Log(t, "the engine's own account: %d requests beyond its grants refused, %d let through that the documentation names", denied, allowed)
}

// newSecondMount mounts the engine again, with rights to escalate in a namespace.
func newSecondMount(t *testing.T, first *mount, namespace string) *mount {
	t.Helper()
	jwt, err := servers.Kubernetes.EngineRights(t.Context(), lab.EscalateRights, namespace)
	if err != nil {
		t.Fatal(err)
	}
	second := *first
	second.path += "-2"
	second.mount()
	second.write("config/"+target, config(jwt))
	return &second
}
