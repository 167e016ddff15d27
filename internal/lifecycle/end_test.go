package lifecycle

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

func (w *world) issue(ttl time.Duration) Issued {
	w.t.Helper()
	issued, err := w.Issue(w.t.Context(), w.storage, w.order(ttl))
	if err != nil {
		w.t.Fatal(err)
	}
	return issued
}

// writes says that this node may write.
func writes() (bool, error) { return true, nil }

// The target hangs: who asked has its answer after 20 s, one who asks again
// joins, and the end goes on behind them.
func TestAnEndThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issued := w.issue(time.Hour)
		var calls atomic.Int32
		w.target.OnRevoke = func() error { calls.Add(1); time.Sleep(50 * time.Second); return nil }
		started := time.Now()
		for asked := range 2 {
			if err := w.end(issued); !errors.Is(err, ErrStillEnding) {
				t.Errorf("got %v, want ErrStillEnding", err)
			}
			if waited := time.Since(started); waited != time.Duration(asked+1)*endWait {
				t.Errorf("waited %s", waited)
			}
		}
		w.expect(1, ledger.Pending, "")
		if err := w.end(issued); err != nil { // after 50 s in all
			t.Error(err)
		}
		w.expect(0, ledger.Ended, "lease revoked")
		if calls.Load() != 1 {
			t.Errorf("the target was called %d times for one end", calls.Load())
		}
	})
}

// What goes on behind a request ends when the mount is unloaded, and leaves
// target and storage alone from then on.
func TestCloseEndsWhatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issued := w.issue(time.Hour)
		order := EndOrder{Provider: hanging{w.target}, ID: issued.Grant.ID, Handle: issued.Credential.Handle}
		time.AfterFunc(time.Second, w.Close)
		if err := w.End(t.Context(), w.storage, order); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		synctest.Wait()
		w.expect(1, ledger.Pending, "")
		if len(w.lane("").slots) != 0 || len(w.actors) != 0 {
			t.Error("an end goes on after the close")
		}
		if err := w.end(issued); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

// hanging is a target that answers a revoke when the caller gives up.
type hanging struct{ *providertest.Fake }

func (hanging) Revoke(ctx context.Context, _ provider.Handle) error {
	<-ctx.Done()
	return ctx.Err()
}

// An end that outlives even the time behind the request is given up, and it is
// written down that the grant is to end.
func TestAnEndThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issued := w.issue(time.Hour)
		order := EndOrder{Provider: hanging{w.target}, ID: issued.Grant.ID, Handle: issued.Credential.Handle}
		if err := w.End(t.Context(), w.storage, order); !errors.Is(err, ErrStillEnding) {
			t.Errorf("got %v, want ErrStillEnding", err)
		}
		time.Sleep(endLimit)
		synctest.Wait()
		w.expect(1, ledger.Ending, "lease revoked")
		if unended := w.Index.Unended(); len(unended) != 1 || unended[0].ID != issued.Grant.ID {
			t.Errorf("%v are to end, want %s", unended, issued.Grant.ID)
		}
		if err := w.end(issued); err != nil {
			t.Error(err)
		}
		w.expect(0, ledger.Ended, "lease revoked")
	})
}

// No more ends than the cap are under way; the others wait their turn, and what
// did not get one leaves nothing behind.
func TestEndsAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var issued []Issued
		for range maxEnds + 50 {
			issued = append(issued, w.issue(time.Hour))
		}
		var under, most atomic.Int32
		w.target.OnRevoke = func() error {
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			time.Sleep(25 * time.Second)
			return nil
		}
		var all sync.WaitGroup
		var still, busy atomic.Int32
		for _, one := range issued {
			all.Go(func() {
				switch err := w.end(one); {
				case errors.Is(err, ErrStillEnding):
					still.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				default:
					t.Errorf("got %v", err)
				}
			})
		}
		all.Wait()
		if still.Load() != maxEnds || busy.Load() != 50 || most.Load() > maxEnds {
			t.Errorf("%d went on, %d did not get a turn, %d at once", still.Load(), busy.Load(), most.Load())
		}
		time.Sleep(endLimit)
		synctest.Wait()
		if live := w.target.Live(); live != 50 || len(w.actors) != 0 {
			t.Errorf("%d live and %d under way, want 50 and 0", live, len(w.actors))
		}
	})
}

