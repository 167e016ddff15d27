package ledger

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestIDStartsWithItsBucket(t *testing.T) {
	early, late := NewID(now), NewID(now.Add(bucketSpan))
	if early[:bucketDigits] >= late[:bucketDigits] {
		t.Errorf("ids %s and %s do not sort by their ends", early, late)
	}
	if early == NewID(now) {
		t.Error("two ids are the same")
	}
	path, err := key(early)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^g/[0-9a-f]{8}/[0-9a-f]{8}[a-z2-7]{16}$`).MatchString(path) || !strings.HasPrefix(path[len("g/12345678/"):], path[2:10]) {
		t.Errorf("unexpected key %s", path)
	}
}

func TestLive(t *testing.T) {
	storage := &logical.InmemStorage{}
	put := func(state State, expiresAt time.Time) string {
		t.Helper()
		id := NewID(expiresAt)
		if err := Put(t.Context(), storage, Grant{ID: id, State: state, ExpiresAt: expiresAt}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	want := map[string]bool{put(Pending, now.Add(time.Second)): true, put(Pending, now.Add(90*24*time.Hour)): true}
	put(Pending, now)
	put(Pending, now.Add(-time.Hour))
	put(Ended, now.Add(time.Hour))
	put(Failed, now.Add(time.Hour))
	live, err := Live(t.Context(), storage, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(live) != len(want) {
		t.Errorf("%d grants live, want %d", len(live), len(want))
	}
	for _, grant := range live {
		if !want[grant.ID] {
			t.Errorf("grant %s is not live", grant.ID)
		}
	}
}

func TestGetUnknown(t *testing.T) {
	if _, err := Get(t.Context(), &logical.InmemStorage{}, NewID(now)); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// FuzzKey: an id from outside never names anything but a grant's own record.
func FuzzKey(f *testing.F) {
	for _, seed := range []string{"", "../../config/store", NewID(now), NewID(now) + "/x", NewID(now)[:10], "00000000aaaaaaaaaaaaaaa\n"} {
		f.Add(seed)
	}
	shape := regexp.MustCompile(`\Ag/[0-9a-f]{8}/[0-9a-f]{8}[a-z2-7]{16}\z`)
	f.Fuzz(func(t *testing.T, id string) {
		if path, err := key(id); err == nil && !shape.MatchString(path) {
			t.Fatalf("%q is kept at %q", id, path)
		}
	})
}
