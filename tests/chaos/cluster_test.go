package chaos

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The leader steps down, nodes die, and come back: leases and ledger go on on
// whichever node leads, and each credential is ended once. It is not run beside
// the others, since it looks at how long something takes.
func TestCluster(t *testing.T) {
	w := newWorld(t, lab.Options{Moto: true, Nodes: 3})
	one, err := lab.Leader(t.Context(), w.Nodes...)
	if err != nil {
		t.Fatal(err)
	}
	w.mount(one, mounted, "30m")
	standbys := slices.DeleteFunc(slices.Clone(w.Nodes), func(node *lab.Vault) bool { return node == one })

	// Through a standby, which forwards.
	var minted []credential
	mintSome := func(through *lab.Vault) {
		t.Helper()
		for i := range 5 {
			minted = append(minted,
				w.mint(through.Client, fmt.Sprintf("%s/creds/%s/T-%d", mounted, onStore, i)),
				w.mint(through.Client, fmt.Sprintf("%s/creds/%s/T-%d", mounted, onCloud, i)))
		}
	}
	mintSome(standbys[0])
	early := len(minted)

	two := w.stepDown(one)
	for _, credential := range minted {
		w.allowed("a credential of the former leader", credential)
		if _, err := two.Client.Sys().LookupWithContext(t.Context(), credential.LeaseID); err != nil {
			t.Errorf("the new leader does not know lease %s: %v", credential.LeaseID, err)
		}
	}
	// What the first leader has had in its caches is changed.
	through := providertest.NewFaults(t, w.Cloud.API)
	w.write(two, mounted+"/config/prod", w.cloudConfig(through.URL))
	for _, role := range []string{onStore, onCloud} {
		w.write(two, mounted+"/roles/"+role, map[string]any{"resource": "arn:aws:s3:::releases/new/*"})
	}

	at := slices.IndexFunc(w.Nodes, func(node *lab.Vault) bool { return node != one && node != two })
	three := w.Nodes[at]
	three.Kill()
	w.allowed("a credential of before a node died", w.mintFor(two, onStore, "new/1.tgz", &minted))

	if next := w.stepDown(two); next != one {
		t.Fatal("a node leads that is dead, or has just stepped down")
	}
	// The first leader again: what it knew is forgotten, what it did not is there.
	through.Set(providertest.None, 0, 0)
	w.allowed("a session of the changed role", w.mintFor(one, onStore, "new/1.tgz", &minted))
	w.allowed("a user of the changed role", w.mintFor(one, onCloud, "new/1.tgz", &minted))
	if through.Calls() == 0 {
		t.Error("the first leader uses the target as it was before it was changed")
	}
	// A node's ledger is read each time that it comes to lead.
	w.eventually("the index is rebuilt", func() error {
		// What has been minted there since may count already.
		if live := w.rebuilt(one); len(live) != 2 || live[1] < early+1 || live[1] > early+3 {
			return fmt.Errorf("the first leader read %v grants into memory, want %d the second time", live, early+1)
		}
		return nil
	})

	if err := three.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	one.Kill()
	last, err := lab.Leader(t.Context(), two, three)
	if err != nil {
		t.Fatal(err)
	}
	other := map[*lab.Vault]*lab.Vault{two: three, three: two}[last]
	for _, credential := range minted {
		// The other node may not forward to the new leader yet.
		w.eventually("a lease is revoked", func() error { return revoke(t.Context(), other.Client, credential.LeaseID) })
	}
	for _, credential := range minted {
		w.denied("a revoked credential", credential)
		if !credential.cloud {
			continue
		}
		if deleted := actions(w.Cloud.Calls(credential.grant), "DeleteUser"); deleted != 1 {
			t.Errorf("the user of grant %s was deleted %d times, want once", credential.grant, deleted)
		}
	}
	if err := one.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is left", func() error { return w.left(other, mounted) })
	grants, err := w.ledger(other, mounted)
	if err != nil {
		t.Fatal(err)
	}
	figures.Log(t, "2 leaders stepped down, 2 nodes killed; grants minted: %d, in the ledger: %s, left behind: 0", len(minted), endings(grants))
	w.stepsDownWhileATargetHangs()
}

