package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Sizes of the storm.
const (
	stormSeed      = 20261129
	stormWorkers   = 4
	stormSequences = 10 // of each worker
	stormActs      = 40 // of each sequence, at most
)

// storm is what a sequence of hostile acts works on.
type storm struct {
	t      *testing.T
	random *rand.Rand
	helper helper
	minted credential
	holder *kubernetes.Clientset
	name   string // of what this sequence makes
	made   int
	held   []*heldBack
}

// acts are the grammar: what a holder and a namespace administrator do before a revoke.
// The storm ignores the errors of acts.
func acts() map[string]func(context.Context, *storm) {
	configMap := func(s *storm) string { return fmt.Sprintf("%s-%d", s.name, s.random.IntN(4)) }
	maps := func(s *storm) string { return "/api/v1/namespaces/" + s.helper.namespace + "/configmaps" }
	return map[string]func(context.Context, *storm){
		"holder reads": func(ctx context.Context, s *storm) {
			_, _ = s.holder.CoreV1().ConfigMaps(s.helper.namespace).Get(ctx, "there", meta.GetOptions{})
		},
		"holder applies": func(ctx context.Context, s *storm) {
			name := configMap(s)
			_ = s.holder.CoreV1().RESTClient().Patch(types.ApplyYAMLPatchType).AbsPath(maps(s)+"/"+name).Param("fieldManager", "storm").
				Body(fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q}}`, name)).Do(ctx).Error()
		},
		"holder deletes": func(ctx context.Context, s *storm) {
			_ = s.holder.CoreV1().ConfigMaps(s.helper.namespace).Delete(ctx, configMap(s), meta.DeleteOptions{})
		},
		"holder holds a body back": func(_ context.Context, s *storm) {
			name := fmt.Sprintf("%s-late-%d", s.name, s.made)
			s.made++
			request, err := holdBack(s.minted.token, http.MethodPost, maps(s), "application/json", fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q}}`, name))
			if err == nil {
				s.held = append(s.held, request)
			}
		},
		"holder asks for a token": func(ctx context.Context, s *storm) {
			_, _ = s.holder.CoreV1().ServiceAccounts(lab.AccountsNamespace).CreateToken(ctx, s.minted.account, nil, meta.CreateOptions{})
		},
		"holder unbinds himself": func(ctx context.Context, s *storm) {
			_ = s.holder.RbacV1().RoleBindings(s.helper.namespace).Delete(ctx, s.minted.account, meta.DeleteOptions{})
		},
		"helper holds the binding": func(ctx context.Context, s *storm) { _ = s.helper.hold(ctx, s.minted) },
		"helper takes the marks": func(ctx context.Context, s *storm) {
			_ = s.helper.patch(ctx, s.minted.account, `{"metadata":{"labels":null,"annotations":null}}`)
		},
		"helper forges the marks": func(ctx context.Context, s *storm) {
			_ = s.helper.patch(ctx, s.minted.account, `{"metadata":{"labels":{"precision/grant":"another","precision/mount":"another"}}}`)
		},
		"helper adds a subject": func(ctx context.Context, s *storm) {
			_ = s.helper.patch(ctx, s.minted.account, fmt.Sprintf(`{"subjects":[{"kind":"ServiceAccount","namespace":%q,"name":%q},{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"somebody"}]}`, lab.AccountsNamespace, s.minted.account))
		},
		"helper binds the account again": func(ctx context.Context, s *storm) {
			s.made++
			var finalizers []string
			if s.random.IntN(2) == 0 {
				finalizers = []string{"example.com/hold"}
			}
			_ = s.helper.bindAgain(ctx, s.minted, fmt.Sprintf("%s-%d", s.name, s.made), finalizers)
		},
		"helper binds the account with others": func(ctx context.Context, s *storm) {
			s.made++
			_ = s.helper.bindAgain(ctx, s.minted, fmt.Sprintf("%s-%d", s.name, s.made), nil, rbac.Subject{Kind: "Group", APIGroup: rbac.GroupName, Name: "somebodies"})
		},
		"helper binds the account's user": func(ctx context.Context, s *storm) {
			s.made++
			_ = s.helper.bindGrantsRole(ctx, s.minted, fmt.Sprintf("%s-%d", s.name, s.made), userOf(s.minted.account))
		},
		"helper binds the engine's account": func(ctx context.Context, s *storm) {
			s.made++
			canary := account(lab.AccountsNamespace, canaryAccount)
			_ = s.helper.bindGrantsRole(ctx, s.minted, fmt.Sprintf("%s-%d", s.name, s.made), canary)
		},
		"helper makes the binding again": func(ctx context.Context, s *storm) {
			bindings := s.helper.RbacV1().RoleBindings(s.helper.namespace)
			ours, err := bindings.Get(ctx, s.minted.account, meta.GetOptions{})
			if err != nil || bindings.Delete(ctx, ours.Name, meta.DeleteOptions{}) != nil {
				return
			}
			_, _ = bindings.Create(ctx, &rbac.RoleBinding{ObjectMeta: meta.ObjectMeta{Name: ours.Name}, RoleRef: ours.RoleRef, Subjects: ours.Subjects}, meta.CreateOptions{})
		},
		"helper deletes the Role": func(ctx context.Context, s *storm) {
			if ours, err := s.helper.RbacV1().RoleBindings(s.helper.namespace).Get(ctx, s.minted.account, meta.GetOptions{}); err == nil {
				_ = s.helper.RbacV1().Roles(s.helper.namespace).Delete(ctx, ours.RoleRef.Name, meta.DeleteOptions{})
			}
		},
		"helper labels the Role": func(ctx context.Context, s *storm) {
			if ours, err := s.helper.RbacV1().RoleBindings(s.helper.namespace).Get(ctx, s.minted.account, meta.GetOptions{}); err == nil {
				_, _ = s.helper.RbacV1().Roles(s.helper.namespace).Patch(ctx, ours.RoleRef.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/hold"]}}`), meta.PatchOptions{})
			}
		},
	}
}

