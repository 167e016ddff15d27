package sweep

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// countingStorage counts what a sweep does to storage.
type countingStorage struct {
	logical.InmemStorage
	reads, lists, writes atomic.Int64
}

func (s *countingStorage) all() int64 { return s.reads.Load() + s.lists.Load() + s.writes.Load() }

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.lists.Add(1)
	return s.InmemStorage.List(ctx, prefix)
}

func (s *countingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.reads.Add(1)
	return s.InmemStorage.Get(ctx, key)
}

func (s *countingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.writes.Add(1)
	return s.InmemStorage.Put(ctx, entry)
}

// world is a sweeper, its storage and a target, with a clock that stands still.
type world struct {
	*Sweeper
	t       testing.TB
	storage *countingStorage
	target  *providertest.Fake
	clock   time.Time

	settings Settings
	targets  []Target
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, storage: &countingStorage{}, target: &providertest.Fake{}, clock: time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)}
	w.settings = Settings{Retention: 24 * time.Hour, OrphanInterval: time.Hour}
	w.restart()
	t.Cleanup(func() { w.Grants.Close() })
	return w
}

// restart is a plugin that knows what storage does.
func (w *world) restart() {
	w.t.Helper()
	w.Sweeper = &Sweeper{
		Grants: lifecycle.New(hclog.NewNullLogger(), func() time.Time { return w.clock }),
		Open: func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) {
			return w.target, nil
		},
		Targets:  func(context.Context, logical.Storage) ([]Target, error) { return w.targets, nil },
		Settings: func(context.Context, logical.Storage) (Settings, error) { return w.settings, nil },
		Log:      hclog.NewNullLogger(), Mount: "mount",
	}
	if err := w.Grants.Index.Rebuild(w.t.Context(), w.storage, hclog.NewNullLogger(), w.Grants.Now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) issue(ttl time.Duration) lifecycle.Issued {
	w.t.Helper()
	return w.issueOn(w.target, "store", ttl)
}

func (w *world) issueOn(target *providertest.Fake, name string, ttl time.Duration) lifecycle.Issued {
	w.t.Helper()
	granted, err := scope.New("s3:PutObject", "arn:aws:s3:::releases/app/*")
	if err != nil {
		w.t.Fatal(err)
	}
	issued, err := w.Grants.Issue(w.t.Context(), w.storage, lifecycle.Order{Provider: target, Target: name, Role: "upload", Scope: granted, TTL: ttl})
	if err != nil {
		w.t.Fatal(err)
	}
	return issued
}

func (w *world) want(want Result) {
	w.t.Helper()
	if got := w.sweep(w.t.Context(), w.storage); got != want {
		w.t.Errorf("at %s a sweep did %+v, want %+v", w.clock.Format(time.TimeOnly), got, want)
	}
}

func (w *world) stored(id string) ledger.Grant {
	w.t.Helper()
	grant, err := ledger.Get(w.t.Context(), w.storage, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return grant
}

// A sweep ends what has outlived its lease, and costs what that costs.
func TestWhatOutlivesItsLeaseIsSwept(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		w := newWorld(t)
		issued := w.issue(time.Minute)
		for range 50 {
			w.issue(time.Hour)
		}
		if restarted {
			w.restart()
		}
		w.want(Result{}) // lists what could be packed, once
		w.storage.reads.Store(0)
		w.storage.writes.Store(0)
		w.clock = issued.Grant.ExpiresAt.Add(ledger.SweepDelay - 1)
		w.want(Result{})
		w.clock = w.clock.Add(1)
		w.want(Result{Ended: 1})
		w.want(Result{})
		if reads, writes := w.storage.reads.Load(), w.storage.writes.Load(); reads != 0 || writes != 2 {
			t.Errorf("a sweep of one made %d reads and %d writes, want 0 and 2", reads, writes)
		}
		if grant := w.stored(issued.Grant.ID); grant.State != ledger.Ended || grant.Ending != ledger.Swept {
			t.Errorf("the grant is %s (%s)", grant.State, grant.Ending)
		}
		if live := w.target.Live(); live != 50 {
			t.Errorf("%d credentials live, want 50", live)
		}
	}
}

