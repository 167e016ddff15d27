package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// readsOf counts reads of entries.
type readsOf struct {
	logical.Storage
	reads atomic.Int64
}

func (s *readsOf) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.reads.Add(1)
	return s.Storage.Get(ctx, key)
}

// pastOf packs the buckets of a span, with some grants each. Tasks are rare, roles and targets are everywhere.
func pastOf(t testing.TB, storage logical.Storage, first, buckets int64, each int) []Grant {
	t.Helper()
	var all []Grant
	for number := first; number < first+buckets; number++ {
		for i := range each {
			grant := Grant{
				ID: bucketName(number) + lower32(fmt.Appendf(nil, "%010d", i)), State: Ended, Ending: LeaseRevoked, Target: "db", Role: fmt.Sprint("role-", i%3),
				Task: fmt.Sprintf("T-%d-%d", number/7, i), EntityID: fmt.Sprint("entity-", number%50), ExpiresAt: time.Unix(number*600, 0).UTC(),
			}
			if err := Put(t.Context(), storage, grant); err != nil {
				t.Fatal(err)
			}
			all = append(all, grant)
		}
		if _, err := Pack(t.Context(), storage, bucketName(number)); err != nil {
			t.Fatal(err)
		}
		if err := Cover(t.Context(), storage, time.Unix((number+1)*600, 0), 10); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// found looks up all that a query names, page by page.
func found(t testing.TB, storage logical.Storage, query Query) (ids []string) {
	t.Helper()
	e := newEntryMatcher(query)
	for after := ""; ; {
		page, err := Finished(t.Context(), storage, Selection{Query: query, After: after, Limit: 1000, Wanted: e})
		if err != nil {
			t.Fatal(err)
		}
		for _, grant := range page.Grants {
			ids = append(ids, grant.ID)
		}
		if after = page.Next; after == "" {
			return ids
		}
	}
}

func newEntryMatcher(query Query) func(Grant) bool {
	return func(grant Grant) bool {
		return (query.Role == "" || grant.Role == query.Role) && (query.Task == "" || grant.Task == query.Task) &&
			(query.EntityID == "" || grant.EntityID == query.EntityID) && (query.Target == "" || grant.Target == query.Target)
	}
}

// The lookup finds what a look at everything finds, while buckets are packed and nodes are merged, and reads little.
func TestTheLookupFindsAll(t *testing.T) {
	const first, buckets, each = int64(0x2da000) + 5, 150, 6
	storage := &readsOf{Storage: &logical.InmemStorage{}}
	all := pastOf(t, storage, first, buckets, each)
	for _, query := range []Query{
		{Task: fmt.Sprintf("T-%d-0", (first+10)/7)}, {Task: fmt.Sprintf("T-%d-5", (first+100)/7), Role: "role-2"},
		{EntityID: "entity-7"}, {Role: "role-1", EntityID: "entity-3"}, {Role: "role-0"}, {Target: "db"}, {Target: "none"}, {Task: "none"}, {},
	} {
		var want []string
		for _, grant := range all {
			if newEntryMatcher(query)(grant) {
				want = append(want, grant.ID)
			}
		}
		slices.SortFunc(want, descending)
		storage.reads.Store(0)
		if got := found(t, storage, query); !slices.Equal(got, want) {
			t.Errorf("%+v finds %d grants, want %d", query, len(got), len(want))
		}
		if reads := storage.reads.Load(); query.Task != "" && reads > 20 {
			t.Errorf("%+v reads %d entries", query, reads)
		}
	}
	nodes, err := lookupNodes(t.Context(), storage)
	if err != nil || len(nodes) > lookupLevels {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}

// History that an older plugin packed is found, before it is in the lookup and after; and so is what a damaged node had.
func TestTheLookupHidesNothing(t *testing.T) {
	const first, buckets, each = int64(0x2da000), 20, 3
	storage := &logical.InmemStorage{}
	all := pastOf(t, storage, first, buckets, each)
	query := Query{Task: all[7].Task}
	want := found(t, storage, Query{Task: all[7].Task})
	if len(want) == 0 {
		t.Fatal("nothing is found")
	}
	keys, err := logical.CollectKeysWithPrefix(t.Context(), storage, lookupPrefix)
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		entry, err := storage.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func() error{
			"damaged": func() error { return storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte{1, 0xff}}) },
			"empty":   func() error { return storage.Put(t.Context(), &logical.StorageEntry{Key: key}) },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			if got := found(t, storage, query); !slices.Equal(got, want) {
				t.Errorf("with %s %s, %d are found, want %d", key, name, len(got), len(want))
			}
		}
		if err := storage.Put(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range append(keys, coveredKey) { // as an older plugin has left it
		if err := storage.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if got := found(t, storage, query); !slices.Equal(got, want) {
			t.Errorf("%d are found, want %d", len(got), len(want))
		}
		if err := Cover(t.Context(), storage, time.Unix((first+buckets)*600, 0), 8); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Retire(t.Context(), storage, time.Unix((first+buckets+1)*600, 0)); err != nil {
		t.Fatal(err)
	}
	if keys, err = logical.CollectKeysWithPrefix(t.Context(), storage, lookupPrefix); err != nil || len(keys) != 0 {
		t.Errorf("%d shards are left: %v", len(keys), err)
	}
}

func TestCovered(t *testing.T) {
	var known covered
	want := map[int64]bool{}
	for range 2000 {
		number := 3_000_000 + rand.Int64N(5000)
		known.add(bucketName(number))
		want[number] = true
	}
	known.add(bucketName(1)) // far away: it is looked at
	known.drop(3_002_000)
	for number := int64(2_999_990); number < 3_005_010; number++ {
		if got := known.has(bucketName(number)); got != want[number] && (got || number >= 3_002_000) {
			t.Fatalf("bucket %d: %t", number, got)
		}
	}
}

// BenchmarkLookup looks up the grants of a task among 10,000,000 of the past, of 30 days, and counts the entries that
// it reads.
func BenchmarkLookup(b *testing.B) {
	const first, buckets, each = int64(0x2da000), 4320, 2315
	storage := &readsOf{Storage: &logical.InmemStorage{}}
	random := rand.New(rand.NewPCG(1, 2))
	known := covered{}
	for at, left := first, int64(buckets); left > 0; {
		level := lookupLevels
		for int64(1)<<level > left || at&(1<<level-1) != 0 {
			level--
		}
		pairs := make([]uint64, 0, each<<level)
		for offset := range uint64(1) << level {
			known.add(bucketName(at + int64(offset)))
			for range each {
				pairs = append(pairs, random.Uint64()>>(64-hashBits)<<offsetBits|offset)
			}
		}
		slices.Sort(pairs)
		if _, err := writeNode(b.Context(), storage, level, at, slices.Compact(pairs)); err != nil {
			b.Fatal(err)
		}
		at, left = at+1<<level, left-1<<level
	}
	if err := changeCovered(b.Context(), storage, func(c *covered) { *c = known }); err != nil {
		b.Fatal(err)
	}
	all := pastOf(b, storage, first+buckets, 3, each)
	query := Query{Task: all[len(all)/2].Task}
	storage.reads.Store(0)
	rounds := 0
	for b.Loop() {
		rounds++
		if got := found(b, storage, query); len(got) == 0 {
			b.Fatal("nothing is found")
		}
	}
	b.ReportMetric(float64(storage.reads.Load())/float64(rounds), "reads/op")
}
