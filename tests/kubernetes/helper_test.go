package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// namespaceAdministrator is a client of an account that may do everything in one namespace.
func namespaceAdministrator(t *testing.T, namespace string) *kubernetes.Clientset {
	t.Helper()
	makeAccount(t, namespace, "administrator")
	bind(t, namespace, "ClusterRole", "cluster-admin", account(namespace, "administrator"))
	return credential{token: token(t, namespace, "administrator")}.client(t)
}

// helper is a namespace administrator who helps a holder against his grant's revocation.
type helper struct {
	*kubernetes.Clientset
	namespace string
}

// hold puts a finalizer on the grant's binding.
func (h helper) hold(ctx context.Context, minted credential) error {
	return h.patch(ctx, minted.account, `{"metadata":{"finalizers":["example.com/hold"]}}`)
}

func (h helper) patch(ctx context.Context, binding, patch string) error {
	_, err := h.RbacV1().RoleBindings(h.namespace).Patch(ctx, binding, types.MergePatchType, []byte(patch), meta.PatchOptions{})
	return err
}

// bindAgain binds the grant's account by a binding of the helper's own to the grant's Role.
func (h helper) bindAgain(ctx context.Context, minted credential, name string, finalizers []string, more ...rbac.Subject) error {
	ours, err := h.RbacV1().RoleBindings(h.namespace).Get(ctx, minted.account, meta.GetOptions{})
	if err != nil {
		return err
	}
	_, err = h.RbacV1().RoleBindings(h.namespace).Create(ctx, &rbac.RoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: name, Finalizers: finalizers}, RoleRef: ours.RoleRef,
		Subjects: append([]rbac.Subject{account(lab.AccountsNamespace, minted.account)}, more...),
	}, meta.CreateOptions{})
	return err
}

// takeRights takes the engine's rights in the namespace away.
func (h helper) takeRights(ctx context.Context) error {
	return h.RbacV1().RoleBindings(h.namespace).Delete(ctx, "precision-granting", meta.DeleteOptions{})
}

// life is how long a credential was honoured after its revoke was asked for.
type life struct {
	last   time.Duration // after which it last was
	after  int           // successes after the revoke had returned
	revoke time.Duration // that the revoke took
	err    error         // of the revoke
}