// An end that nobody has just asked Vault for begins with a write.
func TestAnUnaskedEndNeedsStorage(t *testing.T) {
	w := newWorld(t)
	issued := w.issue(time.Minute)
	order := EndOrder{Provider: w.target, ID: issued.Grant.ID, Handle: issued.Credential.Handle, Cause: ledger.Swept, Unasked: true}
	w.storage.FailPut(true)
	if err := w.End(t.Context(), w.storage, order); err == nil {
		t.Error("a grant ended on storage that is gone")
	}
	w.expect(1, ledger.Pending, "")
	w.storage.FailPut(false)
	if err := w.End(t.Context(), w.storage, order); err != nil {
		t.Error(err)
	}
	w.expect(0, ledger.Ended, "swept")
}

// A grant that is ended while it is being minted has no credential afterwards.
func TestAnEndOvertakesAMint(t *testing.T) {
	w := newWorld(t)
	w.target.OnMint = func() error {
		grant := w.only()
		if err := w.End(t.Context(), w.storage, EndOrder{Provider: w.target, ID: grant.ID, Handle: grant.Handle, Cause: ledger.LeaseRevoked}); err != nil {
			t.Error(err)
		}
		// The target makes the credential after the end has found none.
		w.target.OnMint = nil
		_, err := w.target.Mint(t.Context(), grant.Handle, "", time.Time{})
		return err
	}
	if _, err := w.Issue(t.Context(), w.storage, w.order(time.Minute)); !errors.Is(err, ErrOvertaken) {
		t.Errorf("got %v, want ErrOvertaken", err)
	}
	w.expect(0, ledger.Ended, "lease revoked")
}

// sessions are credentials that hang on a base; what the ledger says when a
// revoke commits is looked at.
type sessions struct {
	*providertest.Fake
	onCommit func()
}

func (s sessions) Base(provider.Handle) string { return "role/base" }

func (s sessions) Revoke(ctx context.Context, handle provider.Handle) error {
	s.onCommit()
	return s.Fake.Revoke(ctx, handle)
}

func TestWhatIsCommittedIsInTheLedgerFirst(t *testing.T) {
	w := newWorld(t)
	var committed []ledger.State
	target := sessions{w.target, func() {
		for _, grant := range w.Index.OnBase("role/base", w.clock) {
			committed = append(committed, w.only().State, grant.State)
		}
	}}
	order := w.order(time.Minute)
	order.Provider = target
	issued, err := w.Issue(t.Context(), w.storage, order)
	if err != nil {
		t.Fatal(err)
	}
	ended := EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle}

	// Storage that fails keeps the commit from being made.
	w.storage.FailPut(true)
	if err := w.End(t.Context(), w.storage, ended); err == nil || len(committed) != 0 {
		t.Errorf("%v was committed although the ledger could not be written: %v", committed, err)
	}
	w.storage.FailPut(false)
	for range 2 {
		if err := w.End(t.Context(), w.storage, ended); err != nil {
			t.Fatal(err)
		}
	}
	if len(committed) != 2 || committed[0] != ledger.Ending || committed[1] != ledger.Ending {
		t.Errorf("at the commit, storage and index say %v, want ending twice", committed)
	}
	w.expect(0, ledger.Ended, "lease revoked")
	if on := w.Index.OnBase("role/base", w.clock); len(on) != 1 || on[0].State != ledger.Ended {
		t.Errorf("on the base are %v", on)
	}
}

