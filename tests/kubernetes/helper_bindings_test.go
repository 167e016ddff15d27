package kubernetes

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// canaryAccount is the account that the engine asks what everybody may do as.
const canaryAccount = "precision-canary"

// userOf is an account under its user name, which RBAC takes for the account.
func userOf(account string) rbac.Subject {
	return rbac.Subject{Kind: rbac.UserKind, APIGroup: rbac.GroupName, Name: "system:serviceaccount:" + lab.AccountsNamespace + ":" + account}
}

// bindGrantsRole binds subjects to the Role of a grant, and to nothing else.
func (h helper) bindGrantsRole(ctx context.Context, minted credential, name string, subjects ...rbac.Subject) error {
	ours, err := h.RbacV1().RoleBindings(h.namespace).Get(ctx, minted.account, meta.GetOptions{})
	if err != nil {
		return err
	}
	_, err = h.RbacV1().RoleBindings(h.namespace).Create(ctx, &rbac.RoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: name}, RoleRef: ours.RoleRef, Subjects: subjects,
	}, meta.CreateOptions{})
	return err
}

// awaitAllowed waits until the API server lets an account of the engine's namespace do something.
func awaitAllowed(t *testing.T, name string, something authorization.ResourceAttributes) {
	t.Helper()
	eventually(t, "the server has seen the binding", 30*time.Second, func() bool {
		asked := &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
			User: userOf(name).Name, Groups: everybody, ResourceAttributes: &something,
		}}
		answer, err := servers.Kubernetes.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), asked, meta.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status.Allowed
	})
}

// A namespace administrator who binds a group that every minted account is in keeps none of
// them alive: the revoke returns when the API server has stopped taking the token. It does
// not wait for rights that the role tolerates.
func TestGroupBindingKeepsNothingAlive(t *testing.T) {
	ctx := t.Context()
	m := newMount(t)
	namespace := func(i int) string { return fmt.Sprintf("group-bound-%d", i) }
	minted := make([]credential, len(everybody))
	var tolerated []string
	for i := range everybody {
		needEngine(t, namespace(i))
		if err := makeThere(ctx, namespace(i)); err != nil {
			t.Fatal(err)
		}
		m.role(namespace(i), "read", namespace(i)+"/configmaps")
		minted[i] = m.mint(namespace(i) + "/GROUP")
		tolerated = append(tolerated, "get,list configmaps in "+namespace(i))
	}
	var unbind []func() error
	for i, name := range everybody {
		helps := helper{namespaceAdministrator(t, namespace(i)), namespace(i)}
		if err := helps.bindGrantsRole(ctx, minted[i], "group", group(name)); err != nil {
			t.Fatal(err)
		}
		unbind = append(unbind, func() error {
			return helps.RbacV1().RoleBindings(namespace(i)).Delete(ctx, "group", meta.DeleteOptions{})
		})
	}
	var all sync.WaitGroup
	lives := make([]life, len(everybody))
	for i := range everybody {
		all.Go(func() { lives[i] = m.revokeWatched(minted[i], namespace(i), 12*time.Second) })
	}
	all.Wait()
	for i, name := range everybody {
		last, took := lives[i].last.Round(time.Millisecond), lives[i].revoke.Round(time.Millisecond)
		if lives[i].err != nil || lives[i].after > 0 {
			t.Errorf("%s: it was honoured %d times after the revoke had returned, in %s: %v", name, lives[i].after, took, lives[i].err)
		}
		figures.Log(t, "a binding to %s: honoured for %s, revoke in %s", name, last, took)
	}
	m.role("tolerant", "read", namespace(0)+"/configmaps", fields{"tolerate_ambient": tolerated})
	seen := m.revokeWatched(m.mint("tolerant/GROUP"), namespace(0), 0)
	if seen.err != nil || seen.revoke > 10*time.Second {
		t.Errorf("what the role tolerates: the revoke took %s: %v", seen.revoke, seen.err)
	}
	for _, one := range unbind {
		if err := one(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a mint is possible again", 30*time.Second, func() bool {
		again, err := m.tryMint(namespace(0) + "/AFTER")
		if err == nil {
			m.revoke(again)
		}
		return err == nil
	})
}

// A namespace administrator who binds the account that the engine asks as stops nobody's
// mints: other accounts have nothing of it.
func TestBoundCanaryStopsNoMints(t *testing.T) {
	const namespace, beside = "canary-bound", "canary-bound-beside"
	ctx := t.Context()
	m := newMount(t, namespace, beside)
	helps := helper{namespaceAdministrator(t, namespace), namespace}
	makeRole(t, namespace, "open")
	m.role("here", "read", namespace+"/configmaps")
	m.role("beside", "read", beside+"/configmaps")
	mints := 0
	for i, subject := range []rbac.Subject{account(lab.AccountsNamespace, canaryAccount), userOf(canaryAccount)} {
		name := fmt.Sprintf("canary-%d", i)
		if _, err := helps.RbacV1().RoleBindings(namespace).Create(ctx, &rbac.RoleBinding{
			ObjectMeta: meta.ObjectMeta{Name: name}, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: "open"},
			Subjects: []rbac.Subject{subject},
		}, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		awaitAllowed(t, canaryAccount, authorization.ResourceAttributes{Namespace: namespace, Verb: "list", Resource: "secrets"})
		for _, role := range []string{"here", "beside"} {
			minted, err := m.tryMint(fmt.Sprintf("%s/BOUND-%d", role, i))
			if err != nil {
				t.Errorf("%s, with the canary bound as a %s: %v", role, subject.Kind, err)
				continue
			}
			mints++
			if warned(minted.Secret, "secrets") {
				t.Errorf("a mint says that everybody has what the canary alone has: %q", minted.Warnings)
			}
			m.revoke(minted)
		}
		m.role("here", "read", namespace+"/configmaps")
		if err := helps.RbacV1().RoleBindings(namespace).Delete(ctx, name, meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no further account is left", 30*time.Second, func() bool {
		found, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).List(ctx, meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range found.Items {
			if len(one.Name) > len(canaryAccount) && one.Name[:len(canaryAccount)] == canaryAccount {
				return false
			}
		}
		return true
	})
	figures.Log(t, "the engine's own account bound by a namespace administrator in 2 ways: %d mints, none refused", mints)
}
