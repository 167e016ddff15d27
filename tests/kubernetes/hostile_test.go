package kubernetes

import (
	"context"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What can't be granted exactly is refused when the role is written, with the field and
// what would be right, and leaves nothing in the cluster.
func TestHostileRolesAreRefused(t *testing.T) {
	const namespace = "hostile"
	ctx := t.Context()
	m := newEscalatingMount(t, namespace, "kube-system", lab.EngineNamespace) // whose account could make any Role
	t.Cleanup(func() {
		for _, reached := range []string{"kube-system", lab.EngineNamespace} {
			if err := servers.Kubernetes.RbacV1().RoleBindings(reached).DeleteCollection(context.Background(), meta.DeleteOptions{}, meta.ListOptions{FieldSelector: "metadata.name=precision-escalate"}); err != nil {
				t.Error(err)
			}
		}
	})
	existing(t, namespace)
	before, err := servers.Kubernetes.RbacV1().Roles(namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 254)
	refusals := 0
	for _, test := range []struct {
		action, resource string
		more             fields
		says             string
	}{
		{"*", "/configmaps", nil, "action"},
		{"", "/configmaps", nil, "action"},
		{"GET", "/configmaps", nil, "action"},
		{"get,list", "/configmaps", nil, "action"},
		{"get\nlist", "/configmaps", nil, "action"},
		{"bind", "/roles.rbac.authorization.k8s.io", nil, "action"},
		{"escalate", "/roles.rbac.authorization.k8s.io", nil, "action"},
		{"impersonate", "/serviceaccounts", nil, "action"},
		{"use", "/configmaps", nil, "action"},
		{"proxy", "/pods", nil, "action"},
		{"exec", "/pods", nil, "action"},
		{"admin", "/*", nil, "action"},
		{"get", "/*", nil, "action"},
		{"delete", "/*", nil, "action"},
		{"deletecollection", "/*", nil, "action"},
		{"scale", "/*", nil, "action"},
		{"restart", "/*", nil, "action"},
		{"logs", "/*", fields{"allow_watch": true}, "action"},
		{"create", "/configmaps/named", nil, "create"},
		{"deletecollection", "/configmaps/named", nil, "deletecollection"},
		{"watch", "/configmaps", nil, "allow_watch"},
		{"logs", "/pods", nil, "allow_watch"},
		{"logs", "/configmaps", fields{"allow_watch": true}, "pods"},
		{"scale", "/configmaps", nil, "scale"},
		{"restart", "/pods", nil, "restart"},
		{"restart", "/replicasets.apps", nil, "restart"},
		{"update", "/events.example.test", nil, "resource"},
		{"get", "/configmap", nil, namespace + "/configmaps"},
		{"get", "/deployments", nil, namespace + "/deployments.apps"},
		{"get", "/deploy", nil, namespace + "/deployments.apps"},
		{"get", "/ConfigMaps", nil, "resource"},
		{"get", "/nodes", nil, "namespace"},
		{"get", "/namespaces", nil, "namespace"},
		{"create", "/clusterrolebindings.rbac.authorization.k8s.io", nil, "namespace"},
		{"create", "/bindings/named", nil, "create"},
		{"list", "/bindings", nil, "list"},
		{"get", "/configmaps/*", nil, "resource"},
		{"get", "/configmaps/na*", nil, "resource"},
		{"get", "/configmaps/..", nil, "resource"},
		{"get", "/configmaps/a/b", nil, "resource"},
		{"get", "/configmaps/", nil, "resource"},
		{"get", "/configmaps/A", nil, "resource"},
		{"get", "/configmaps/a b", nil, "resource"},
		{"get", "/configmaps/a\n", nil, "resource"},
		{"get", "/configmaps/a%2fb", nil, "resource"},
		{"get", "/configmaps/a?watch=1", nil, "resource"},
		{"get", "/configmaps/" + long, nil, "resource"},
		{"get", "/configmaps.", nil, "resource"},
		{"get", "/.apps", nil, "resource"},
		{"get", "/*.apps", nil, "resource"},
		{"get", "/*/named", nil, "resource"},
		{"get", "/pods/named/exec", nil, "resource"},
		{"create", "/pods/exec", nil, "create"},
		{"get", "", nil, "resource"},
		{"get", "/", nil, "resource"},
		// What gives power, without a word that this is meant.
		{"create", "/rolebindings.rbac.authorization.k8s.io", nil, "allow_escalation"},
		{"patch", "/roles.rbac.authorization.k8s.io", nil, "allow_escalation"},
		{"create", "/secrets", nil, "allow_escalation"},
		{"read", "/secrets", nil, "allow_escalation"},
		{"patch", "/secrets/named", nil, "allow_escalation"},
		{"patch", "/serviceaccounts/named", nil, "allow_escalation"},
		{"apply", "/*", fields{"include_secrets": true}, "allow_escalation"},
		{"apply", "/*", fields{"include_groups": "rbac.authorization.k8s.io"}, "include_groups"},
		{"apply", "/*", fields{"include_groups": "*"}, "include_groups"},
		{"apply", "/*", fields{"include_groups": "absent.test"}, "include_groups"},
		{"apply", "/configmaps", fields{"include_secrets": true}, "include_secrets"},
		{"get", "/configmaps", fields{"tolerate_ambient": []string{"*"}}, "tolerate_ambient"},
		{"get", "/configmaps", fields{"audiences": []string{""}}, "audiences"},
		{"get", "/configmaps", fields{"bound_source_ip": true}, "bound_source_ip"},
		{"get", "/configmaps", fields{"conditions": `{"a":{"b":"c"}}`}, "conditions"},
		{"get", "/configmaps", fields{"companion_resources": "x"}, "companion_resources"},
		{"get", "/configmaps", fields{"include_secret": true}, "include_secrets"},
	} {
		data := with(fields{"target": target, "action": test.action, "resource": namespace + test.resource, "ttl": "15m"}, test.more)
		_, err := m.Logical().WriteWithContext(ctx, m.path+"/roles/hostile", data)
		m.wasRefused(test.action+" on "+test.resource, err, test.says)
		refusals++
	}
	for _, resource := range []string{"*/configmaps", "*/*", "*", "hos*/configmaps", "../configmaps", "hostile,default/configmaps", "/configmaps", "Hostile/configmaps", "precision/serviceaccounts", "precision/*"} {
		m.refuses("roles/hostile", fields{"target": target, "action": "read", "resource": resource, "ttl": "15m"}, "resource")
		refusals++
	}
	// What reaches the cluster's own components, or the engine's account.
	for _, resource := range []string{"kube-system/configmaps", "vault/pods"} {
		m.refuses("roles/hostile", fields{"target": target, "action": "write", "resource": resource, "ttl": "15m"}, "allow_escalation")
		refusals++
	}
	m.refuses("roles/hostile", fields{"target": target, "action": "read", "resource": "absent/configmaps", "ttl": "15m"}, "absent")
	refusals++
	after, err := servers.Kubernetes.RbacV1().Roles(namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Items) != len(before.Items) {
		t.Errorf("%d Roles were left", len(after.Items)-len(before.Items))
	}
	figures.Log(t, "%d roles refused, nothing left in the cluster", refusals)
}

// What a caller fills in is the name of one object.
func TestHostileParametersAreRefused(t *testing.T) {
	const namespace = "parameters"
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("one", "apply", namespace+"/configmaps/build-{{name}}", fields{"parameters": `{"name": {"pattern": ".*"}}`})
	fill := func(value string) (credential, error) {
		secret, err := m.Logical().ReadWithDataWithContext(ctx, m.path+"/creds/one/CHG-1", map[string][]string{"name": {value}})
		if err != nil {
			return credential{}, err
		}
		return credential{Secret: secret, token: secret.Data["service_account_token"].(string), account: secret.Data["service_account_name"].(string)}, nil
	}
	minted, err := fill("17")
	if err != nil {
		t.Fatal(err)
	}
	asked, _ := judge(t, minted.account, discover(t), []string{namespace}, []string{"", "build-17", "build-18", "build-"}, one(namespace, "configmaps", "build-17", "get", "create", "patch"))
	m.revoke(minted)
	values := []string{"*", "a*", "", "../x", "..", "a/b", "a/../b", "A", "a b", "a\nb", "a\x00", "a%2fb", "a?b", "a,b", "ä", "-", ".", strings.Repeat("a", 300), "{{name}}", "${name}"}
	for _, value := range values {
		minted, err := fill(value)
		m.wasRefused("name="+value, err)
		if err == nil {
			t.Errorf("%q made %s", value, minted.text("policy"))
		}
	}
	m.refuses("roles/two", fields{"target": target, "action": "read", "resource": "{{ns}}/configmaps", "ttl": "15m", "parameters": `{"ns": {"enum": ["parameters"]}}`}, "ns")
	m.refuses("roles/two", fields{"target": target, "action": "read", "resource": namespace + "/{{kind}}", "ttl": "15m", "parameters": `{"kind": {"enum": ["configmaps"]}}`}, "kind")
	figures.Log(t, "%d verdicts of the authorizer on 1 filled name, %d values refused", asked, len(values))
}
