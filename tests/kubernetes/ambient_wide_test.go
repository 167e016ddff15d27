package kubernetes

import (
	"context"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// refusedSoon reads a credential until that is refused, and checks what is said.
func (m *mount) refusedSoon(path, what string, within time.Duration, says ...string) {
	m.t.Helper()
	var refusal error
	eventually(m.t, "a mint is refused for "+what, within, func() bool {
		minted, err := m.tryMint(path)
		if err == nil {
			m.revoke(minted)
		}
		refusal = err
		return err != nil
	})
	m.wasRefused("a mint with "+what, refusal, says...)
}

// What is tolerated in one namespace is not tolerated in all: a binding that becomes
// wider refuses what was minted before.
func TestToleratedHereIsNotToleratedEverywhere(t *testing.T) {
	const namespace = "tolerated-here"
	ctx := t.Context()
	m := newMount(t, namespace)
	makeRole(t, namespace, "open")
	here := bind(t, namespace, "Role", "open", group("system:serviceaccounts"))
	role := fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "ttl": "15m"}
	tolerant := with(role, fields{"tolerate_ambient": []string{"list secrets in " + namespace}})
	eventually(t, "the server has noticed", 10*time.Second, func() bool {
		return warned(m.write("roles/tolerant", tolerant), "secrets")
	})
	m.revoke(m.mint("tolerant/CHG-1"))

	roles, bindings := servers.Kubernetes.RbacV1().ClusterRoles(), servers.Kubernetes.RbacV1().ClusterRoleBindings()
	wide, err := roles.Create(ctx, &rbac.ClusterRole{
		ObjectMeta: meta.ObjectMeta{GenerateName: "test-wide-"},
		Rules:      []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list"}}},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	everywhere, err := bindings.Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: meta.ObjectMeta{GenerateName: "test-wide-"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: wide.Name},
		Subjects:   []rbac.Subject{group("system:serviceaccounts")},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(context.Background(), everywhere.Name, meta.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		if err := roles.Delete(context.Background(), wide.Name, meta.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	m.refusedSoon("tolerant/CHG-1", "a wider binding of the same right", 5*time.Second, everywhere.Name, "list secrets in *")
	_, err = m.Logical().WriteWithContext(ctx, m.path+"/roles/tolerant", tolerant)
	m.wasRefused("a role with a wider binding of the same right", err, everywhere.Name, "list secrets in *")

	// It is tolerated by its own name, and then the narrower one is nothing more.
	m.write("roles/tolerant", with(role, fields{"tolerate_ambient": []string{"list secrets in *"}}))
	minted := m.mint("tolerant/CHG-2")
	if !warned(minted.Secret, "list secrets in *") {
		t.Errorf("a mint does not say what it tolerates: %v", minted.Warnings)
	}
	m.revoke(minted)
	if err := bindings.Delete(ctx, everywhere.Name, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.refusedSoon("tolerant/CHG-2", "the narrower right alone, which was not tolerated by its name", 5*time.Second, here.Name, "list secrets in "+namespace)
	figures.Log(t, "1 tolerated right refused as it became cluster-wide, at mint and at role write")
}

// A binding elsewhere that looks like a grant's is found all the same.
func TestAmbientRightsCannotHide(t *testing.T) {
	const namespace, beside = "hidden-here", "hidden-beside"
	ctx := t.Context()
	m := newMount(t, namespace)
	if err := servers.Kubernetes.MakeNamespace(ctx, beside); err != nil {
		t.Fatal(err)
	}
	makeRole(t, beside, "open")
	role := fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "ttl": "15m"}
	m.write("roles/before", role)
	minted := m.mint("before/CHG-1")
	defer m.revoke(minted)
	looks, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).Get(ctx, minted.account, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bindings := servers.Kubernetes.RbacV1().RoleBindings(beside)
	hidden, err := bindings.Create(ctx, &rbac.RoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: looks.Name, Labels: looks.Labels, Annotations: looks.Annotations},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: "open"},
		Subjects:   []rbac.Subject{group("system:serviceaccounts:" + lab.AccountsNamespace)},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(context.Background(), hidden.Name, meta.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	eventually(t, "a role is refused", 5*time.Second, func() bool {
		_, err = m.Logical().WriteWithContext(ctx, m.path+"/roles/after", role)
		return err != nil
	})
	m.wasRefused("a role with a binding that bears a grant's mark", err, hidden.Name, "list secrets in "+beside)
	m.refusedSoon("before/CHG-2", "a binding that bears a grant's mark", 15*time.Second, hidden.Name, "list secrets in "+beside)
	if err := bindings.Delete(ctx, hidden.Name, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a mint is possible again", 5*time.Second, func() bool {
		again, err := m.tryMint("before/CHG-3")
		if err == nil {
			m.revoke(again)
		}
		return err == nil
	})
	figures.Log(t, "1 binding with a grant's marks caught at role write and at mint")
}

// A binding that lets everybody act as somebody else is caught by its verbs, of both kinds
// of impersonation. A role tolerates it only with allow_escalation.
func TestAmbientImpersonationIsCaught(t *testing.T) {
	const namespace = "impersonating"
	ctx := t.Context()
	m := newMount(t, namespace)
	roles := servers.Kubernetes.RbacV1().Roles(namespace)
	if _, err := roles.Create(ctx, &rbac.Role{ObjectMeta: meta.ObjectMeta{Name: "impersonators"}, Rules: []rbac.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"serviceaccounts"}, Verbs: []string{"impersonate:serviceaccount"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"impersonate-on:serviceaccount:list"}},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"impersonate"}},
	}}, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind(t, namespace, "Role", "impersonators", group("system:serviceaccounts"))
	role := fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "ttl": "15m"}
	verbs := []string{"impersonate:serviceaccount", "impersonate-on:serviceaccount:list", "impersonate"}
	eventually(t, "the role is refused", 10*time.Second, func() bool {
		_, err := m.Logical().WriteWithContext(ctx, m.path+"/roles/refused", role)
		return err != nil
	})
	m.refuses("roles/refused", role, verbs...)
	tolerant := with(role, fields{"tolerate_ambient": []string{
		"impersonate:serviceaccount serviceaccounts.authentication.k8s.io in " + namespace,
		"impersonate-on:serviceaccount:list secrets in " + namespace,
		"impersonate serviceaccounts in " + namespace,
	}})
	m.refuses("roles/tolerant", tolerant, "allow_escalation")
	if answer := m.write("roles/tolerant", with(tolerant, fields{"allow_escalation": true})); !warned(answer, verbs...) {
		t.Errorf("a tolerant role does not say what it tolerates: %v", answer.Warnings)
	}
	judged := 0
	for verb, of := range map[string]string{"impersonate:serviceaccount": "serviceaccounts.authentication.k8s.io/default", "impersonate-on:serviceaccount:list": "secrets", "impersonate": "serviceaccounts/default"} {
		answer, err := m.Logical().ReadWithDataWithContext(ctx, m.path+"/check/tolerant", map[string][]string{"action": {verb}, "resource": {namespace + "/" + of}})
		if err != nil || answer.Data["allowed"] != true {
			t.Errorf("check of %s on %s: %v, %v", verb, of, answer, err)
		}
		judged++
	}
	figures.Log(t, "%d verbs of impersonation caught, and known to check", judged)
}
