package lifecycle

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// limited is an order of a role of which so many grants may live.
func (w *world) limited(most int, replaces bool) Order {
	order := w.order(time.Hour)
	of := ledger.Query{Role: order.Role}
	order.Limit = func(counts ledger.Counts) error {
		if counts.Live(of) >= most {
			return &FullError{Of: of, Reason: invalid.Deny("full", "wait")}
		}
		return nil
	}
	if replaces {
		order.Replace = func(ctx context.Context, grant ledger.Grant) error {
			return w.End(ctx, w.storage, EndOrder{Provider: w.target, ID: grant.ID, Target: grant.Target, Handle: grant.Handle, Cause: ledger.Replaced, Unasked: true})
		}
	}
	return order
}

// ready reads the ledger into memory.
func (w *world) ready() {
	w.t.Helper()
	done := make(chan struct{})
	w.Rebuilt = func(logical.Storage) { close(done) }
	w.Start(w.storage, writes)
	<-done // from now on only the test looks at the clock
}

const callers = 64

// However many ask at once, no more live at the target than may, not for a moment.
func TestLimitUnderManyCallers(t *testing.T) {
	for _, most := range []int{1, 5} {
		for _, replaces := range []bool{false, true} {
			w := newWorld(t)
			w.ready()
			var highest atomic.Int64
			w.target.OnMint = func() error {
				time.Sleep(time.Millisecond)
				for live := int64(w.target.Live()); ; {
					known := highest.Load()
					if live <= known || highest.CompareAndSwap(known, live) {
						return nil
					}
				}
			}
			var issued, full atomic.Int64
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					_, err := w.Issue(t.Context(), w.storage, w.limited(most, replaces))
					refused := new(FullError)
					switch {
					case err == nil:
						issued.Add(1)
					case errors.As(err, &refused):
						full.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			all.Wait()
			want := int64(most)
			if replaces {
				want = callers
			}
			if issued.Load() != want || full.Load() != callers-want {
				t.Errorf("%d may live, replaces: %t: issued %d and refused %d of %d", most, replaces, issued.Load(), full.Load(), callers)
			}
			if live := w.Index.Count(ledger.Query{Role: "upload"}, w.clock); highest.Load() > int64(most) || w.target.Live() != most || live != most {
				t.Errorf("%d may live, replaces: %t: %d at once at the target, and in the end %d there and %d in the ledger", most, replaces, highest.Load(), w.target.Live(), live)
			}
			figures.Log(t, "callers at once: %d; may live: %d; replaces: %t; issued: %d; most at once at the target: %d", callers, most, replaces, issued.Load(), highest.Load())
		}
	}
}

// The oldest gives way, at the target before the ledger has the new one.
func TestReplaceTheOldest(t *testing.T) {
	w := newWorld(t)
	w.ready()
	var issued []Issued
	for range 3 {
		w.clock = w.clock.Add(time.Minute)
		one, err := w.Issue(t.Context(), w.storage, w.limited(2, true))
		if err != nil {
			t.Fatal(err)
		}
		issued = append(issued, one)
	}
	for i, want := range []bool{false, true, true} {
		if lives := !w.target.End(issued[i].Grant.ID).IsZero(); lives != want {
			t.Errorf("grant %d lives: %t, want %t", i, lives, want)
		}
	}
	first, err := ledger.Get(t.Context(), w.storage, issued[0].Grant.ID)
	if err != nil || first.State != ledger.Ended || first.Ending != ledger.Replaced {
		t.Errorf("the first: %s, %s, %v", first.State, first.Ending, err)
	}
	// A limit that was lowered meanwhile makes more give way.
	if _, err := w.Issue(t.Context(), w.storage, w.limited(1, true)); err != nil {
		t.Fatal(err)
	}
	if live := w.target.Live(); live != 1 {
		t.Errorf("%d live, want 1", live)
	}
}

// Where the oldest can't be ended nothing is minted, and what is being ended counts
// until it is dead.
func TestReplaceWhatCannotBeEnded(t *testing.T) {
	w := newWorld(t)
	w.ready()
	if _, err := w.Issue(t.Context(), w.storage, w.limited(1, true)); err != nil {
		t.Fatal(err)
	}
	fault := errors.New("the target is on fire")
	w.target.OnRevoke = func() error { return fault }
	for range 2 {
		if _, err := w.Issue(t.Context(), w.storage, w.limited(1, true)); !errors.Is(err, fault) {
			t.Errorf("got %v, want the target's fault", err)
		}
		w.expect(1, ledger.Ending, ledger.Replaced)
	}
	refused := new(FullError)
	if _, err := w.Issue(t.Context(), w.storage, w.limited(1, false)); !errors.As(err, &refused) {
		t.Errorf("got %v while the oldest lives", err)
	}
	w.target.OnRevoke = nil
	if _, err := w.Issue(t.Context(), w.storage, w.limited(1, true)); err != nil || w.target.Live() != 1 {
		t.Errorf("%d live: %v", w.target.Live(), err)
	}
}

// One that hangs is not waited for without an end.
func TestReplaceWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ready()
		if _, err := w.Issue(t.Context(), w.storage, w.limited(1, true)); err != nil {
			t.Fatal(err)
		}
		order := w.limited(1, true)
		order.Replace = func(ctx context.Context, grant ledger.Grant) error {
			return w.End(ctx, w.storage, EndOrder{Provider: hanging{w.target}, ID: grant.ID, Target: grant.Target, Handle: grant.Handle, Cause: ledger.Replaced, Unasked: true})
		}
		if _, err := w.Issue(t.Context(), w.storage, order); !errors.Is(err, ErrNoRoomYet) {
			t.Errorf("got %v, want ErrNoRoomYet", err)
		}
		w.Close()
		synctest.Wait()
	})
}

