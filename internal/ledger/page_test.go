package ledger

import (
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// filled is a storage with finished grants in records, in segments and in both,
// and with some that aren't finished. It returns the ids of the finished ones, newest first.
func filled(t *testing.T) (storage logical.Storage, finished []string) {
	t.Helper()
	storage = &logical.InmemStorage{}
	put := func(life time.Duration, state State) Grant {
		grant := some(life)
		grant.State = state
		if grant.Finished() {
			grant.Ending = LeaseRevoked
			finished = append(finished, grant.ID)
		}
		if err := Put(t.Context(), storage, grant); err != nil {
			t.Fatal(err)
		}
		return grant
	}
	var kept []Grant
	for i := range 40 {
		grant := put(-time.Second, Ended)
		if i%10 == 0 {
			kept = append(kept, grant)
		}
	}
	if _, err := Pack(t.Context(), storage, pastBucket); err != nil {
		t.Fatal(err)
	}
	for _, grant := range kept { // as after a crash
		if err := Put(t.Context(), storage, grant); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		put(-time.Second, Ended)
		put(time.Hour, Failed)
		put(time.Hour, Pending)
		put(2*time.Hour, Ending)
	}
	slices.SortFunc(finished, descending)
	return storage, finished
}

func idsOf(grants []Grant) []string {
	var all []string
	for _, grant := range grants {
		all = append(all, grant.ID)
	}
	return all
}

// Pages of any size together hold each finished grant once, newest first.
func TestPages(t *testing.T) {
	storage, finished := filled(t)
	for _, limit := range []int{1, 7, 59, 60, 61, 1000} {
		var got []string
		for after, pages := "", 0; ; pages++ {
			page, err := Finished(t.Context(), storage, Selection{After: after, Limit: limit, Wanted: func(Grant) bool { return true }})
			if err != nil || page.Damaged > 0 || len(page.Grants) > limit || pages > 100 {
				t.Fatalf("limit %d: page %d has %d grants, %d damaged: %v", limit, pages, len(page.Grants), page.Damaged, err)
			}
			got = append(got, idsOf(page.Grants)...)
			if after = page.Next; after == "" {
				break
			}
		}
		if !slices.Equal(got, finished) {
			t.Errorf("limit %d: the pages hold %d grants, want %d", limit, len(got), len(finished))
		}
	}
}

func TestAPageIsSelected(t *testing.T) {
	storage, finished := filled(t)
	page, err := Finished(t.Context(), storage, Selection{Limit: 1000, From: now, Wanted: func(grant Grant) bool { return grant.State == Failed }})
	if err != nil || !slices.Equal(idsOf(page.Grants), finished[:10]) {
		t.Errorf("got %d grants, want the 10 that failed: %v", len(page.Grants), err)
	}
	page, err = Finished(t.Context(), storage, Selection{Limit: 1000, From: now.Add(3 * time.Hour), Wanted: func(Grant) bool { return true }})
	if err != nil || len(page.Grants) > 0 {
		t.Errorf("got %d grants of a time that is to come: %v", len(page.Grants), err)
	}
	page, err = Finished(t.Context(), storage, Selection{
		Limit: 1000, From: now,
		Wanted: func(Grant) bool { return true }, Skip: func(id string) bool { return id != finished[5] },
	})
	if err != nil || !slices.Equal(idsOf(page.Grants), finished[5:6]) {
		t.Errorf("got %d grants, want the one that is not skipped: %v", len(page.Grants), err)
	}
}

// A grant that was packed and is to be ended again, since something of it was
// found at its target, is not called ended by its segment.
func TestAPackedGrantIsToEndAgain(t *testing.T) {
	storage := &logical.InmemStorage{}
	grant := some(-time.Second)
	grant.State, grant.Ending = Ended, LeaseRevoked
	if err := Put(t.Context(), storage, grant); err != nil {
		t.Fatal(err)
	}
	if _, err := Pack(t.Context(), storage, pastBucket); err != nil {
		t.Fatal(err)
	}
	read := func(skip func(string) bool) []Grant {
		page, err := Finished(t.Context(), storage, Selection{Limit: 10, Skip: skip, Wanted: func(Grant) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		return page.Grants
	}
	if got := read(nil); len(got) != 1 {
		t.Fatalf("got %d grants of the segment, want 1", len(got))
	}
	grant.State = Ending
	if err := Put(t.Context(), storage, grant); err != nil {
		t.Fatal(err)
	}
	for name, skip := range map[string]func(string) bool{"known": func(string) bool { return true }, "not known": nil} {
		if got := read(skip); len(got) > 0 {
			t.Errorf("%s in memory: the grant is called %s while it is ended again", name, got[0].State)
		}
	}
	grant.State, grant.EndedAt = Ended, now.Add(time.Minute)
	if err := Put(t.Context(), storage, grant); err != nil {
		t.Fatal(err)
	}
	if got := read(nil); len(got) != 1 || !got[0].EndedAt.Equal(grant.EndedAt) {
		t.Errorf("got %+v, want the record's word", got)
	}
}

// A page holds what it has room for, however much a bucket's history has.
func TestASmallPageOfALongHistory(t *testing.T) {
	storage := &logical.InmemStorage{}
	const grants = 20_000
	for range grants {
		grant := some(-time.Second)
		grant.State, grant.Ending = Ended, LeaseRevoked
		if err := Put(t.Context(), storage, grant); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Pack(t.Context(), storage, pastBucket); err != nil {
		t.Fatal(err)
	}
	held := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, most, asked := held(), uint64(0), 0
	page, err := Finished(t.Context(), storage, Selection{Limit: 1, Wanted: func(Grant) bool {
		if asked++; asked == grants-1 {
			most = held()
		}
		return true
	}})
	if err != nil || len(page.Grants) != 1 || page.Next != page.Grants[0].ID {
		t.Fatalf("got %d grants and %q: %v", len(page.Grants), page.Next, err)
	}
	if each := float64(most-before) / grants; each > 800 { // a grant takes some 2 kB
		t.Errorf("a page of one grant takes %.0f bytes for each of the history", each)
	}
}

// What can't be read is counted, and hides nothing else.
func TestAPageWithDamage(t *testing.T) {
	storage, finished := filled(t)
	for _, key := range []string{Prefix + finished[0][:8] + "/" + finished[0], segmentKey(pastBucket, 7)} {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte("damaged")}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := Finished(t.Context(), storage, Selection{Limit: 1000, Wanted: func(Grant) bool { return true }})
	if err != nil || page.Damaged != 2 || len(page.Grants) < len(finished)-1 {
		t.Errorf("got %d grants and %d damaged: %v", len(page.Grants), page.Damaged, err)
	}
}

func TestFind(t *testing.T) {
	storage, finished := filled(t)
	for _, id := range finished {
		if grant, err := Find(t.Context(), storage, id); err != nil || grant.ID != id || !grant.Finished() {
			t.Errorf("grant %s: %+v %v", id, grant, err)
		}
	}
	if _, err := Find(t.Context(), storage, NewID(now.Add(-time.Second))); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, err := Find(t.Context(), storage, "../config/store"); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		state  State
		ending Cause
		life   time.Duration
		want   State
	}{
		{Pending, "", time.Second, Active},
		{Pending, "", 0, Expired},
		{Ending, LeaseRevoked, time.Second, Ending},
		{Ended, LeaseRevoked, -time.Second, Revoked},
		{Ended, Widened, time.Second, Revoked},
		{Ended, LeaseExpired, -time.Second, Expired},
		{Ended, Swept, -time.Second, Expired},
		{Failed, MintFailed, time.Second, Failed},
	} {
		grant := some(test.life)
		grant.State, grant.Ending = test.state, test.ending
		if got := grant.Status(now); got != test.want {
			t.Errorf("%s (%s) with %s to live is %s, want %s", test.state, test.ending, test.life, got, test.want)
		}
	}
}
