package ledger

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// past is a grant of the bucket that ended at now, finished.
func past() Grant {
	grant := some(-time.Second)
	grant.State, grant.Ending, grant.EndedAt = Ended, LeaseRevoked, now.Add(-time.Minute)
	return grant
}

var (
	pastBucket = bucket(now.Add(-time.Second))
	longAgo    = now.Add(-time.Hour)
)

// history reads all that had its latest end from one time to another; the second
// result counts what could not be read.
func history(t *testing.T, storage logical.Storage, from, to time.Time) (all map[string]Grant, damaged int) {
	t.Helper()
	page, err := Finished(t.Context(), storage, Selection{
		From: from, Limit: 1_000_000,
		Skip:   func(string) bool { return false },
		Wanted: func(grant Grant) bool { return grant.Finished() && grant.ID[:bucketDigits] <= bucket(to) },
	})
	if err != nil || page.Next != "" {
		t.Fatalf("next %q, %v", page.Next, err)
	}
	all = map[string]Grant{}
	for _, grant := range page.Grants {
		if _, twice := all[grant.ID]; twice {
			t.Errorf("grant %s is in the history twice", grant.ID)
		}
		all[grant.ID] = grant
	}
	return all, page.Damaged
}

func wantHistory(t *testing.T, storage logical.Storage, want map[string]Grant) {
	t.Helper()
	got, failed := history(t, storage, longAgo, now)
	if failed > 0 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the history has %d grants, want %d, and %v", len(got), len(want), failed)
	}
}

