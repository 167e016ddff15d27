package sweep

import (
	"fmt"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// remember puts so many live grants into storage and into memory.
func (w *world) remember(count int) {
	w.t.Helper()
	for i := range count {
		expiresAt := w.clock.Add(time.Hour + time.Duration(i%3000)*time.Second)
		if err := ledger.Put(w.t.Context(), w.storage, ledger.Grant{
			ID: ledger.NewID(expiresAt), State: ledger.Pending, Target: "store", Role: "upload", Task: fmt.Sprintf("T-%d", i),
			Handle: provider.Handle{"fake_grant": fmt.Sprint(i)}, IssuedAt: w.clock, ExpiresAt: expiresAt,
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.restart()
}

// A sweep costs what is due: with thousands of live grants, and none that is, it
// does not touch storage at all.
func TestASweepWithNothingDueLeavesStorageAlone(t *testing.T) {
	w := newWorld(t)
	w.remember(5000)
	w.want(Result{}) // looks for what is to be packed and retired
	for range 5 {
		w.clock = w.clock.Add(time.Minute)
		before := w.storage.all()
		w.want(Result{})
		if done := w.storage.all() - before; done != 0 {
			t.Errorf("a sweep with nothing due makes %d operations on storage", done)
		}
	}
}
