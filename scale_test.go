package precision

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// remember writes so many live grants to storage, that end in the next hour.
func (e *engine) remember(t testing.TB, count int) {
	t.Helper()
	now := time.Now()
	for i := range count {
		expiresAt := now.Add(10*time.Minute + time.Duration(i%3000)*time.Second).Truncate(time.Second).UTC()
		id := ledger.NewID(expiresAt)
		if err := ledger.Put(t.Context(), e.storage, ledger.Grant{
			ID: id, State: ledger.Pending, Target: "db", Role: fmt.Sprintf("role-%d", i%100), Task: fmt.Sprintf("T-%d", i),
			Action: "reset", Resource: "one", EntityID: fmt.Sprintf("entity-%d", i%1000), DisplayName: "token-ci",
			Handle:   provider.Handle{"fake_grant": id},
			IssuedAt: now.UTC(), ExpiresAt: expiresAt,
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// heap is what is in use, in MB.
func heap() float64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc) / (1 << 20)
}

// After a restart the ledger is read behind requests: mints go on meanwhile, and
// in the end everything is known, once.
func TestManyLiveGrantsAfterARestart(t *testing.T) {
	const many = 100_000
	e := newEngine(t)
	e.remember(t, many)
	before := heap()
	e.backend = e.open(e.System())
	started := time.Now()
	e.initialize()
	meanwhile := 0
	for !e.grants.Ready() {
		e.do(logical.ReadOperation, "creds/reset/T-1", nil)
		if !e.grants.Ready() {
			meanwhile++
		}
	}
	took := time.Since(started)
	figures.Log(t, "%d live grants were in memory %s after a restart, in %.0f MB; %d mints meanwhile; storage is in memory", many, took.Round(time.Millisecond), heap()-before, meanwhile)
	if meanwhile == 0 {
		t.Error("nothing was minted while the ledger was read")
	}
	live := e.grants.Index.Count(ledger.Query{}, time.Now())
	if minted := e.target.Live(); live != many+minted {
		t.Errorf("%d grants live, want %d and the %d that were minted meanwhile", live, many, minted)
	}
}

// What it takes to read 100,000 live grants into memory: the time of one
// operation, and the heap that they hold then. Storage is in memory, so that the
// round trips to Vault are to be added.
func BenchmarkRebuild(b *testing.B) {
	e := newEngine(b)
	e.remember(b, 100_000)
	var held float64
	for b.Loop() {
		b.StopTimer()
		e.backend = e.open(e.System())
		before := heap()
		b.StartTimer()
		if err := e.grants.Index.Rebuild(b.Context(), e.storage, e.Logger(), time.Now); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		held = heap() - before
		b.StartTimer()
	}
	b.ReportMetric(held, "MB-held")
}