// A grant that is being minted is waited for: ended before, its credential would
// come to life after.
func TestReplaceWhatIsBeingMinted(t *testing.T) {
	w := newWorld(t)
	w.ready()
	minting, release := make(chan struct{}), make(chan struct{})
	w.target.OnMint = func() error { close(minting); <-release; return nil }
	var first Issued
	var all sync.WaitGroup
	all.Go(func() {
		var err error
		if first, err = w.Issue(t.Context(), w.storage, w.limited(1, true)); err != nil {
			t.Error(err)
		}
	})
	<-minting
	w.target.OnMint = nil
	second := make(chan error, 1)
	all.Go(func() {
		_, err := w.Issue(t.Context(), w.storage, w.limited(1, true))
		second <- err
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := w.Issue(ctx, w.storage, w.limited(1, true)); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has hung up: %v", err)
	}
	select {
	case err := <-second:
		t.Fatalf("the second did not wait for the first: %v", err)
	default:
	}
	close(release)
	all.Wait()
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if !w.target.End(first.Grant.ID).IsZero() || w.target.Live() != 1 {
		t.Errorf("the first lives until %s; %d live", w.target.End(first.Grant.ID), w.target.Live())
	}
	if len(w.mints) != 0 {
		t.Errorf("%d mints are still noted", len(w.mints))
	}
}

// naming is a target that names its credentials itself, and ends none whose name it
// is not told.
type naming struct{ *providertest.Fake }

func (n naming) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	minted, err := n.Fake.Mint(ctx, handle, policy, expiresAt)
	named := provider.Handle{"name": "x"}
	for key, value := range minted.Handle {
		named[key] = value
	}
	minted.Handle, minted.Unforeseen = named, true
	return minted, err
}

func (n naming) Revoke(ctx context.Context, handle provider.Handle) error {
	if handle["name"] == "" {
		return nil
	}
	return n.Fake.Revoke(ctx, handle)
}

// What only the target could name is still known when the plugin was started anew.
func TestReplaceAfterARestart(t *testing.T) {
	w := newWorld(t)
	w.ready()
	issue := func() (Issued, error) {
		order := w.limited(1, true)
		order.Provider = naming{w.target}
		order.Replace = func(ctx context.Context, grant ledger.Grant) error {
			return w.End(ctx, w.storage, EndOrder{Provider: naming{w.target}, ID: grant.ID, Target: grant.Target, Handle: grant.Handle, Cause: ledger.Replaced, Unasked: true})
		}
		return w.Issue(t.Context(), w.storage, order)
	}
	for range 3 {
		if _, err := issue(); err != nil {
			t.Fatal(err)
		}
		if live := w.target.Live(); live != 1 {
			t.Errorf("%d live, want 1", live)
		}
		w.restart()
		w.ready()
	}
	// Where it can't be written down, nobody gets the credential.
	writes := 0
	failing := &failsOn{InmemStorage: w.storage, fails: func() bool { writes++; return writes == 4 }} // ending, ended, pending, and then
	order := w.limited(1, true)
	order.Provider = naming{w.target}
	order.Replace = func(ctx context.Context, grant ledger.Grant) error {
		return w.End(ctx, failing, EndOrder{Provider: naming{w.target}, ID: grant.ID, Target: grant.Target, Handle: grant.Handle, Cause: ledger.Replaced, Unasked: true})
	}
	if _, err := w.Issue(t.Context(), failing, order); err == nil || w.target.Live() != 0 {
		t.Errorf("got %v, and %d live, want none", err, w.target.Live())
	}
}

// failsOn is storage that fails some of its writes.
type failsOn struct {
	*logical.InmemStorage
	fails func() bool
}

func (s *failsOn) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.fails() {
		return errors.New("storage broke")
	}
	return s.InmemStorage.Put(ctx, entry)
}

// What has an end that it must not outlive has it whatever its TTL, however late it
// is minted, and whatever it is renewed for.
func TestUntil(t *testing.T) {
	w := newWorld(t)
	until := w.clock.Add(10 * time.Minute).Truncate(time.Second)
	order := w.order(time.Hour)
	order.Until, order.Longest = until, 2*time.Hour
	issued, err := w.Issue(t.Context(), w.storage, order)
	if err != nil {
		t.Fatal(err)
	}
	w.ends(until)
	if issued.Lease > 10*time.Minute {
		t.Errorf("lease of %s", issued.Lease)
	}
	renewal := RenewOrder{Order: order, ID: issued.Grant.ID, Handle: issued.Credential.Handle, Minted: issued.Minted()}
	w.clock = w.clock.Add(9 * time.Minute)
	if err := w.renew(renewal); err != nil {
		t.Fatal(err)
	}
	w.ends(until)
	renewal.Until = until.Add(time.Minute) // another window
	if err := w.renew(renewal); err != nil {
		t.Fatal(err)
	}
	w.ends(until.Add(time.Minute))

	for _, late := range []time.Time{until, until.Add(time.Hour)} {
		w.clock = late
		if _, err := w.Issue(t.Context(), w.storage, order); !errors.Is(err, ErrTooLate) {
			t.Errorf("minted at %s: %v", late, err)
		}
	}
	if live := w.target.Live(); live != 1 {
		t.Errorf("%d live, want 1", live)
	}
}
