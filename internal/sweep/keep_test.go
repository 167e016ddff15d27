package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// keeper is told which bases to look after.
type keeper struct {
	*providertest.Fake
	hangs bool
	mu    sync.Mutex
	kept  []string
}

func (k *keeper) Base(provider.Handle) string { return "" }

func (k *keeper) Remember(provider.Ledger) {}

func (k *keeper) Forget(provider.Handle) {}

func (k *keeper) Keep(ctx context.Context, base string) error {
	if k.hangs {
		<-ctx.Done()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, base)
	return errors.New("AWS is away")
}

// Each sweep has the bases looked after that grants hang on, whatever became of
// the others, and until they are remembered no longer.
func TestBasesAreLookedAfter(t *testing.T) {
	w := newWorld(t)
	target := &keeper{Fake: w.target}
	gone := errors.New("no such target")
	w.Open = func(_ context.Context, _ logical.Storage, grant ledger.Grant) (provider.Provider, error) {
		if grant.Target == "gone" {
			return nil, gone
		}
		return target, nil
	}
	end := w.clock.Add(10 * time.Minute)
	for _, on := range []struct{ base, target string }{{"a", "prod"}, {"a", "gone"}, {"a", "prod"}, {"b", "prod"}, {"c", "gone"}, {"", "prod"}} {
		grant := ledger.Grant{ID: ledger.NewID(end), State: ledger.Ended, Base: on.base, Target: on.target, ExpiresAt: end, EndedAt: w.clock}
		w.Grants.Index.Update(grant, w.clock)
	}
	for _, test := range []struct {
		after time.Duration
		want  []string
	}{{0, []string{"a", "b"}}, {10*time.Minute + ledger.BaseKept - 1, []string{"a", "b"}}, {10*time.Minute + ledger.BaseKept, nil}} {
		w.clock, target.kept = end.Add(-10*time.Minute).Add(test.after), nil
		w.sweep(t.Context(), w.storage)
		slices.Sort(target.kept)
		if !slices.Equal(target.kept, test.want) {
			t.Errorf("after %s the bases %v are looked after, want %v", test.after, target.kept, test.want)
		}
	}
}

// A target that hangs holds a sweep up once, however many bases it has.
func TestBasesOfATargetThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		silent, other := &keeper{Fake: w.target, hangs: true}, &keeper{Fake: w.target}
		w.Open = func(_ context.Context, _ logical.Storage, grant ledger.Grant) (provider.Provider, error) {
			if grant.Target == "silent" {
				return silent, nil
			}
			return other, nil
		}
		const bases = 5 * atOnce
		end := w.clock.Add(time.Hour)
		for i := range bases {
			for _, target := range []string{"silent", "other"} {
				grant := ledger.Grant{ID: ledger.NewID(end), State: ledger.Pending, Base: fmt.Sprint(target, i), Target: target, ExpiresAt: end}
				w.Grants.Index.Update(grant, w.clock)
			}
		}
		started := time.Now() // of the bubble's clock
		w.sweep(t.Context(), w.storage)
		if took := time.Since(started); took > keepLimit {
			t.Errorf("the sweep was held up for %s", took)
		}
		if len(silent.kept) > atOnce || len(other.kept) != bases {
			t.Errorf("asked the silent target %d times, and looked after %d of the other's %d bases", len(silent.kept), len(other.kept), bases)
		}
	})
}

// hanging is a target that does not answer while a base is looked after.
type hanging struct {
	*keeper
	until    <-chan struct{}
	timedOut bool
}

func (h *hanging) Keep(ctx context.Context, _ string) error {
	select {
	case <-h.until:
		return nil
	case <-ctx.Done():
		h.timedOut = true
		return ctx.Err()
	}
}

// Others' grants are ended meanwhile.
func TestABaseThatHangsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ended := make(chan struct{})
		w.target.OnRevoke = func() error { close(ended); return nil }
		base := &hanging{keeper: &keeper{Fake: w.target}, until: ended}
		w.Open = func(_ context.Context, _ logical.Storage, grant ledger.Grant) (provider.Provider, error) {
			if grant.Base != "" {
				return base, nil
			}
			return w.target, nil
		}
		later := w.clock.Add(time.Hour)
		w.Grants.Index.Update(ledger.Grant{ID: ledger.NewID(later), State: ledger.Ended, Base: "a", Target: "prod", ExpiresAt: later, EndedAt: w.clock}, w.clock)
		overdue := ledger.Grant{ID: ledger.NewID(w.clock), State: ledger.Pending, Target: "other", ExpiresAt: w.clock.Add(-time.Hour), Handle: provider.Handle{"fake_grant": "x"}}
		if err := ledger.Put(t.Context(), w.storage, overdue); err != nil {
			t.Fatal(err)
		}
		w.Grants.Index.Update(overdue, w.clock)
		if result := w.sweep(t.Context(), w.storage); result.Ended != 1 || base.timedOut {
			t.Errorf("%+v, and the base was given up first: %v", result, base.timedOut)
		}
	})
}