// tally is what the storm counts.
type tally struct {
	sync.Mutex
	acts, revokes, failed, after, late, refused int
	longest, slowest                            time.Duration
}

// A storm of what holders and namespace administrators do against a revocation, from a
// fixed seed: each revoke succeeds, nothing works after it, and nobody else's mint is
// refused.
func TestStormOfHoldersAndHelpers(t *testing.T) {
	guarded(t, "storm-guarded")
	awaitRevokedPolicy(t, "storm-guarded")
	m := newMount(t, "storm-bystander")
	m.role("bystander", "read", "storm-bystander/configmaps")
	sum := &tally{}
	var workers sync.WaitGroup
	for worker := range stormWorkers {
		namespace := fmt.Sprintf("storm-%d", worker)
		needEngine(t, namespace)
		if err := makeThere(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
		m.role(namespace, "write", namespace+"/configmaps")
		helps := helper{namespaceAdministrator(t, namespace), namespace}
		workers.Go(func() {
			for sequence := range stormSequences {
				m.stormOnce(sum, rand.New(rand.NewPCG(stormSeed, uint64(worker*stormSequences+sequence))), helps, sequence)
			}
		})
	}
	workers.Wait()
	irrevocable := m.irrevocable()
	if sum.failed > 0 || sum.after > 0 || sum.late > 0 || sum.refused > 0 || irrevocable > 0 || sum.revokes != stormWorkers*stormSequences {
		t.Errorf("%d of %d revokes failed, %d requests worked after one, %d held-back bodies were carried out, %d mints of others were refused, %d leases are irrevocable",
			sum.failed, sum.revokes, sum.after, sum.late, sum.refused, irrevocable)
	}
	figures.Log(t, "%d sequences of %d hostile acts in all, %d revokes: longest time to dead %s, slowest revoke %s, %d irrevocable leases, %d mints of others refused",
		stormWorkers*stormSequences, sum.acts, sum.revokes, sum.longest.Round(time.Millisecond), sum.slowest.Round(time.Millisecond), irrevocable, sum.refused)
	m.stormOver()
}

// stormOnce is one sequence: mint, acts, revoke, and a look at what works.
func (m *mount) stormOnce(sum *tally, random *rand.Rand, helps helper, sequence int) {
	ctx := context.Background()
	minted, err := m.tryMint(fmt.Sprintf("%s/SEQUENCE-%d", helps.namespace, sequence))
	if err != nil {
		m.t.Errorf("sequence %d in %s: %v", sequence, helps.namespace, err)
		return
	}
	holder, err := kubernetes.NewForConfig(servers.Kubernetes.As(minted.token))
	if err != nil {
		m.t.Error(err)
		return
	}
	s := &storm{t: m.t, random: random, helper: helps, minted: minted, holder: holder, name: fmt.Sprintf("storm-%d", sequence)}
	grammar := acts()
	names := slices.Sorted(maps.Keys(grammar))
	count := 5 + random.IntN(stormActs-5)
	for range count {
		grammar[names[random.IntN(len(names))]](ctx, s)
	}
	_, bystander := m.tryMint(fmt.Sprintf("bystander/%s-%d", strings.ToUpper(helps.namespace), sequence))
	seen := m.revokeWatched(minted, helps.namespace, time.Second)
	for _, request := range s.held {
		_, _ = request.finish() // what counts is what is there afterwards
	}
	late, err := s.late(ctx)
	if err != nil {
		m.t.Error(err)
	}
	sum.Lock()
	defer sum.Unlock()
	sum.acts += count
	sum.revokes++
	sum.after += seen.after
	sum.late += late
	sum.longest, sum.slowest = max(sum.longest, seen.last), max(sum.slowest, seen.revoke)
	if seen.err != nil {
		sum.failed++
		m.t.Errorf("sequence %d in %s: %v", sequence, helps.namespace, seen.err)
	}
	if bystander != nil {
		sum.refused++
		m.t.Errorf("sequence %d in %s: a mint of others: %v", sequence, helps.namespace, bystander)
	}
}

// late counts what bodies that were held back have made.
func (s *storm) late(ctx context.Context) (int, error) {
	found, err := servers.Kubernetes.CoreV1().ConfigMaps(s.helper.namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return 0, err
	}
	count := 0
	for _, one := range found.Items {
		if strings.HasPrefix(one.Name, s.name+"-late-") {
			count++
		}
	}
	return count, nil
}

// irrevocable counts the mount's leases that Vault has given up.
func (m *mount) irrevocable() int {
	m.t.Helper()
	answer, err := m.Logical().ReadWithDataWithContext(m.t.Context(), "sys/leases/count", map[string][]string{"type": {"irrevocable"}})
	if err != nil {
		m.t.Fatal(err)
	}
	counts, _ := answer.Data["counts"].(map[string]any)
	if counts[m.path+"/"] == nil {
		return 0
	}
	return 1
}

// stormOver takes the finalizers away, after which the sweeper has removed all of the
// engine's.
func (m *mount) stormOver() {
	m.t.Helper()
	ctx := m.t.Context()
	for worker := range stormWorkers {
		namespace := fmt.Sprintf("storm-%d", worker)
		bindings := servers.Kubernetes.RbacV1().RoleBindings(namespace)
		found, err := bindings.List(ctx, meta.ListOptions{})
		if err != nil {
			m.t.Fatal(err)
		}
		for _, one := range found.Items {
			if len(one.Finalizers) == 0 {
				continue
			}
			if _, err := bindings.Patch(ctx, one.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), meta.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
				m.t.Error(err)
			}
		}
		roles := servers.Kubernetes.RbacV1().Roles(namespace)
		kept, err := roles.List(ctx, meta.ListOptions{})
		if err != nil {
			m.t.Fatal(err)
		}
		for _, one := range kept.Items {
			if len(one.Finalizers) > 0 {
				if _, err := roles.Patch(ctx, one.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), meta.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
					m.t.Error(err)
				}
			}
		}
	}
	eventually(m.t, "the sweeper has removed what is left", time.Minute, func() bool {
		m.write("tidy", nil)
		left := 0
		for worker := range stormWorkers {
			found, err := servers.Kubernetes.RbacV1().RoleBindings(fmt.Sprintf("storm-%d", worker)).List(ctx, meta.ListOptions{})
			if err != nil {
				m.t.Fatal(err)
			}
			for _, one := range found.Items {
				if strings.HasPrefix(one.Name, "precision-0") || len(one.Labels["precision/grant"]) > 10 {
					left++
				}
			}
		}
		return left == 0
	})
}