// A target that is away is tried again, less and less often, and never given up.
func TestASweepDoesNotGiveUp(t *testing.T) {
	w := newWorld(t)
	issued := w.issue(time.Minute)
	w.target.OnRevoke = func() error { return errors.New("the target broke") }
	w.clock = issued.Grant.ExpiresAt.Add(ledger.SweepDelay)
	w.want(Result{Failed: 1})
	w.want(Result{})
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		w.clock = w.clock.Add(pause*time.Minute - 1)
		w.want(Result{})
		w.clock = w.clock.Add(1)
		w.want(Result{Failed: 1})
	}
	w.target.OnRevoke = nil
	w.clock = w.clock.Add(time.Hour)
	w.want(Result{Ended: 1, Packed: 1})
	if w.target.Live() != 0 || len(w.tries) != 0 {
		t.Errorf("%d credentials live, %d are tried again", w.target.Live(), len(w.tries))
	}
}

// What could not be ended when Vault asked is ended as soon as it can, for the
// reason that it was asked for.
func TestAFailedEndIsTriedAgain(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		w := newWorld(t)
		issued := w.issue(time.Hour)
		w.target.OnRevoke = func() error { return errors.New("the target broke") }
		if err := w.Grants.End(t.Context(), w.storage, lifecycle.EndOrder{Provider: w.target, ID: issued.Grant.ID, Handle: issued.Credential.Handle}); err == nil {
			t.Error("the end has not failed")
		}
		if restarted {
			w.restart()
		}
		w.want(Result{Failed: 1})
		w.clock = w.clock.Add(time.Minute - 1)
		w.want(Result{})
		w.target.OnRevoke = nil
		w.clock = w.clock.Add(1)
		w.want(Result{Ended: 1})
		if grant := w.stored(issued.Grant.ID); w.target.Live() != 0 || grant.State != ledger.Ended || grant.Ending != ledger.LeaseRevoked {
			t.Errorf("%d credentials live, the grant is %s (%s)", w.target.Live(), grant.State, grant.Ending)
		}
	}
}

// A write that has failed and was taken leaves a record that only packing meets.
func TestAStrayRecordIsSwept(t *testing.T) {
	w := newWorld(t)
	expiresAt := w.clock.Add(time.Minute)
	stray := ledger.Grant{ID: ledger.NewID(expiresAt), State: ledger.Pending, Handle: provider.Handle{"fake_grant": "x"}, ExpiresAt: expiresAt}
	if err := ledger.Put(t.Context(), w.storage, stray); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(2 * time.Hour)
	w.want(Result{})
	w.want(Result{Ended: 1})
	w.clock = w.clock.Add(packEvery)
	w.want(Result{Packed: 1})
}

// The history is packed, kept for its time, and forgotten.
func TestHistory(t *testing.T) {
	w := newWorld(t)
	issued := w.issue(time.Minute)
	if err := w.Grants.End(t.Context(), w.storage, lifecycle.EndOrder{Provider: w.target, ID: issued.Grant.ID, Handle: issued.Credential.Handle}); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(10*time.Minute + packDelay - 1)
	w.want(Result{})
	w.clock = w.clock.Add(packEvery)
	w.want(Result{Packed: 1})
	if _, err := ledger.Get(t.Context(), w.storage, issued.Grant.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("the record is still there: %v", err)
	}
	w.clock = w.clock.Add(w.settings.Retention)
	w.want(Result{Retired: 1})
}

// A clock that is ahead for a moment makes no history forgotten.
func TestAClockThatIsAheadForAMomentForgetsNothing(t *testing.T) {
	w := newWorld(t)
	issued := w.issue(time.Minute)
	order := lifecycle.EndOrder{Provider: w.target, ID: issued.Grant.ID, Handle: issued.Credential.Handle}
	if err := w.Grants.End(t.Context(), w.storage, order); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(10*time.Minute + packDelay + packEvery)
	w.want(Result{Packed: 1})
	steady := w.Grants.Elapsed()
	w.Grants.Elapsed = func() time.Duration { return steady }
	w.clock = w.clock.Add(w.settings.Retention)
	w.want(Result{})
	w.clock = w.clock.Add(-w.settings.Retention)
	w.want(Result{})
	if _, err := ledger.Find(t.Context(), w.storage, issued.Grant.ID); err != nil {
		t.Errorf("the history is gone: %v", err)
	}
	w.clock, steady = w.clock.Add(w.settings.Retention), steady+w.settings.Retention
	w.want(Result{Retired: 1})
}

