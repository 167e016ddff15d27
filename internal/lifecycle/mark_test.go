package lifecycle

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// slowMark is storage that takes its time with the mark of an end that was requested.
type slowMark struct {
	logical.Storage
	marking chan struct{}
	hold    chan struct{}
}

func (s slowMark) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if strings.Contains(string(entry.Value), string(ledger.Requested)) && strings.Contains(string(entry.Value), `"state":"ending"`) {
		close(s.marking)
		<-s.hold
	}
	return s.Storage.Put(ctx, entry)
}

// A grant that its lease ends while it is marked as ending with others stays ended.
func TestAMarkRaisesNothingFromTheDead(t *testing.T) {
	w := newWorld(t)
	order := w.order(time.Hour)
	order.Provider = sessions{w.target, func() {}}
	issued, err := w.Issue(t.Context(), w.storage, order)
	if err != nil {
		t.Fatal(err)
	}
	slow := slowMark{w.storage, make(chan struct{}), make(chan struct{})}
	marked, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		marked <- w.BeginEnd(t.Context(), slow, []ledger.Grant{issued.Grant}, EndOrder{Cause: ledger.Requested, Reason: "a drill"})
	}()
	<-slow.marking
	go func() {
		ended <- w.End(t.Context(), w.storage, EndOrder{Provider: order.Provider, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle})
	}()
	select { // it must not finish before the mark, which would then come last
	case err := <-ended:
		ended <- err
	case <-time.After(100 * time.Millisecond):
	}
	close(slow.hold)
	for _, outcome := range []chan error{marked, ended} {
		if err := <-outcome; err != nil {
			t.Fatal(err)
		}
	}
	if grant, _ := w.Index.Get(issued.Grant.ID); grant.State != ledger.Ended || len(w.Index.Unended()) != 0 {
		t.Errorf("the grant is %q in memory, want ended", grant.State)
	}
	if grant := w.only(); grant.State != ledger.Ended || grant.EndedAt.IsZero() {
		t.Errorf("the grant is %q in storage, want ended", grant.State)
	}
}

// pressed kills first, and leaves the rest to be tidied up.
type pressed struct {
	provider.Provider
	killed *int
}

func (p pressed) Kill(ctx context.Context, handle provider.Handle) (bool, error) {
	*p.killed++
	return true, p.Revoke(ctx, handle)
}

func (p pressed) Tidy(context.Context, provider.Handle) error { return nil }

// A mint whose grant was killed meanwhile may have made what lives: tidying up does not
// end that.
func TestAMintThatIsOvertakenByAKillIsKilled(t *testing.T) {
	w := newWorld(t)
	killed := 0
	order := w.order(time.Hour)
	order.Provider = pressed{w.target, &killed}
	w.target.OnMint = func() error {
		grant := w.only()
		// The target has not made it yet, for all that the end can see.
		if err := w.End(t.Context(), w.storage, EndOrder{Provider: order.Provider, ID: grant.ID, Target: "store", Handle: grant.Handle}); err != nil {
			t.Error(err)
		}
		w.target.OnMint = nil
		_, err := w.target.Mint(t.Context(), grant.Handle, "", grant.ExpiresAt)
		return err
	}
	if _, err := w.Issue(t.Context(), w.storage, order); err == nil {
		t.Error("a credential was handed out that was ended before")
	}
	if w.target.Live() != 0 || killed != 2 {
		t.Errorf("%d live after %d kills", w.target.Live(), killed)
	}
}

// What has ended while it was to be given up for lost has ended.
func TestWhatHasEndedIsNotLost(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ending, hold := make(chan struct{}), make(chan struct{})
	w.target.OnRevoke = func() error { close(ending); <-hold; return nil }
	done := make(chan error, 1)
	go func() { done <- w.end(issued) }()
	<-ending
	lost := make(chan bool, 1)
	go func() {
		gone, err := w.Lose(t.Context(), w.storage, issued.Grant.ID, "store")
		if err != nil {
			t.Error(err)
		}
		lost <- gone
	}()
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if <-lost {
		t.Error("a grant that has ended is called lost")
	}
	w.expect(0, ledger.Ended, ledger.LeaseRevoked)
}

// Neither a renewal nor anything else brings a grant back that is to end.
func TestAMarkOutlastsARenewal(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.BeginEnd(t.Context(), w.storage, []ledger.Grant{issued.Grant}, EndOrder{Cause: ledger.Requested}); err != nil {
		t.Fatal(err)
	}
	renewed := issued.Grant // as a renewal that has begun before has it
	renewed.ExpiresAt = renewed.ExpiresAt.Add(time.Hour)
	if err := w.writePending(t.Context(), w.storage, renewed); err == nil {
		t.Error("a grant that is to end was made to live on")
	}
	w.expect(1, ledger.Ending, ledger.Requested)
}

// fillable is storage that takes no writes while full is true.
type fillable struct {
	logical.Storage
	full *atomic.Bool
}

func (s fillable) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.full.Load() {
		return errors.New("no space left on device")
	}
	return s.Storage.Put(ctx, entry)
}

// A credential that is disabled, and whose record is in memory only, keeps its lease: a crash would forget it.
func TestADisabledGrantThatIsNotRecordedKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		var full atomic.Bool
		killed := 0
		storage := fillable{w.storage, &full}
		w.Start(storage, func() (bool, error) { return true, nil })
		if err := w.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		order := w.order(time.Hour)
		order.Provider = pressed{w.target, &killed}
		issued, err := w.Issue(t.Context(), storage, order)
		if err != nil {
			t.Fatal(err)
		}
		end := func() error {
			return w.End(t.Context(), storage, EndOrder{Provider: order.Provider, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle})
		}
		full.Store(true)
		for range 2 {
			if err := end(); !errors.Is(err, ErrUnrecorded) {
				t.Errorf("got %v, want ErrUnrecorded", err)
			}
		}
		synctest.Wait()
		full.Store(false)
		time.Sleep(2 * lastHeldPause)
		if err := end(); err != nil || killed != 1 || w.only().State != ledger.Dead {
			t.Errorf("once storage takes writes: %v after %d kills, recorded as %q", err, killed, w.only().State)
		}
	})
}
