package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// witness is a fake target that tells how often it was asked before an end.
type witness struct {
	*providertest.Fake
	asked int
	hangs bool
	fails error
}

func (w *witness) Witness(ctx context.Context, _ provider.Handle) (map[string]string, error) {
	w.asked++
	if w.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return map[string]string{"live": fmt.Sprint(w.Live()), "asked": fmt.Sprint(w.asked)}, w.fails
}

func endBy(w *world, target provider.Provider, issued Issued, cause ledger.Cause) error {
	return w.End(w.t.Context(), w.storage, EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle, Cause: cause, Unasked: cause == ledger.Swept})
}

// Before each try of an end the target is asked again, since the credential may have been
// used in between. What was seen first stays known beside it, in memory and in storage.
func TestWhatWasSeenBeforeAnEnd(t *testing.T) {
	for _, cause := range []ledger.Cause{"", ledger.Swept} {
		w := newWorld(t)
		target := &witness{Fake: w.target}
		issued := w.issue(time.Hour)
		w.target.OnRevoke = func() error { return errors.New("the target is away") }
		for range 2 {
			if err := endBy(w, target, issued, cause); err == nil {
				t.Fatal("the end has not failed")
			}
		}
		want := map[string]string{"live": "1", "asked": "2", "first_live": "1", "first_asked": "1"}
		if grant, known := w.Index.Get(issued.Grant.ID); !known || !maps.Equal(grant.AtEnd, want) {
			t.Errorf("%q: memory has %v, want %v", cause, grant.AtEnd, want)
		}
		w.restart()
		w.target.OnRevoke = nil
		if err := endBy(w, target, issued, cause); err != nil {
			t.Fatal(err)
		}
		want["asked"] = "3"
		if got := w.only().AtEnd; !maps.Equal(got, want) {
			t.Errorf("%q: storage has %v, want %v", cause, got, want)
		}
	}
}

// A target that can't tell any more when an end is tried again proves only what it has
// said first.
func TestAWitnessThatFailsLater(t *testing.T) {
	w := newWorld(t)
	target := &witness{Fake: w.target}
	issued := w.issue(time.Hour)
	w.target.OnRevoke = func() error { return errors.New("the target is away") }
	if err := endBy(w, target, issued, ""); err == nil {
		t.Fatal("the end has not failed")
	}
	w.target.OnRevoke, target.fails = nil, errors.New("not allowed")
	if err := endBy(w, target, issued, ""); err != nil {
		t.Fatal(err)
	}
	if got, want := w.only().AtEnd, (map[string]string{"first_live": "1", "first_asked": "1"}); !maps.Equal(got, want) {
		t.Errorf("storage has %v, want %v", got, want)
	}
}

// An end does not depend on what can be seen, and does not wait long for it.
func TestAWitnessThatFailsOrHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, target := range []*witness{{hangs: true}, {fails: errors.New("not allowed")}} {
			w := newWorld(t)
			target.Fake = w.target
			issued, started := w.issue(time.Hour), time.Now()
			if err := endBy(w, target, issued, ""); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(started); waited > witnessWait {
				t.Errorf("waited %s", waited)
			}
			w.expect(0, ledger.Ended, ledger.LeaseRevoked)
			if seen := w.only().AtEnd; seen != nil {
				t.Errorf("the ledger has %v", seen)
			}
		}
	})
}

// Many ends do not each wait for a target that does not tell; after a while it is asked
// again.
func TestAWitnessThatHangsIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		target := &witness{Fake: w.target, hangs: true}
		var grants []Issued
		for range 4 {
			grants = append(grants, w.issue(time.Hour))
		}
		started := time.Now()
		for _, issued := range grants[:3] {
			if err := endBy(w, target, issued, ""); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(started); waited > witnessWait || target.asked != 1 {
			t.Errorf("three ends waited %s, and asked %d times", waited, target.asked)
		}
		w.clock, target.hangs = w.clock.Add(muteFor), false
		if err := endBy(w, target, grants[3], ""); err != nil {
			t.Fatal(err)
		}
		if target.asked != 2 {
			t.Errorf("after a while it has been asked %d times", target.asked)
		}
	})
}

// Of a mint that has failed there is nothing to be seen.
func TestNoWitnessOfAFailedMint(t *testing.T) {
	w := newWorld(t)
	target := &witness{Fake: w.target}
	w.target.OnMint = func() error { return errors.New("lost") }
	order := w.order(time.Hour)
	order.Provider = target
	if _, err := w.Issue(t.Context(), w.storage, order); err == nil {
		t.Fatal("the mint has not failed")
	}
	w.expect(0, ledger.Failed, ledger.MintFailed)
	if target.asked != 0 {
		t.Errorf("asked %d times", target.asked)
	}
}