// A bucket stays as it is while one of its grants is not finished.
func TestABucketWithAnUnfinishedGrantIsNotPacked(t *testing.T) {
	w := newWorld(t)
	w.issue(time.Minute)
	w.Open = func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) {
		return nil, errors.New("the target is not configured")
	}
	w.clock = w.clock.Add(2 * time.Hour)
	w.want(Result{Failed: 1})
	w.clock = w.clock.Add(2 * time.Hour)
	w.want(Result{Failed: 1})
}

// Nudge returns at once, whatever the target does; a sweep waits for the ledger,
// is alone, and ends with the mount.
func TestNudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issued := w.issue(time.Minute)
		w.clock = issued.Grant.ExpiresAt.Add(ledger.SweepDelay)
		calls := 0
		w.target.OnRevoke = func() error { calls++; time.Sleep(10 * time.Second); return nil }
		started := time.Now()
		for range 5 {
			w.Nudge(w.storage)
		}
		if waited := time.Since(started); waited != 0 {
			t.Errorf("a nudge took %s", waited)
		}
		time.Sleep(time.Minute)
		if w.target.Live() != 0 || calls != 1 || w.running.Load() {
			t.Errorf("%d credentials live after %d calls", w.target.Live(), calls)
		}

		w.issue(time.Minute)
		w.clock = w.clock.Add(time.Hour)
		w.Nudge(w.storage)
		w.Grants.Close()
		time.Sleep(time.Minute)
		if w.running.Load() {
			t.Error("a sweep goes on after the close")
		}

		unread := &Sweeper{Grants: lifecycle.New(hclog.NewNullLogger(), time.Now), Log: hclog.NewNullLogger()}
		w.storage.reads.Store(0)
		if result := unread.sweep(t.Context(), w.storage); result != (Result{}) || w.storage.reads.Load() != 0 {
			t.Errorf("a sweep before the ledger was read did %+v", result)
		}
	})
}

// The target that does not answer is left alone for the rest of a sweep, and is
// tried again each minute for as long as it takes; the grants of others end.
func TestATargetThatDoesNotAnswerIsLeftOut(t *testing.T) {
	w := newWorld(t)
	const grants = 100
	for range grants {
		w.issue(time.Minute)
	}
	var tried atomic.Int32
	w.target.OnRevoke = func() error { tried.Add(1); return context.DeadlineExceeded }
	other := &providertest.Fake{}
	healthy := w.issueOn(other, "other", 3*time.Minute)
	w.Open = func(_ context.Context, _ logical.Storage, grant ledger.Grant) (provider.Provider, error) {
		if grant.Target == "other" {
			return other, nil
		}
		return w.target, nil
	}
	w.clock = healthy.Grant.ExpiresAt.Add(ledger.SweepDelay)
	w.want(Result{Ended: 1, Failed: grants})
	if got := tried.Load(); got == 0 || got > atOnce {
		t.Errorf("in one sweep the target was tried %d times", got)
	}
	for range 10 {
		w.clock = w.clock.Add(time.Minute)
		tried.Store(0)
		w.want(Result{Failed: grants})
		if got := tried.Load(); got > atOnce {
			t.Errorf("in one sweep the target was tried %d times", got)
		}
	}
	w.target.OnRevoke = nil
	w.clock = w.clock.Add(time.Minute)
	w.want(Result{Ended: grants})
}

// Of a target that does not answer, the log has the grants that it was asked for:
// there may be a hundred thousand others.
func TestATargetThatDoesNotAnswerDoesNotFillTheLog(t *testing.T) {
	w := newWorld(t)
	const grants = 5 * atOnce
	for range grants {
		w.issue(time.Minute)
	}
	w.target.OnRevoke = func() error { return context.DeadlineExceeded }
	var log bytes.Buffer
	w.Log = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info})
	w.clock = w.clock.Add(time.Hour)
	w.want(Result{Failed: grants})
	if got := bytes.Count(log.Bytes(), []byte("could not be ended")); got == 0 || got > atOnce {
		t.Errorf("the log has %d grants", got)
	}
}

// What a sweep has done is counted.
func TestSweepsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issued := w.issue(time.Minute)
		w.clock = issued.Grant.ExpiresAt.Add(ledger.SweepDelay)
		for range 2 {
			w.Nudge(w.storage)
			synctest.Wait()
		}
		if got := w.Grants.Metrics.Snapshot().Sweeps; got.Runs != 2 || got.Ended != 1 || got.Failed != 0 || !got.LastRun.Equal(w.clock) {
			t.Errorf("counted %+v", got)
		}
	})
}
