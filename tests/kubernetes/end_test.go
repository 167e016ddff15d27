package kubernetes

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// refused says whether the server refuses who asks, or what is asked.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// What is revoked is refused within a second, although the token has been used.
func TestRevokedIsRefusedAtOnce(t *testing.T) {
	const namespace, rounds = "revoked", 10
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("read", "read", namespace+"/configmaps")
	var longest time.Duration
	for round := range rounds {
		minted := m.mint(fmt.Sprintf("read/ROUND-%d", round))
		client := minted.client(t)
		if _, err := client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		m.revoke(minted)
		start := time.Now()
		for {
			_, err := client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{})
			if refused(err) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(start) > time.Second {
				t.Fatal("it is honoured a second after its revoke")
			}
		}
		longest = max(longest, time.Since(start))
		m.nothingLeft(minted, namespace)
		m.revoke(minted) // a second time changes nothing
	}
	figures.Log(t, "%d revoked, refused after %s at most", rounds, longest.Round(time.Millisecond))
}

// nothingLeft checks that neither account nor binding is there.
func (m *mount) nothingLeft(minted credential, namespace string) {
	m.t.Helper()
	_, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).Get(m.t.Context(), minted.account, meta.GetOptions{})
	if !apierrors.IsNotFound(err) {
		m.t.Errorf("the account of %s is there: %v", minted.text("grant_id"), err)
	}
	if left := m.bindings(namespace, minted.account); left != 0 {
		m.t.Errorf("%d bindings of %s are there", left, minted.account)
	}
}

// bindings counts an account's bindings in a namespace.
func (m *mount) bindings(namespace, account string) (count int) {
	m.t.Helper()
	found, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).List(m.t.Context(), meta.ListOptions{})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, binding := range found.Items {
		for _, subject := range binding.Subjects {
			if subject.Name == account && subject.Namespace == lab.AccountsNamespace {
				count++
			}
		}
	}
	return count
}

// The server gives no token for less than ten minutes: the lease ends a shorter one,
// and the answer says what ends it where Vault can't.
func TestShortLeaseEndsTheGrant(t *testing.T) {
	const namespace = "short"
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("read", "read", namespace+"/configmaps", fields{"ttl": "3s"})
	minted := m.mint("read/CHG-1")
	if minted.LeaseDuration > 3 {
		t.Errorf("the lease lasts %d s", minted.LeaseDuration)
	}
	if !warned(minted.Secret, "10m") && !warned(minted.Secret, "600") {
		t.Errorf("nothing says how long the token lasts: %v", minted.Warnings)
	}
	client := minted.client(t)
	if _, err := client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease ends the grant", 15*time.Second, func() bool {
		_, err := client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{})
		return refused(err)
	})
	eventually(t, "account and binding are gone", 5*time.Second, func() bool {
		return m.bindings(namespace, minted.account) == 0
	})
	long := m.role("long", "read", namespace+"/configmaps", fields{"ttl": "20m"})
	if warned(long, "600") {
		t.Errorf("a role of 20 minutes is warned of the shortest token: %v", long.Warnings)
	}
}

