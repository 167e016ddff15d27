package chaos

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// faulty is one mint, or one revoke, of which a call meets a fault.
type faulty struct {
	cloud   bool
	revoke  bool // else the mint
	call    int
	fault   providertest.Fault
	onwards bool // each call from there on does, until the request is answered

	role   string
	proxy  *providertest.Faults
	client *api.Client
}

func (f faulty) String() string {
	return fmt.Sprintf("%s: %s: call %d %s%s", map[bool]string{false: "minio", true: "aws"}[f.cloud],
		map[bool]string{false: "mint", true: "revoke"}[f.revoke], f.call, f.fault, map[bool]string{true: ", and all after it"}[f.onwards])
}

// Each call of a mint and of a revoke in turn meets each fault. Then Vault and the
// sweeper do their work; at the end nothing lives, and the ledger says why.
func TestFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Moto: true})
	w.mount(w.Vault, mounted, "30s")
	var cases []faulty
	for _, cloud := range []bool{false, true} {
		minting, revoking := w.countCalls(cloud)
		for call := range max(minting, revoking) {
			for _, revoke := range []bool{false, true} {
				if call >= map[bool]int{false: minting, true: revoking}[revoke] {
					continue
				}
				for _, fault := range []providertest.Fault{providertest.Cut, providertest.Fail, providertest.Lose, providertest.Late, providertest.Twice, providertest.Mute, providertest.Hang} {
					cases = append(cases, faulty{cloud: cloud, revoke: revoke, call: call, fault: fault})
				}
				for _, fault := range []providertest.Fault{providertest.Cut, providertest.Fail, providertest.Lose} {
					cases = append(cases, faulty{cloud: cloud, revoke: revoke, call: call, fault: fault, onwards: true})
				}
			}
		}
	}
	const atOnce = 24 // some of them hang for half a minute
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range cases {
		cases[i].role = fmt.Sprintf("faulty-%d", i)
		cases[i].proxy = w.faultyTarget(cases[i].role, cases[i].cloud)
		cases[i].client = clientOf(t, w.Vault)
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			w.strike(cases[i])
		})
	}
	all.Wait()
	w.eventually("nothing is left", func() error { return w.left(w.Vault, mounted) })

	grants, err := w.ledger(w.Vault, mounted)
	if err != nil {
		t.Fatal(err)
	}
	byRole := map[string][]ledger.Grant{}
	for _, grant := range grants {
		byRole[grant.Role] = append(byRole[grant.Role], grant)
	}
	for _, struck := range cases {
		if known := byRole[struck.role]; len(known) == 0 {
			t.Errorf("%s: the ledger knows no grant", struck)
		}
		for _, grant := range byRole[struck.role] {
			if grant.Ending == "" || grant.EndedAt.IsZero() {
				t.Errorf("%s: the ledger does not say how grant %s ended: %+v", struck, grant.ID, grant)
			}
		}
	}
	t.Logf("faults: %d; in the ledger: %s; left behind: 0", len(cases), endings(grants))
}

// faultyTarget makes a target with a proxy of its own, and a role on it of the
// same name.
func (w *world) faultyTarget(name string, cloud bool) *providertest.Faults {
	w.t.Helper()
	var proxy *providertest.Faults
	if cloud {
		proxy = providertest.NewFaults(w.t, w.Cloud.API)
		w.write(w.Vault, mounted+"/config/"+name, w.cloudConfig(proxy.URL))
	} else {
		proxy = providertest.NewFaults(w.t, w.Store.Endpoint)
		proxy.Watch(w.opened)
		w.write(w.Vault, mounted+"/config/"+name, w.storeConfig(proxy.URL))
	}
	w.write(w.Vault, mounted+"/roles/"+name, map[string]any{"target": name, "action": putObject, "resource": uploads, "ttl": "30s"})
	return proxy
}

// countCalls counts the calls of a mint and of a revoke without faults.
func (w *world) countCalls(cloud bool) (minting, revoking int) {
	w.t.Helper()
	name := map[bool]string{false: "counted-store", true: "counted-cloud"}[cloud]
	proxy := w.faultyTarget(name, cloud)
	proxy.Set(providertest.None, 0, 0)
	minted := w.mint(w.Vault.Client, mounted+"/creds/"+name)
	minting = proxy.Calls()
	if err := revoke(w.t.Context(), w.Vault.Client, minted.LeaseID); err != nil {
		w.t.Fatal(err)
	}
	if revoking = proxy.Calls() - minting; minting == 0 || revoking == 0 {
		w.t.Fatalf("a mint makes %d calls and a revoke %d", minting, revoking)
	}
	return minting, revoking
}

// strike mints and revokes, and lets the fault happen in one of the two. Whether
// that fails is up to the fault; that a revoke which says that all is well has
// killed is not.
func (w *world) strike(f faulty) {
	ctx := w.t.Context()
	set := f.proxy.SetOnce
	if f.onwards {
		set = f.proxy.SetFrom
	}
	if !f.revoke {
		set(f.fault, f.call)
	}
	minted, err := mint(ctx, f.client, mounted+"/creds/"+f.role+"/T-1")
	if f.revoke {
		if err != nil {
			w.t.Errorf("%s: minting: %v", f, err)
			return
		}
		set(f.fault, f.call)
		err = revoke(ctx, f.client, minted.LeaseID)
	}
	if f.proxy.Struck() == 0 {
		w.t.Errorf("%s: the fault struck nothing", f)
	}
	f.proxy.Heal()
	switch {
	case err != nil && strings.Contains(err.Error(), minted.key.Secret) && minted.key.Secret != "":
		w.t.Errorf("%s: the error holds the secret", f)
	case err != nil:
	case f.revoke:
		if w.use(ctx, minted) == nil {
			w.t.Errorf("%s: Vault says that it is revoked, and the credential works", f)
		}
	default:
		if err := w.use(ctx, minted); err != nil {
			w.t.Errorf("%s: what was minted does not work: %v", f, err)
		}
		if err := revoke(ctx, f.client, minted.LeaseID); err != nil {
			w.t.Errorf("%s: revoking afterwards: %v", f, err)
		}
	}
}
