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