// What Vault forgot is found by its mark and ended; what bears another's mark is not
// touched.
func TestOrphansAreEnded(t *testing.T) {
	const namespace = "orphans"
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("read", "read", namespace+"/configmaps")
	live, lost := m.mint("read/LIVE"), m.mint("read/LOST")
	accounts := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace)
	marked, err := accounts.Get(ctx, lost.account, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"read", "LOST", lost.text("grant_id")} {
		if !strings.Contains(labels.FormatLabels(marked.Labels)+labels.FormatLabels(marked.Annotations), mark) {
			t.Errorf("the account does not say %s: %v %v", mark, marked.Labels, marked.Annotations)
		}
	}
	// The same objects as a ledger that was lost would have left them, long ago.
	past := time.Now().Add(-time.Hour)
	id := func(which string) string { return oldID(past)[:10] + strings.Repeat(which, 14) }
	named := map[string]string{"an orphan": "precision-" + id("a"), "another ledger's": "precision-" + id("b"), "another mount's": "precision-" + id("c"), "no mark": "precision-" + id("d"), "no grant's name": "precision-other"}
	forged := 0
	for what, change := range map[string]func(map[string]string){
		"an orphan":        func(map[string]string) {},
		"another ledger's": func(marks map[string]string) { replaceIn(marks, "ledger", "another") },
		"another mount's":  func(marks map[string]string) { replaceIn(marks, "mount", "another") },
		"no mark":          func(marks map[string]string) { clear(marks) },
		"no grant's name":  func(map[string]string) {},
	} {
		name := named[what]
		copied := marked.DeepCopy()
		copied.ObjectMeta = meta.ObjectMeta{Name: name, Namespace: marked.Namespace, Labels: marked.Labels, Annotations: marked.Annotations}
		copied = copied.DeepCopy()
		for _, marks := range []map[string]string{copied.Labels, copied.Annotations} {
			for key, value := range marks {
				switch {
				case value == lost.text("grant_id"):
					marks[key] = strings.TrimPrefix(name, "precision-")
					if what == "no grant's name" {
						marks[key] = id("e")
					}
				case value == lost.text("expires_at"):
					marks[key] = past.UTC().Format(time.RFC3339)
				}
			}
			change(marks)
		}
		if _, err := accounts.Create(ctx, copied, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		forged++
	}
	// And one of which the binding alone was made.
	bindings := servers.Kubernetes.RbacV1().RoleBindings(namespace)
	half, err := bindings.Get(ctx, lost.account, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	half.ObjectMeta = meta.ObjectMeta{Name: "precision-" + id("f"), Namespace: namespace, Labels: maps.Clone(half.Labels), Annotations: maps.Clone(half.Annotations)}
	for _, marks := range []map[string]string{half.Labels, half.Annotations} {
		for key, value := range marks {
			switch value {
			case lost.text("grant_id"):
				marks[key] = id("f")
			case lost.text("expires_at"):
				marks[key] = past.UTC().Format(time.RFC3339)
			}
		}
	}
	if _, err := bindings.Create(ctx, half, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// And one that somebody has made to have the account of another's ended.
	decoy := half.DeepCopy()
	decoy.ObjectMeta = meta.ObjectMeta{Name: named["another mount's"], Namespace: namespace, Labels: maps.Clone(half.Labels), Annotations: half.Annotations}
	decoy.Subjects = nil
	replaceIn(decoy.Labels, "grant", id("g"))
	if _, err := bindings.Create(ctx, decoy, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// A live one that has lost its account.
	if err := accounts.Delete(ctx, lost.account, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.write("tidy", nil)
	there := func(name string) bool {
		_, err := accounts.Get(ctx, name, meta.GetOptions{})
		return err == nil
	}
	eventually(t, "the orphans are ended", 20*time.Second, func() bool {
		_, err := bindings.Get(ctx, half.Name, meta.GetOptions{})
		return !there(named["an orphan"]) && apierrors.IsNotFound(err)
	})
	strangers := []string{named["another ledger's"], named["another mount's"], named["no mark"], named["no grant's name"]}
	for _, name := range append([]string{live.account}, strangers...) {
		if !there(name) {
			t.Errorf("%s was ended", name)
		}
	}
	if _, err := live.client(t).CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Errorf("a live grant was disturbed: %v", err)
	}
	m.revoke(lost) // half of it is gone
	m.nothingLeft(lost, namespace)
	if err := bindings.Delete(ctx, decoy.Name, meta.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	for _, name := range strangers {
		if err := accounts.Delete(ctx, name, meta.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	figures.Log(t, "1 orphan of %d look-alikes and 1 half one ended, 1 live grant left alone", forged)
}

// oldID is the id of a grant that could have ended then.
func oldID(end time.Time) string { return fmt.Sprintf("%08x", end.Unix()/600) + "abcdefghijklmnop" }

// replaceIn changes the mark whose name has a word in it.
func replaceIn(marks map[string]string, word, value string) {
	for key := range marks {
		if strings.Contains(key, word) {
			marks[key] = value
		}
	}
}

// The Role that grants hang on goes with its last role and its last grant.
func TestRoleGoesWithItsLastNeed(t *testing.T) {
	const namespace = "installed"
	ctx := t.Context()
	m := newMount(t, namespace)
	roles := func() int {
		found, err := servers.Kubernetes.RbacV1().Roles(namespace).List(ctx, meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(found.Items)
	}
	before := roles()
	m.role("first", "read", namespace+"/configmaps")
	m.role("second", "read", namespace+"/configmaps")
	if made := roles() - before; made != 1 {
		t.Errorf("two equal roles made %d Roles, want one", made)
	}
	minted := m.mint("first/CHG-1")
	for _, name := range []string{"first", "second"} {
		if _, err := m.Logical().DeleteWithContext(ctx, m.path+"/roles/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := minted.client(t).CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Errorf("the grant of a deleted role is not what it was: %v", err)
	}
	m.revoke(minted)
	m.nothingLeft(minted, namespace)
	eventually(t, "the Role is removed", 20*time.Second, func() bool {
		m.write("tidy", nil)
		return roles() == before
	})

	// Somebody who takes the Role away gets nowhere.
	eventually(t, "the sweeper is done", 20*time.Second, func() bool { return m.read("tidy-status").Data["running"] == false })
	m.role("first", "read", namespace+"/configmaps")
	found, err := servers.Kubernetes.RbacV1().Roles(namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var holder string
	for _, role := range found.Items {
		if strings.HasPrefix(role.Name, "precision-") && len(role.Labels) > 0 {
			holder = role.Name
		}
	}
	if holder == "" {
		t.Fatalf("no Role of the engine among %d", len(found.Items))
	}
	if err := servers.Kubernetes.RbacV1().Roles(namespace).Delete(ctx, holder, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	again := m.mint("first/CHG-2")
	if _, err := again.client(t).CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Errorf("a mint after the Role was taken away: %v", err)
	}
	m.revoke(again)
	figures.Log(t, "1 Role for 2 roles, removed with the last grant, made again when it was taken away")
}