// mintFor mints through a node, and returns the credential so that it uses the
// object that is named.
func (w *world) mintFor(node *lab.Vault, role, object string, minted *[]credential) credential {
	w.t.Helper()
	credential := w.mint(node.Client, mounted+"/creds/"+role+"/T-9")
	credential.object = object
	*minted = append(*minted, credential)
	return credential
}

// stepDown makes a leader step down, and returns the next.
func (w *world) stepDown(leader *lab.Vault) *lab.Vault {
	w.t.Helper()
	if err := leader.StepDown(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	others := slices.DeleteFunc(slices.Clone(w.Nodes), func(node *lab.Vault) bool { return node == leader })
	next, err := lab.Leader(w.t.Context(), others...)
	if err != nil {
		w.t.Fatal(err)
	}
	return next
}

var inMemory = regexp.MustCompile(`the ledger is in memory: .*live=(\d+)`)

// rebuilt says how many live grants a node has read into memory each time that
// it did.
func (w *world) rebuilt(node *lab.Vault) []int {
	w.t.Helper()
	log, err := os.ReadFile(node.Log)
	if err != nil {
		w.t.Fatal(err)
	}
	var live []int
	for _, match := range inMemory.FindAllSubmatch(log, -1) {
		count, err := strconv.Atoi(string(match[1]))
		if err != nil {
			w.t.Fatal(err)
		}
		live = append(live, count)
	}
	return live
}

func actions(calls []url.Values, action string) int {
	count := 0
	for _, call := range calls {
		if call.Get("Action") == action {
			count++
		}
	}
	return count
}

// A target that takes calls and never answers does not hold up a step-down for
// longer than a revoke waits, 20 s; Vault itself would wait 90 s for it.
func (w *world) stepsDownWhileATargetHangs() {
	const between = 60 * time.Second // the two, and with time enough for a busy machine
	t := w.t
	leader, err := lab.Leader(t.Context(), w.Nodes...)
	if err != nil {
		t.Fatal(err)
	}
	hanging := providertest.NewFaults(t, w.Store.Endpoint)
	w.write(leader, mounted+"/config/hanging", w.storeConfig(hanging.URL))
	w.write(leader, mounted+"/roles/hanging", map[string]any{"target": "hanging", "action": putObject, "resource": uploads, "ttl": "30m"})
	var minted []credential
	for i := range 8 {
		minted = append(minted, w.mint(leader.Client, fmt.Sprintf("%s/creds/hanging/T-%d", mounted, i)))
	}
	hanging.SetFrom(providertest.Hang, 0)
	if err := leader.Client.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: mounted + "/creds/hanging", Prefix: true}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the revokes hang", func() error {
		if struck := hanging.Struck(); struck < len(minted) {
			return fmt.Errorf("%d do", struck)
		}
		return nil
	})
	started := time.Now()
	next := w.stepDown(leader)
	other := w.mint(next.Client, mounted+"/creds/"+onStore+"/T-1") // on a target that does not hang
	took := time.Since(started)
	if took > between {
		t.Errorf("the step-down took %s while a target hung: the revokes held it up", took)
	}
	hanging.Heal()
	if err := revoke(t.Context(), next.Client, other.LeaseID); err != nil {
		t.Error(err)
	}
	w.eventually("the revokes that hung come through", func() error { return w.left(next, mounted) })
	for _, credential := range minted {
		w.denied("a credential whose revoke hung", credential)
	}
	figures.Log(t, "1 leader stepped down while %d revokes hung; took %s; left behind: 0", len(minted), took.Truncate(time.Second))
}
