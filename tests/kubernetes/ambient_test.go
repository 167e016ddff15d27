package kubernetes

import (
	"context"
	"strings"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// everybody are the groups that every minted account is in.
var everybody = []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + lab.AccountsNamespace}

// makeRole makes a Role that lets its holders list secrets.
func makeRole(t *testing.T, namespace, name string) {
	t.Helper()
	roles := servers.Kubernetes.RbacV1().Roles(namespace)
	if _, err := roles.Create(t.Context(), &rbac.Role{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Rules:      []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list"}}},
	}, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := roles.Delete(context.Background(), name, meta.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// unbind removes a binding, and waits until the server has noticed.
func unbind(t *testing.T, binding *rbac.RoleBinding, m *mount, path string) {
	t.Helper()
	if err := servers.Kubernetes.RbacV1().RoleBindings(binding.Namespace).Delete(t.Context(), binding.Name, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a mint is possible when nothing is ambient any more", 10*time.Second, func() bool {
		minted, err := m.tryMint(path)
		if err == nil {
			m.revoke(minted)
		}
		return err == nil
	})
}

// What the cluster gives to everybody refuses a role, and a mint where it appears
// later, naming the binding; what is tolerated by name is warned of.
func TestAmbientRightsAreCaught(t *testing.T) {
	const namespace = "ambient"
	m := newMount(t, namespace)
	makeRole(t, namespace, "open")
	role := fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "ttl": "15m"}
	m.write("roles/before", role)
	caughtAtRole, caughtAtMint := 0, 0
	var right string
	for _, name := range everybody {
		opened := bind(t, namespace, "Role", "open", group(name))
		var refusal error
		eventually(t, "a mint is refused", 10*time.Second, func() bool {
			minted, err := m.tryMint("before/CHG-1")
			if err == nil { // the server had not noticed yet
				m.revoke(minted)
			}
			refusal = err
			return err != nil
		})
		m.wasRefused("a mint with a binding to "+name, refusal, "secrets", opened.Name, name, "tolerate_ambient")
		caughtAtMint++
		_, err := m.Logical().WriteWithContext(t.Context(), m.path+"/roles/after", role)
		m.wasRefused("a role with a binding to "+name, err, "secrets", opened.Name, name, "tolerate_ambient")
		caughtAtRole++
		right = rightIn(t, err)
		unbind(t, opened, m, "before/CHG-1")
	}

	opened := bind(t, namespace, "Role", "open", group("system:serviceaccounts"))
	tolerant := with(role, fields{"tolerate_ambient": []string{right}})
	eventually(t, "the server has noticed", 10*time.Second, func() bool {
		return warned(m.write("roles/tolerant", tolerant), right)
	})
	minted := m.mint("tolerant/CHG-1")
	if !warned(minted.Secret, right) {
		t.Errorf("a mint does not say what it tolerates: %v", minted.Warnings)
	}
	if _, err := minted.client(t).CoreV1().Secrets(namespace).List(t.Context(), meta.ListOptions{}); err != nil {
		t.Errorf("what is tolerated does not exist: %v", err)
	}
	m.revoke(minted)
	// Nothing else is tolerated with it.
	more := bind(t, namespace, "ClusterRole", "precision-granting", group("system:authenticated"))
	eventually(t, "a tolerant mint is refused for another right", 10*time.Second, func() bool {
		minted, err := m.tryMint("tolerant/CHG-1")
		if err == nil {
			m.revoke(minted)
		}
		return err != nil && strings.Contains(err.Error(), more.Name)
	})
	if left := m.bindings(namespace, ""); left != 0 {
		t.Errorf("%d bindings are left", left)
	}
	_ = opened
	figures.Log(t, "bindings to %d groups: %d caught at role write, %d between role write and mint", len(everybody), caughtAtRole, caughtAtMint)
}

// rightIn is the right that a refusal names as what could be tolerated.
func rightIn(t *testing.T, err error) string {
	t.Helper()
	_, rest, found := strings.Cut(err.Error(), `tolerate_ambient="`)
	right, _, closed := strings.Cut(rest, `"`)
	if !found || !closed || right == "" {
		t.Fatalf("the refusal does not show what to tolerate: %v", err)
	}
	return right
}

// What a ClusterRoleBinding, or a binding in another namespace, gives to everybody is
// beyond the grant as well.
func TestAmbientRightsElsewhereAreCaught(t *testing.T) {
	const namespace, beside = "ambient-here", "ambient-beside"
	ctx := t.Context()
	m := newMount(t, namespace)
	if err := servers.Kubernetes.MakeNamespace(ctx, beside); err != nil {
		t.Fatal(err)
	}
	makeRole(t, beside, "open")
	role := fields{"target": target, "action": "read", "resource": namespace + "/configmaps", "ttl": "15m"}
	m.write("roles/before", role)
	refusedSoon := func(what, binding string) {
		t.Helper()
		var refusal error
		eventually(t, "a mint is refused for "+what, 10*time.Second, func() bool {
			minted, err := m.tryMint("before/CHG-1")
			if err == nil {
				m.revoke(minted)
			}
			refusal = err
			return err != nil
		})
		m.wasRefused("a mint with "+what, refusal, binding)
		_, err := m.Logical().WriteWithContext(ctx, m.path+"/roles/after", role)
		m.wasRefused("a role with "+what, err, binding)
	}
	opened := bind(t, beside, "Role", "open", group("system:serviceaccounts"))
	refusedSoon("a binding in another namespace", opened.Name)
	unbind(t, opened, m, "before/CHG-1")

	bindings := servers.Kubernetes.RbacV1().ClusterRoleBindings()
	made, err := bindings.Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: meta.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:node-proxier"},
		Subjects:   []rbac.Subject{group("system:authenticated")},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(context.Background(), made.Name, meta.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	refusedSoon("a cluster-wide binding", made.Name)
	if err := bindings.Delete(ctx, made.Name, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a mint is possible again", 10*time.Second, func() bool {
		_, err := m.tryMint("before/CHG-1")
		return err == nil
	})
	figures.Log(t, "2 bindings elsewhere caught at role write and at mint")
}