func keysBelow(t *testing.T, storage logical.Storage, prefix string) []string {
	t.Helper()
	found, err := logical.CollectKeysWithPrefix(t.Context(), storage, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPack(t *testing.T) {
	storage, want := newStorage(), map[string]Grant{}
	for range 100 {
		grant := put(t, storage, past())
		want[grant.ID] = grant
	}
	future := put(t, storage, some(time.Hour))
	wantHistory(t, storage, want)
	if buckets, err := PastBuckets(t.Context(), storage, now); err != nil || fmt.Sprint(buckets) != fmt.Sprint([]string{pastBucket}) {
		t.Errorf("buckets %v have gone by, want %s: %v", buckets, pastBucket, err)
	}
	packed, err := Pack(t.Context(), storage, pastBucket)
	if err != nil || packed.Grants != 100 || packed.Damaged+len(packed.Unfinished) != 0 {
		t.Errorf("packed %+v, %v", packed, err)
	}
	wantHistory(t, storage, want)
	if left := keysBelow(t, storage, Prefix); len(left) != 1 || !strings.HasSuffix(left[0], future.ID) {
		t.Errorf("the records left are %v", left)
	}
	for _, span := range [][2]time.Time{{longAgo, now.Add(-20 * time.Minute)}, {now.Add(time.Hour), now.Add(2 * time.Hour)}} {
		if got, failed := history(t, storage, span[0], span[1]); len(got)+failed != 0 {
			t.Errorf("from %s to %s the history is %v, %v", span[0], span[1], got, failed)
		}
	}
	if packed, err := Pack(t.Context(), storage, pastBucket); err != nil || packed.Grants != 0 {
		t.Errorf("packed once more: %+v, %v", packed, err)
	}
}

// Segments stay small, whatever they hold.
func TestSegmentsAreSmall(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	storage, want := newStorage(), map[string]Grant{}
	noise := make([]byte, 1500)
	for i := range 3000 {
		grant := past()
		for j := range noise {
			noise[j] = byte(random.Uint32())
		}
		grant.Resource = hex.EncodeToString(noise[:500+i%1000]) // half of it is left when it is compressed
		put(t, storage, grant)
		want[grant.ID] = grant
	}
	if packed, err := Pack(t.Context(), storage, pastBucket); err != nil || packed.Grants != len(want) {
		t.Fatalf("packed %+v, %v", packed, err)
	}
	found := keysBelow(t, storage, HistoryPrefix)
	for _, key := range found {
		entry, err := storage.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(entry.Value) > maxSegment {
			t.Errorf("%s has %d bytes", key, len(entry.Value))
		}
	}
	if len(found) < 3 || len(found) > 20 {
		t.Errorf("%d segments", len(found))
	}
	wantHistory(t, storage, want)
}

// A crash at any operation loses nothing and shows nothing twice; the next try
// finishes what is left.
func TestPackCrashes(t *testing.T) {
	for call := 0; ; call++ {
		storage, want := newStorage(), map[string]Grant{}
		for range 5 {
			grant := put(t, storage, past())
			want[grant.ID] = grant
		}
		storage.failFrom(call, true)
		_, err := Pack(t.Context(), storage, pastBucket)
		storage.failFrom(-1, false)
		wantHistory(t, storage, want)
		if err == nil {
			if call != 17 {
				t.Errorf("a pack makes %d calls; the test is for 3 lists, 6 reads, 3 writes and 5 deletes", call)
			}
			return
		}
		if !errors.Is(err, errBroken) {
			t.Errorf("got %v, want %v", err, errBroken)
		}
		late := put(t, storage, past()) // was ended after the crash
		want[late.ID] = late
		if _, err := Pack(t.Context(), storage, pastBucket); err != nil {
			t.Fatal(err)
		}
		wantHistory(t, storage, want)
		if left := keysBelow(t, storage, Prefix); len(left) != 0 {
			t.Errorf("after a crash at call %d, records %v are left", call, left)
		}
	}
}

func TestWhatCanNotBePackedStays(t *testing.T) {
	storage := newStorage()
	ended := put(t, storage, past())
	unfinished := past()
	unfinished.State = Pending
	put(t, storage, unfinished)
	damaged := past()
	if err := storage.Put(t.Context(), &logical.StorageEntry{Key: Prefix + pastBucket + "/" + damaged.ID, Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	packed, err := Pack(t.Context(), storage, pastBucket)
	if err != nil || packed.Grants != 1 || packed.Damaged != 1 || len(packed.Unfinished) != 1 || packed.Unfinished[0].ID != unfinished.ID {
		t.Errorf("packed %+v, %v", packed, err)
	}
	got, failed := history(t, storage, longAgo, now)
	if len(got) != 1 || got[ended.ID].ID != ended.ID || failed != 1 {
		t.Errorf("the history is %v, %v", got, failed)
	}
	if _, err := Pack(t.Context(), storage, "../config"); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v for a name that is not a bucket", err)
	}
}

// A damaged segment hides what it held, nothing else, and is not written over.
func TestADamagedSegment(t *testing.T) {
	storage := newStorage()
	put(t, storage, past())
	if _, err := Pack(t.Context(), storage, pastBucket); err != nil {
		t.Fatal(err)
	}
	entry, err := storage.Get(t.Context(), segmentKey(pastBucket, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range [][]byte{nil, []byte("x"), entry.Value[:len(entry.Value)-9]} {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: segmentKey(pastBucket, 0), Value: value}); err != nil {
			t.Fatal(err)
		}
		later := put(t, storage, past())
		if _, err := Pack(t.Context(), storage, pastBucket); err != nil {
			t.Fatal(err)
		}
		got, failed := history(t, storage, longAgo, now)
		if len(got) < 1 || got[later.ID].ID != later.ID || failed != 1 {
			t.Errorf("the history is %v, %v", got, failed)
		}
	}
}

func TestRetire(t *testing.T) {
	storage := newStorage()
	old, recent := some(-48*time.Hour), past()
	old.State = Ended
	for _, grant := range []Grant{old, recent} {
		put(t, storage, grant)
		if _, err := Pack(t.Context(), storage, grant.ID[:bucketDigits]); err != nil {
			t.Fatal(err)
		}
	}
	damaged, pending := NewID(old.ExpiresAt), some(-48*time.Hour)
	if err := storage.Put(t.Context(), &logical.StorageEntry{Key: Prefix + damaged[:bucketDigits] + "/" + damaged, Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	put(t, storage, pending)
	if deleted, err := Retire(t.Context(), storage, now.Add(-24*time.Hour)); err != nil || deleted != 2 {
		t.Errorf("%d deleted, want a segment and a damaged record: %v", deleted, err)
	}
	wantHistory(t, storage, map[string]Grant{recent.ID: recent})
	if left := keysBelow(t, storage, Prefix); len(left) != 1 || !strings.HasSuffix(left[0], pending.ID) {
		t.Errorf("the records left are %v, want that of the pending grant", left)
	}
	for call := range 4 {
		storage.failFrom(call, true)
		if _, err := Retire(t.Context(), storage, now.Add(time.Hour)); !errors.Is(err, errBroken) {
			t.Errorf("got %v from storage that fails at call %d", err, call)
		}
	}
}

// BenchmarkPack packs the records of 10,000 users' grants.
func BenchmarkPack(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		storage := newStorage()
		for i := range 10_000 {
			grant := numbered(i)
			grant.ID, grant.State = past().ID, Ended
			put(b, storage, grant)
		}
		b.StartTimer()
		if packed, err := Pack(context.Background(), storage, pastBucket); err != nil || packed.Grants != 10_000 {
			b.Fatal(packed, err)
		}
	}
}

// A segment that a newer plugin wrote is said to be unreadable, and a line that can't be read hides no other.
func TestASegmentIsReadStrictly(t *testing.T) {
	grant := func(i int) Grant {
		return Grant{ID: fmt.Sprintf("%s%016d", pastBucket, 2000000+i), State: Ended, Target: "db"}
	}
	line := func(i int) string {
		text, err := json.Marshal(grant(i))
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	for name, c := range map[string]struct {
		text  string
		want  int
		newer bool
		err   bool
	}{
		"without a header": {line(1) + line(2), 2, false, false},
		"of this version":  {"{\"segment_version\":1}\n" + line(1) + line(2), 2, false, false},
		"of a newer one":   {"{\"segment_version\":99}\n" + line(1), 0, true, true},
		"a newer line":     {line(1) + "{\"id\":\"x\",\"new\":1}\n" + line(2), 2, true, true},
		"a damaged line":   {line(1) + "{\"id\":7}\n" + line(2), 2, false, true},
		"a torn line":      {line(1) + "{\"id\":", 1, false, true},
	} {
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		if _, err := writer.Write([]byte(c.text)); err != nil {
			t.Fatal(err)
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		storage := &logical.InmemStorage{}
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: segmentKey(pastBucket, 0), Value: packed.Bytes()}); err != nil {
			t.Fatal(err)
		}
		grants, err := readSegment(t.Context(), storage, pastBucket, 0)
		if len(grants) != c.want || (err != nil) != c.err || errors.Is(err, stored.ErrNewer) != c.newer || (err != nil && !errors.Is(err, ErrDamaged)) {
			t.Errorf("%s: %d grants, %v", name, len(grants), err)
		}
	}
}
