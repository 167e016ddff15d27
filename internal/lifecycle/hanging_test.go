package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// What hangs on a base is known after a restart: what lives, and what was ended
// before its time. What somebody ends early with others is written down as such.
func TestTheLedgerTellsWhatHangsOnABase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		target := sessions{w.target, func() {}}
		issue := func(ttl time.Duration) Issued {
			t.Helper()
			order := w.order(ttl)
			order.Provider = target
			issued, err := w.Issue(t.Context(), w.storage, order)
			if err != nil {
				t.Fatal(err)
			}
			return issued
		}
		end := func(issued Issued) {
			t.Helper()
			if err := w.End(t.Context(), w.storage, EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle}); err != nil {
				t.Fatal(err)
			}
		}
		expired := issue(time.Minute)
		w.clock = w.clock.Add(2 * time.Minute)
		end(expired) // by itself
		ended, early, live := issue(time.Hour), issue(time.Hour), issue(time.Hour)
		end(ended)

		w.restart()
		if err := w.Ledger().EndEarly(t.Context(), "role/base", nil); err == nil {
			t.Error("the ledger takes writes before it is known where it is")
		}
		w.Start(w.storage, writes)
		picked := func(handle provider.Handle) bool {
			return handle["fake_grant"] == early.Grant.ID || handle["fake_grant"] == ended.Grant.ID
		}
		if err := w.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.Ledger().EndEarly(t.Context(), "role/base", picked); err != nil {
			t.Fatal(err)
		}
		hanging, err := w.Ledger().OnBase(t.Context(), "role/base")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, one := range hanging {
			got[one.Handle["fake_grant"]] = one.Over
		}
		for id, over := range map[string]bool{expired.Grant.ID: false, ended.Grant.ID: true, early.Grant.ID: true, live.Grant.ID: false} {
			if said, known := got[id]; !known || said != over {
				t.Errorf("grant %s is over: %v (known: %v), want %v", id, said, known, over)
			}
		}
		for id, want := range map[string]ledger.Cause{early.Grant.ID: ledger.Widened, ended.Grant.ID: ledger.LeaseRevoked} {
			if grant, err := ledger.Get(t.Context(), w.storage, id); err != nil || grant.Ending != want {
				t.Errorf("grant %s: the ledger says %q, %v, want %q", id, grant.Ending, err, want)
			}
		}
		if unended := w.Index.Unended(); len(unended) != 1 || unended[0].ID != early.Grant.ID {
			t.Errorf("%v are still to be ended, want %s", unended, early.Grant.ID)
		}

		w.storage.FailPut(true)
		if err := w.Ledger().EndEarly(t.Context(), "role/base", nil); err == nil {
			t.Error("a ledger that takes no writes says that it does")
		}
		w.storage.FailPut(false)
	})
}

// keeper is told of what is not minted after all.
type keeper struct {
	sessions
	forgotten []provider.Handle
}

func (k *keeper) Remember(provider.Ledger) {}

func (k *keeper) Keep(context.Context, string) error { return nil }

func (k *keeper) Forget(handle provider.Handle) { k.forgotten = append(k.forgotten, handle) }

func TestANameOfNothingIsForgotten(t *testing.T) {
	w := newWorld(t)
	target := &keeper{sessions: sessions{w.target, func() {}}}
	order := w.order(time.Hour)
	order.Provider = target
	if _, err := w.Issue(t.Context(), w.storage, order); err != nil || len(target.forgotten) != 0 {
		t.Errorf("%v is forgotten of a mint, %v", target.forgotten, err)
	}
	w.storage.FailPut(true)
	if _, err := w.Issue(t.Context(), w.storage, order); err == nil || len(target.forgotten) != 1 {
		t.Errorf("%v is forgotten of a mint that the ledger did not take, %v", target.forgotten, err)
	}
	w.storage.FailPut(false)
}

// refuses is a target that makes nothing.
type refuses struct{ *keeper }

func (r refuses) Mint(context.Context, provider.Handle, provider.Policy, time.Time) (provider.Credential, error) {
	return provider.Credential{}, &provider.NotMade{Reason: errors.New("refused")}
}

// What was never made is not ended: not when its mint fails, and not after a
// restart, when all that was ended before its time is.
func TestNothingIsCommittedForWhatWasNeverMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		commits := 0
		target := refuses{&keeper{sessions: sessions{w.target, func() { commits++ }}}}
		order := w.order(time.Hour)
		order.Provider = target
		if _, err := w.Issue(t.Context(), w.storage, order); !errors.As(err, new(*provider.NotMade)) {
			t.Errorf("got %v", err)
		}
		if commits != 0 || len(target.forgotten) != 1 {
			t.Errorf("%d commits, forgotten: %v", commits, target.forgotten)
		}
		w.expect(0, ledger.Failed, ledger.MintFailed)
		w.restart()
		w.Start(w.storage, writes)
		hanging, err := w.Ledger().OnBase(t.Context(), "role/base")
		if err != nil || len(hanging) != 0 {
			t.Errorf("after a restart %v hang on the base, %v", hanging, err)
		}
	})
}
