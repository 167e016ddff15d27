package sweep

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// stubborn kills, and does not let what is left be removed.
type stubborn struct {
	*providertest.Fake
	tidied *int
}

func (s stubborn) Kill(ctx context.Context, handle provider.Handle) (bool, error) {
	return true, s.Revoke(ctx, handle)
}

func (s stubborn) Tidy(context.Context, provider.Handle) error {
	*s.tidied++
	return errors.New("somebody holds it")
}

// What is left of the dead and can't be removed is asked for ever more seldom, and is
// not ended over and over as if it lived, even once its time has passed.
func TestWhatCantBeTidiedUpIsAskedForSeldom(t *testing.T) {
	w := newWorld(t)
	tidied := 0
	target := stubborn{w.target, &tidied}
	w.Open = func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) { return target, nil }
	issued := w.issue(time.Hour)
	if err := w.Grants.End(t.Context(), w.storage, lifecycle.EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle}); err != nil {
		t.Fatal(err)
	}
	if w.Grants.Index.CountUntidy() != 1 || w.target.Live() != 0 {
		t.Fatalf("%d untidy, %d live", w.Grants.Index.CountUntidy(), w.target.Live())
	}
	w.tidying.Store(true) // it is called here, and not behind a sweep
	for range 4 * 60 {
		if w.tidyUp(t.Context(), w.storage); w.sweep(t.Context(), w.storage).Failed > 0 {
			t.Fatal("what is dead was to be ended again")
		}
		w.clock = w.clock.Add(time.Minute)
	}
	if tidied < 5 || tidied > 12 {
		t.Errorf("it was tried %d times in four hours", tidied)
	}
	if status := w.Status(); status.Again != 0 {
		t.Errorf("%d grants are said to be tried again", status.Again)
	}
	w.asked.Store(true)
	before := tidied
	w.sweep(t.Context(), w.storage)
	w.tidyUp(t.Context(), w.storage)
	if tidied != before+1 {
		t.Errorf("it was tried %d times when somebody asked, want once", tidied-before)
	}
}

// While many ends are under way, nothing is tidied up.
func TestTidyingUpWaitsForManyEnds(t *testing.T) {
	w := newWorld(t)
	tidied := 0
	target := stubborn{w.target, &tidied}
	w.Open = func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) { return target, nil }
	end := func(issued lifecycle.Issued) error {
		return w.Grants.End(t.Context(), w.storage, lifecycle.EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle})
	}
	if err := end(w.issue(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var many []lifecycle.Issued
	for range crowd + 1 {
		many = append(many, w.issue(time.Hour))
	}
	hold := make(chan struct{})
	w.target.OnRevoke = func() error { <-hold; return nil }
	ended := make(chan error, len(many))
	for _, one := range many {
		go func() { ended <- end(one) }()
	}
	for w.Grants.Killing() < len(many) {
		time.Sleep(time.Millisecond)
	}
	done := make(chan struct{})
	go func() {
		w.tidyUp(t.Context(), w.storage)
		close(done)
	}()
	select {
	case <-done:
		t.Error("it was tidied up beside many ends")
	case <-time.After(3 * lookPace):
	}
	close(hold)
	for range many {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	<-done
	if tidied != 1 {
		t.Errorf("tidied up %d times, want once for the one that was dead", tidied)
	}
}

// blockedTarget disables, and says what of others stops its clean-up.
type blockedTarget struct{ stubborn }

func (b blockedTarget) Tidy(context.Context, provider.Handle) error {
	*b.tidied++
	return &provider.CleanupBlocked{Reason: "table stage belongs to mallory", Remedy: "DROP TABLE stage"}
}

// What of others stops a clean-up is in the status, with the remedy, until it is gone.
func TestStatusNamesBlockedCleanups(t *testing.T) {
	w := newWorld(t)
	tidied := 0
	var target provider.Provider = blockedTarget{stubborn{w.target, &tidied}}
	w.Open = func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) { return target, nil }
	issued := w.issue(time.Hour)
	if err := w.Grants.End(t.Context(), w.storage, lifecycle.EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle}); err != nil {
		t.Fatal(err)
	}
	w.tidyUp(t.Context(), w.storage)
	want := Blocked{Grant: issued.Grant.ID, Target: "store", Reason: "table stage belongs to mallory", Remedy: "DROP TABLE stage"}
	if blocked := w.Status().Blocked; len(blocked) != 1 || blocked[0] != want {
		t.Fatalf("got %+v, want %+v", blocked, want)
	}
	target = w.target // which has nothing left to clean up
	w.clock = w.clock.Add(time.Hour)
	w.tidyUp(t.Context(), w.storage)
	w.tidyUp(t.Context(), w.storage)
	if blocked := w.Status().Blocked; len(blocked) != 0 || w.Grants.Index.CountUntidy() != 0 {
		t.Errorf("still blocked: %+v", blocked)
	}
}
