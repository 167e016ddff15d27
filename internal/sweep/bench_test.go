package sweep

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// BenchmarkSweep is what a sweep costs that has so many to end, beside so many
// grants that live: it must grow with the former alone.
func BenchmarkSweep(b *testing.B) {
	for _, live := range []int{10_000, 100_000} {
		for _, expired := range []int{0, 10, 100, 1000} {
			b.Run(fmt.Sprintf("live=%d/expired=%d", live, expired), func(b *testing.B) { benchmarkSweep(b, live, expired) })
		}
	}
}

func benchmarkSweep(b *testing.B, live, expired int) {
	target, storage := &providertest.Fake{}, &logical.InmemStorage{}
	clock := time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)
	sweeper := &Sweeper{
		Grants:  lifecycle.New(hclog.NewNullLogger(), func() time.Time { return clock }),
		Open:    func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) { return target, nil },
		Targets: func(context.Context, logical.Storage) ([]Target, error) { return nil, nil },
		Settings: func(context.Context, logical.Storage) (Settings, error) {
			return Settings{OrphanInterval: time.Hour}, nil
		},
		Log: hclog.NewNullLogger(),
	}
	defer sweeper.Grants.Close()
	if err := sweeper.Grants.Index.Rebuild(b.Context(), storage, hclog.NewNullLogger(), sweeper.Grants.Now); err != nil {
		b.Fatal(err)
	}
	admit := func(life time.Duration) {
		expiresAt := clock.Add(life)
		id := ledger.NewID(expiresAt)
		grant := ledger.Grant{ID: id, State: ledger.Pending, Target: "store", Role: "upload", Handle: provider.Handle{"fake_grant": id}, IssuedAt: clock, ExpiresAt: expiresAt}
		if err := sweeper.Grants.Index.Admit(grant, clock, nil); err != nil {
			b.Fatal(err)
		}
	}
	for i := range live {
		admit(100_000*time.Hour + time.Duration(i)*time.Second)
	}
	sweeper.sweep(b.Context(), storage) // lists what could be packed, once
	sweeper.due.pack, sweeper.due.orphans = clock.Add(1e6*time.Hour), clock.Add(1e6*time.Hour)
	for b.Loop() {
		b.StopTimer()
		for range expired {
			admit(time.Second)
		}
		clock = clock.Add(time.Second + ledger.SweepDelay)
		b.StartTimer()
		if result := sweeper.sweep(b.Context(), storage); result.Ended != expired {
			b.Fatalf("a sweep did %+v", result)
		}
	}
}
