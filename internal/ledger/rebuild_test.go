package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

var errBroken = errors.New("storage broke")

// faultyStorage fails one operation, counted from 0, or all from there on.
type faultyStorage struct {
	logical.InmemStorage
	calls   atomic.Int64
	failsAt atomic.Int64 // negative: nothing fails
	onwards atomic.Bool
	onGet   func(key string) // is called before an entry is given out
}

func newStorage() *faultyStorage {
	storage := &faultyStorage{}
	storage.failsAt.Store(-1)
	return storage
}

// failFrom counts operations anew and fails the one of that number.
func (s *faultyStorage) failFrom(call int, onwards bool) {
	s.calls.Store(0)
	s.onwards.Store(onwards)
	s.failsAt.Store(int64(call))
}

func (s *faultyStorage) fails() error {
	call, from := s.calls.Add(1)-1, s.failsAt.Load()
	if from >= 0 && (call == from || (call > from && s.onwards.Load())) {
		return errBroken
	}
	return nil
}

func (s *faultyStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	entry, err := s.InmemStorage.Get(ctx, key)
	if s.onGet != nil {
		s.onGet(key)
	}
	return entry, err
}

func (s *faultyStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	return s.InmemStorage.List(ctx, prefix)
}

func (s *faultyStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.InmemStorage.Put(ctx, entry)
}

func (s *faultyStorage) Delete(ctx context.Context, key string) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.InmemStorage.Delete(ctx, key)
}

func put(t testing.TB, storage logical.Storage, grant Grant) Grant {
	t.Helper()
	if err := Put(t.Context(), storage, grant); err != nil {
		t.Fatal(err)
	}
	return grant
}

func rebuilt(t testing.TB, storage logical.Storage) *Index {
	t.Helper()
	x := NewIndex()
	if err := x.Rebuild(t.Context(), storage, hclog.NewNullLogger(), func() time.Time { return now }); err != nil {
		t.Fatal(err)
	}
	<-x.Ready()
	return x
}

func TestRebuild(t *testing.T) {
	storage := newStorage()
	state := func(life time.Duration, state State, base string) Grant {
		grant := some(life)
		grant.State, grant.Base = state, base
		return put(t, storage, grant)
	}
	live, ending, expired := state(time.Hour, Pending, ""), state(48*time.Hour, Ending, ""), state(-time.Hour, Pending, "")
	onBase := state(time.Hour, Ended, "role/base")
	state(time.Hour, Ended, "")
	state(time.Hour, Failed, "")
	state(-time.Hour, Ended, "role/base")
	x := rebuilt(t, storage)
	wantLive(t, x, Query{}, now, live, ending, expired)
	if due := x.Overdue(10, now); len(due) != 1 || due[0].ID != expired.ID {
		t.Errorf("%v are overdue, want %s", due, expired.ID)
	}
	if on := x.OnBase("role/base", now); len(on) != 1 || on[0].ID != onBase.ID {
		t.Errorf("on the base are %v, want %s", on, onBase.ID)
	}
	if got := len(x.byID); got != 4 {
		t.Errorf("the index knows %d grants, want 4", got)
	}
	if got, _ := x.Get(ending.ID); fmt.Sprint(got) != fmt.Sprint(ending) {
		t.Errorf("got %+v, want %+v", got, ending)
	}
}