// revokeWatched revokes a credential while its holder goes on using it, and goes on watching
// for a time after the revoke has returned.
func (m *mount) revokeWatched(minted credential, namespace string, watch time.Duration) (seen life) {
	client := minted.client(m.t)
	began := time.Now()
	returned := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			over := closed(returned)
			if over && time.Since(began) > seen.revoke+watch {
				return
			}
			if _, err := client.CoreV1().ConfigMaps(namespace).Get(context.Background(), "there", meta.GetOptions{}); err == nil {
				seen.last = time.Since(began)
				if over {
					seen.after++
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	seen.err = m.Sys().RevokeWithOptionsWithContext(context.Background(), &api.RevokeOptions{LeaseID: minted.LeaseID, Sync: true})
	seen.revoke = time.Since(began)
	close(returned)
	watching.Wait()
	return seen
}

func closed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// A namespace administrator who holds on to the grant's binding, binds the account again or
// takes the engine's rights does not keep a credential alive: the revoke succeeds, nothing
// works after it, and tidy-status says what is in the way and what removes it.
func TestHelperKeepsNothingAlive(t *testing.T) {
	ctx := t.Context()
	tricks := map[string]struct {
		do      func(helper, credential) error
		blocked string        // what tidy-status says is in the way; empty for nothing
		within  time.Duration // that the last success comes at most; 0 for at once
	}{
		"finalizer": {do: func(h helper, c credential) error { return h.hold(ctx, c) }, blocked: "example.com/hold"},
		"again":     {do: func(h helper, c credential) error { return h.bindAgain(ctx, c, "again", nil) }},
		"again-held": {do: func(h helper, c credential) error {
			return h.bindAgain(ctx, c, "again", []string{"example.com/hold"})
		}},
		"as-a-user": {do: func(h helper, c credential) error { return h.bindGrantsRole(ctx, c, "again", userOf(c.account)) }},
		"both-ways": {do: func(h helper, c credential) error {
			return h.bindAgain(ctx, c, "again", nil, userOf(c.account), rbac.Subject{Kind: "User", APIGroup: rbac.GroupName, Name: "somebody"})
		}},
		"many": {do: func(h helper, c credential) error {
			for i := range 40 {
				if err := h.bindAgain(ctx, c, fmt.Sprintf("again-%d", i), []string{"example.com/hold"}); err != nil {
					return err
				}
			}
			return nil
		}, within: 12 * time.Second},
		"with-others": {do: func(h helper, c credential) error {
			return h.bindAgain(ctx, c, "again", nil, rbac.Subject{Kind: "User", APIGroup: rbac.GroupName, Name: "somebody"})
		}},
		"more-than-the-engine": {do: func(h helper, c credential) error {
			_, err := h.RbacV1().RoleBindings(h.namespace).Create(ctx, &rbac.RoleBinding{
				ObjectMeta: meta.ObjectMeta{Name: "more", Finalizers: []string{"example.com/hold"}},
				RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
				Subjects:   []rbac.Subject{account(lab.AccountsNamespace, c.account)},
			}, meta.CreateOptions{})
			return err
		}, within: 12 * time.Second},
		"rights": {do: func(h helper, c credential) error { return h.takeRights(ctx) }, blocked: "may not delete", within: 12 * time.Second},
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	lives := map[string]life{}
	m := newMount(t)
	for what := range tricks {
		namespace := "helped-" + what
		needEngine(t, namespace)
		if err := makeThere(ctx, namespace); err != nil {
			t.Fatal(err)
		}
		m.role(what, "write", namespace+"/*")
		minted := m.mint(what + "/HELD")
		if err := tricks[what].do(helper{namespaceAdministrator(t, namespace), namespace}, minted); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			seen := m.revokeWatched(minted, namespace, 12*time.Second)
			mu.Lock()
			defer mu.Unlock()
			lives[what] = seen
		})
	}
	all.Wait()
	for what, trick := range tricks {
		seen := lives[what]
		if seen.err != nil || seen.after > 0 || seen.last > max(trick.within, 5*time.Second) {
			t.Errorf("%s: it was honoured %s after the revoke was asked for, %d times after that had returned, in %s: %v", what, seen.last, seen.after, seen.revoke, seen.err)
		}
		figures.Log(t, "%s: honoured for %s, revoke in %s", what, seen.last.Round(time.Millisecond), seen.revoke.Round(time.Millisecond))
	}
	m.write("tidy", nil)
	eventually(t, "tidy-status says what is in the way", 30*time.Second, func() bool {
		text, err := json.Marshal(m.read("tidy-status").Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, trick := range tricks {
			if !strings.Contains(string(text), trick.blocked) {
				return false
			}
		}
		return strings.Contains(string(text), "kubectl patch rolebinding")
	})
	m.helperGivesUp("helped-finalizer", "helped-rights")
}

// helperGivesUp undoes what helpers did, after which the sweeper removes what was left.
func (m *mount) helperGivesUp(held, taken string) {
	m.t.Helper()
	ctx := m.t.Context()
	bindings := servers.Kubernetes.RbacV1().RoleBindings(held)
	found, err := bindings.List(ctx, meta.ListOptions{LabelSelector: "precision/grant"})
	if err != nil || len(found.Items) != 1 {
		m.t.Fatalf("%d bindings are held: %v", len(found.Items), err)
	}
	if _, err := bindings.Patch(ctx, found.Items[0].Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), meta.PatchOptions{}); err != nil {
		m.t.Fatal(err)
	}
	if err := servers.Kubernetes.Apply(ctx, lab.HeldRights, taken); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "the sweeper removes what is left", time.Minute, func() bool {
		m.write("tidy", nil)
		left := 0
		for _, namespace := range []string{held, taken} {
			found, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).List(ctx, meta.ListOptions{LabelSelector: "precision/grant"})
			if err != nil {
				m.t.Fatal(err)
			}
			left += len(found.Items)
		}
		return left == 0
	})
}

// makeThere makes what holders read.
func makeThere(ctx context.Context, namespace string) error {
	_, err := servers.Kubernetes.CoreV1().ConfigMaps(namespace).Create(ctx, &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: "there"}}, meta.CreateOptions{})
	return err
}
