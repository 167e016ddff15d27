package chaos

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The plugin's process is killed at random moments while callers mint and
// revoke. Vault starts another, and nothing outlives its lease for long.
func TestPluginKilledUnderLoad(t *testing.T) {
	t.Parallel()
	killedUnderLoad(t, 150, func(w *world) {
		for _, pid := range w.plugins() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone by itself
		}
	})
}

// The same with Vault itself, whose plugin finds out a moment later.
func TestVaultKilledUnderLoad(t *testing.T) {
	t.Parallel()
	killedUnderLoad(t, 50, func(w *world) {
		w.Vault.Kill()
		if err := w.Vault.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func killedUnderLoad(t *testing.T, moments int, kill func(*world)) {
	const (
		callers = 32
		longest = 300 // ms between progress and the next kill
		// Vault tries a revocation six times in some ten minutes, and then gives the lease up.
		// A busy machine kills less often than moments says, and five times less at most.
		enough = 4 * time.Minute
	)
	w := newWorld(t, lab.Options{Moto: true})
	w.mount(w.Vault, mounted, "20s")
	random := rand.New(rand.NewPCG(seed, uint64(moments)))
	load := w.start(w.Vault, mounted, callers)
	killed := 0
	for began := time.Now(); killed < moments && (killed < moments/5 || time.Since(began) < enough); killed++ {
		load.progress(3)
		time.Sleep(time.Duration(random.IntN(longest)) * time.Millisecond)
		kill(w)
	}
	load.progress(callers)
	load.stop()
	w.eventually("nothing is left", func() error { return w.left(w.Vault, mounted) })
	grants, err := w.ledger(w.Vault, mounted)
	if err != nil {
		t.Fatal(err)
	}
	figures.Log(t, "moments killed: %d; grants minted: %d, revoked: %d, requests refused meanwhile: %d; in the ledger: %s; left behind: 0",
		killed, load.minted.Load(), load.revoked.Load(), load.failed.Load(), endings(grants))
}

// plugins lists the plugin's processes.
func (w *world) plugins() []int {
	w.t.Helper()
	pids, err := w.Vault.PluginPIDs(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return pids
}