func TestDamagedRecordsDoNotStopARebuild(t *testing.T) {
	storage := newStorage()
	live := put(t, storage, some(time.Hour))
	strange := some(time.Hour)
	strange.State = "resurrected"
	put(t, storage, strange)
	other := some(time.Hour)
	for key, value := range map[string]string{
		Prefix + other.ID[:bucketDigits] + "/" + other.ID: `{`,
		Prefix + "00000001/" + NewID(time.Unix(600, 0)):   `{"id":"` + live.ID + `","state":"pending"}`,
		Prefix + "00000001/x":                             `{}`,
		Prefix + "elsewhere/x":                            `{}`,
		Prefix + "x":                                      `{}`,
	} {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	x := rebuilt(t, storage)
	wantLive(t, x, Query{}, now, live)
	if x.Damaged() != 6 {
		t.Errorf("%d damaged records, want 6", x.Damaged())
	}
}

// Whichever operation fails, and even if storage is away for minutes, the index
// is whole in the end; the waiting is on a clock that costs nothing.
func TestARebuildOutlivesStorageThatFails(t *testing.T) {
	storage := newStorage()
	grants := []Grant{put(t, storage, some(time.Hour)), put(t, storage, some(time.Hour)), put(t, storage, some(10*time.Hour))}
	for call := range 6 {
		synctest.Test(t, func(t *testing.T) {
			storage.failFrom(call, false)
			wantLive(t, rebuilt(t, storage), Query{}, now, grants...)
			storage.failFrom(call, true)
			time.AfterFunc(5*time.Minute, func() { storage.failFrom(-1, false) })
			wantLive(t, rebuilt(t, storage), Query{}, now, grants...)
		})
	}
	storage.failFrom(-1, false)
	rebuilt(t, storage)
	if calls := storage.calls.Load(); calls != 6 {
		t.Errorf("a rebuild makes %d calls; the test is for 6", calls)
	}
}

// A rebuild on storage that is gone for good ends with its context.
func TestARebuildEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newStorage()
		for range 200 {
			put(t, storage, some(time.Hour))
		}
		storage.failFrom(100, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		x := NewIndex()
		if err := x.Rebuild(ctx, storage, hclog.NewNullLogger(), time.Now); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want context.DeadlineExceeded", err)
		}
		select {
		case <-x.Ready():
			t.Error("the index is ready without having been read")
		default:
		}
	})
}

// What happens between a record's reading and its being put in counts for more.
func TestWhatEndsDuringARebuildStaysEnded(t *testing.T) {
	storage := newStorage()
	ends, changes, stays := put(t, storage, some(time.Hour)), put(t, storage, some(time.Hour)), put(t, storage, some(time.Hour))
	fresh := some(time.Hour)
	x := NewIndex()
	storage.onGet = func(key string) { // has been read, and is not in the index yet
		switch {
		case strings.HasSuffix(key, ends.ID):
			ends.State = Ended
			x.Update(put(t, storage, ends), now)
			admit(t, x, fresh)
		case strings.HasSuffix(key, changes.ID):
			changes.State = Ending
			x.Update(put(t, storage, changes), now)
		}
	}
	if err := x.Rebuild(t.Context(), storage, hclog.NewNullLogger(), func() time.Time { return now }); err != nil {
		t.Fatal(err)
	}
	wantLive(t, x, Query{}, now, changes, stays, fresh)
	if got, _ := x.Get(changes.ID); got.State != Ending {
		t.Errorf("a grant that is to end is %s after the rebuild", got.State)
	}
	if x.gone != nil {
		t.Error("the index still remembers what has ended during its rebuild")
	}
}

// Grants come and go while the index is rebuilt; in the end it knows what
// storage knows.
func TestARebuildBesideIssuesAndEnds(t *testing.T) {
	storage := newStorage()
	var old []Grant
	for range 400 {
		old = append(old, put(t, storage, some(time.Hour)))
	}
	x := NewIndex()
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := worker; i < len(old); i += 8 { // half of them
				grant := old[i]
				grant.State = Ended
				put(t, storage, grant)
				x.Update(grant, now)
				put(t, storage, admit(t, x, some(time.Hour)))
			}
		})
	}
	all.Go(func() {
		if err := x.Rebuild(t.Context(), storage, hclog.NewNullLogger(), func() time.Time { return now }); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	wantLive(t, x, Query{}, now, rebuilt(t, storage).Live(Query{}, now)...)
	if live := x.Count(Query{}, now); live != 400 {
		t.Errorf("%d live, want 400", live)
	}
}

func TestTheLedgersOwnID(t *testing.T) {
	storage := newStorage()
	storage.failFrom(1, false) // the write
	if id, err := ID(t.Context(), storage); !errors.Is(err, errBroken) {
		t.Errorf("got %q and %v from storage that failed", id, err)
	}
	first, err := ID(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ID(t.Context(), storage)
	if err != nil || again != first || len(first) != 24 {
		t.Errorf("got %q, then %q, %v", first, again, err)
	}
	if other, err := ID(t.Context(), newStorage()); err != nil || other == first {
		t.Errorf("two ledgers have id %q, %v", other, err)
	}
}

// slowStorage takes as long for a read as Vault does.
type slowStorage struct{ logical.InmemStorage }

func (s *slowStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	time.Sleep(time.Millisecond)
	return s.InmemStorage.Get(ctx, key)
}

func BenchmarkRebuild(b *testing.B) {
	storage := &slowStorage{}
	for i := range many {
		put(b, storage, numbered(i))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		x := rebuilt(b, storage)
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/grant")
		runtime.KeepAlive(x)
		b.StartTimer()
	}
}