// A lease that runs out does so a fraction of a second before its credential: it
// has expired all the same, and a session needs no commit that would have to be
// written down before.
func TestALeaseThatRunsOutHasExpired(t *testing.T) {
	for _, onBase := range []bool{false, true} {
		w := newWorld(t)
		order := w.order(10 * time.Minute)
		said := ledger.State("")
		if onBase {
			order.Provider = sessions{w.target, func() { said = w.only().State }}
		}
		issued, err := w.Issue(t.Context(), w.storage, order)
		if err != nil {
			t.Fatal(err)
		}
		if w.clock = w.clock.Add(issued.Lease); !w.clock.Before(issued.Grant.ExpiresAt) {
			t.Fatal("the lease outlives its credential")
		}
		if err := w.End(t.Context(), w.storage, EndOrder{Provider: order.Provider, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle}); err != nil {
			t.Fatal(err)
		}
		w.expect(0, ledger.Ended, ledger.LeaseExpired)
		if onBase && said != ledger.Pending {
			t.Errorf("at its end the ledger says %q, want %q", said, ledger.Pending)
		}
	}
}

// A session of which only its lease knows is put into the ledger for as long as
// it may live.
func TestALostSessionIsCommitted(t *testing.T) {
	w := newWorld(t)
	for _, damage := range []func(key string) error{
		func(key string) error { return w.storage.Delete(t.Context(), key) },
		func(key string) error {
			return w.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte("{")})
		},
	} {
		w.restart()
		onBase := 0
		target := sessions{w.target, func() { onBase = len(w.Index.OnBase("role/base", w.clock)) }}
		order := w.order(time.Minute)
		order.Provider = target
		issued, err := w.Issue(t.Context(), w.storage, order)
		if err != nil {
			t.Fatal(err)
		}
		id := issued.Grant.ID
		path := ledger.Prefix + id[:8] + "/" + id
		if err := damage(path); err != nil {
			t.Fatal(err)
		}
		w.restart()
		if err := w.End(t.Context(), w.storage, EndOrder{Provider: target, ID: id, Target: "store", Handle: issued.Credential.Handle}); err != nil {
			t.Error(err)
		}
		if onBase != 1 {
			t.Errorf("%d grants on the base when the end was committed, want 1", onBase)
		}
		w.expect(0, ledger.Ended, "lease revoked")
		if err := w.storage.Delete(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
}

// Limits wait for the ledger; mints without one do not.
func TestALimitWaitsForTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.issue(time.Hour)
		w.restart()
		w.issue(time.Hour)
		full := errors.New("full")
		order := w.order(time.Hour)
		order.Limit = func(counts ledger.Counts) error {
			if counts.Live(ledger.Query{Role: "upload"}) >= 3 {
				return full
			}
			return nil
		}
		if _, err := w.Issue(t.Context(), w.storage, order); !errors.Is(err, ErrRebuilding) {
			t.Errorf("got %v, want ErrRebuilding", err)
		}
		w.Start(w.storage, writes)
		if _, err := w.Issue(t.Context(), w.storage, order); err != nil {
			t.Error(err)
		}
		if _, err := w.Issue(t.Context(), w.storage, order); !errors.Is(err, full) {
			t.Errorf("got %v, want %v", err, full)
		}
		w.storage.FailPut(true)
		order.Limit = nil
		if _, err := w.Issue(t.Context(), w.storage, order); err == nil {
			t.Error("a credential was minted that the ledger does not know")
		}
		if live := w.Index.Count(ledger.Query{}, w.clock); live != 3 || w.target.Live() != 3 {
			t.Errorf("%d grants and %d credentials live, want 3", live, w.target.Live())
		}
	})
}

// Vault does not say at first what a node may do; a standby keeps no index.
func TestWhoKeepsTheLedgerInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		asked := 0
		w.Start(w.storage, func() (bool, error) {
			if asked++; asked < 3 {
				return false, errors.New("vault did not say")
			}
			return true, nil
		})
		if err := w.Await(t.Context()); err != nil || asked != 3 {
			t.Errorf("%v after Vault was asked %d times", err, asked)
		}

		standby := New(hclog.NewNullLogger(), time.Now)
		standby.Start(w.storage, func() (bool, error) { return false, nil })
		synctest.Wait()
		if err := standby.Await(t.Context()); err != logical.ErrReadOnly { //nolint:errorlint // Vault compares it so
			t.Errorf("a standby says %v, want a bare logical.ErrReadOnly", err)
		}

		gone := New(hclog.NewNullLogger(), time.Now)
		gone.Start(w.storage, func() (bool, error) { return false, errors.New("vault is gone") })
		gone.Close()
		if err := gone.Await(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}
