package precision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ending"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// openFixture opens a mount that a released version wrote, at the time of the writing.
func openFixture(t *testing.T, file string) (*engine, mountFixture) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var fixture mountFixture
	if err := json.Unmarshal(text, &fixture); err != nil {
		t.Fatal(err)
	}
	storage := &countingStorage{}
	for key, value := range fixture.Entries {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	return reopen(t, storage, fixture.At), fixture
}

func reopen(t *testing.T, storage *countingStorage, at time.Time) *engine {
	t.Helper()
	fake := &providertest.FakeInstaller{Learnt: provider.Findings{Facts: provider.Facts{"fact": "seen: "}}}
	e := fixtureEngine(t, fake, storage, func() time.Time { return at })
	if err := e.grants.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// versioned says whether an entry has the envelope of this version.
func versioned(value []byte) bool {
	return bytes.HasPrefix(value, fmt.Appendf(nil, `{"version":%d,`, stored.Version))
}

// A mount of every released version is read, used and written by this one.
func TestAMountIsUpgraded(t *testing.T) {
	files, err := filepath.Glob("testdata/storage/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			e, fixture := openFixture(t, file)
			for id, want := range map[string]ledger.State{fixture.Active: ledger.Active, fixture.Revoked: ledger.Revoked, fixture.Past: ledger.Revoked} {
				if got := e.do(logical.ReadOperation, "grants/"+id, nil).Data; got["state"] != want || got["target"] != "db" {
					t.Errorf("grant %s is %v, want %s", id, got, want)
				}
			}
			if damaged := e.grants.Index.Damaged(); damaged != 0 {
				t.Errorf("%d records can't be read", damaged)
			}
			keyed := e.do(logical.ReadOperation, "roles/keyed", nil).Data
			if fmt.Sprint(keyed["max_active"], keyed["renewable"], keyed["ttl"]) != "5 true 600" {
				t.Errorf("the role is read as %v", keyed)
			}
			if got := e.do(logical.ReadOperation, "tidy-config", nil).Data["retention"]; got != int64(2000*3600) {
				t.Errorf("retention is %v", got)
			}
			frozen := e.do(logical.ReadOperation, "freeze", nil).Data
			if fmt.Sprint(frozen["frozen"]) == "[]" || fmt.Sprint(frozen["lifted"]) == "[]" {
				t.Errorf("the freezes are %v", frozen)
			}
			if got := e.do(logical.ReadOperation, "end-status", nil).Data["ends"].([]map[string]any); len(got) != 1 || got[0]["matched"] != 1 {
				t.Errorf("the ends are %v", got)
			}
			if err := e.take("T-3"); err != nil {
				t.Errorf("what was approved before the upgrade is refused: %v", err)
			}
			minted := must(e.by("alice", logical.ReadOperation, "creds/keyed/T-9", map[string]any{"key": "two"}))
			if err := e.revokeLease(minted.Secret); err != nil {
				t.Error(err)
			}
			e.do(logical.UpdateOperation, "roles/reset", map[string]any{"ttl": "5m"})
			entry, err := e.storage.Get(t.Context(), rolePrefix+"reset")
			if err != nil || !versioned(entry.Value) {
				t.Errorf("the role was written without a version: %s, %v", entry.Value, err)
			}
		})
	}
}

// newestMount is a mount with an entry of each kind, as this version writes them.
func newestMount(t *testing.T) mountFixture {
	t.Helper()
	file := filepath.Join(t.TempDir(), "newest.json")
	writeFixture(t, file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var fixture mountFixture
	if err := json.Unmarshal(text, &fixture); err != nil {
		t.Fatal(err)
	}
	return fixture
}

// Every entry that this version writes carries a version. The ledger's id is text, and never changes.
func TestEveryEntryIsVersioned(t *testing.T) {
	kinds := map[string]bool{}
	for key, value := range newestMount(t).Entries {
		kind, _, _ := strings.Cut(key, "/")
		kinds[kind] = true
		switch {
		case key == "ledger/id", key == "ledger/proven":
		case strings.HasPrefix(key, ledger.OwnPrefix+"lookup/"): // binary
			if value[0] != stored.Version {
				t.Errorf("%s has version %d", key, value[0])
			}
		case strings.HasPrefix(key, ledger.HistoryPrefix): // compressed; the ledger's own tests read its header
		case !versioned(value):
			t.Errorf("%s has no version: %s", key, value)
		}
	}
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, []string{"config", "e", "freeze", "g", "h", "i", "ledger", "requests", "roles", "tidy-config", "versions"}) {
		t.Errorf("the kinds of entries are %q", got)
	}
}

// newer says whether an error is the refusal of what a newer plugin wrote.
func newer(response *logical.Response, err error) bool {
	var coded logical.HTTPCodedError
	if errors.As(err, &coded) && coded.Code() != http.StatusConflict {
		return false
	}
	text := fmt.Sprint(err)
	if response != nil && response.IsError() {
		text += response.Error().Error()
	}
	return strings.Contains(text, stored.ErrNewer.Error())
}

// Nothing is minted from what a newer plugin wrote, reads say so, and nothing overwrites it: neither an entry of a newer
// version, nor one with a field that this version does not know.
func TestADowngradeIsRefused(t *testing.T) {
	fixture := newestMount(t)
	for name, change := range map[string]func(value []byte) []byte{
		"version": func(value []byte) []byte {
			return bytes.Replace(value, fmt.Appendf(nil, `{"version":%d`, stored.Version), fmt.Appendf(nil, `{"version":%d`, stored.Version+1), 1)
		},
		"field": func(value []byte) []byte {
			return bytes.Replace(value, []byte(`"entry":{`), []byte(`"entry":{"only_in_office_hours":true,`), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			storage := &countingStorage{}
			want := map[string][]byte{}
			for key, value := range fixture.Entries {
				changed := change(value)
				if name == "field" && strings.HasPrefix(key, openRequests) {
					changed = bytes.Replace(value, []byte(`[{`), []byte(`[{"only_in_office_hours":true,`), 1)
				}
				if !bytes.Equal(changed, value) {
					want[key] = changed
				}
				if err := storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: changed}); err != nil {
					t.Fatal(err)
				}
			}
			e := reopen(t, storage, fixture.At)
			refused := func(entity string, operation logical.Operation, path string, data map[string]any) {
				t.Helper()
				if response, err := e.by(entity, operation, path, data); !newer(response, err) {
					t.Errorf("%s %s comes to %v, %v", operation, path, response, err)
				}
			}
			for _, path := range []string{"roles/reset", "config/db", "tidy-config", "grants/" + fixture.Active, "grants/" + fixture.Revoked, "requests/" + fixture.Request, "creds/reset/T-1", "preview/reset/T-1"} {
				refused("alice", logical.ReadOperation, path, nil)
			}
			refused("alice", logical.ReadOperation, "creds/two/T-3", nil)
			refused("", logical.UpdateOperation, "roles/reset", map[string]any{"target": "db", "action": "reset", "resource": "one"})
			refused("", logical.PatchOperation, "roles/reset", map[string]any{"ttl": "1m"})
			refused("", logical.UpdateOperation, "config/db", map[string]any{"type": "fake"})
			refused("", logical.UpdateOperation, "tidy-config", map[string]any{"retention": "1h"})
			refused("", logical.UpdateOperation, "unfreeze", map[string]any{"target": "other", "reason": "over"})
			refused("bob", logical.UpdateOperation, "requests/"+fixture.Request+"/deny", nil)

			grants := must(e.by("", logical.ReadOperation, "grants", nil))
			if got := grants.Data["unreadable"].([]map[string]any); len(got) == 0 || got[0]["problem"] != stored.ErrNewer.Error() || len(grants.Warnings) == 0 {
				t.Errorf("grants says %v, %v", got, grants.Warnings)
			}
			if got := must(e.by("", logical.ReadOperation, "end-status", nil)); len(got.Warnings) != 1 {
				t.Errorf("end-status says %v", got)
			}
			if got := must(e.by("", logical.ListOperation, "requests/", nil)); len(got.Warnings) != 1 {
				t.Errorf("the list of requests says %v", got)
			}
			if got := must(e.by("", logical.ReadOperation, "freeze", nil)); !strings.Contains(fmt.Sprint(got.Data["frozen"]), stored.ErrNewer.Error()) {
				t.Errorf("freeze says %v", got.Data)
			}
			for range 3 { // a sweep with all its steps
				e.sweeper.Run(storage)
				time.Sleep(20 * time.Millisecond)
			}
			for key, value := range want {
				if entry, err := storage.Get(t.Context(), key); err != nil || entry == nil || !bytes.Equal(entry.Value, value) {
					t.Errorf("%s is %v now, %v", key, entry, err)
				}
			}
			if e.target.Live() != 0 {
				t.Errorf("%d credentials were minted", e.target.Live())
			}
		})
	}
}

// A lease still revokes its credential where a newer plugin wrote the record, which stays as it is.
func TestALeaseRevokesWhatANewerPluginRecorded(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"max_active": 1})
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	id := minted.Data["grant_id"].(string)
	key := ledger.Prefix + id[:8] + "/" + id
	record := []byte(`{"version":99,"entry":{"role":"reset","task":"T-1"}}`)
	e.damage(key, record)
	_, err := e.try(logical.ReadOperation, "creds/reset/T-2", nil)
	forbidden(t, err, "max_active is 1")
	if err := e.revokeLease(minted.Secret); err != nil || e.target.Live() != 0 {
		t.Errorf("%v, %d live", err, e.target.Live())
	}
	if entry, err := e.storage.Get(t.Context(), key); err != nil || !bytes.Equal(entry.Value, record) {
		t.Errorf("the record is %s, %v", entry.Value, err)
	}
	e.do(logical.ReadOperation, "creds/reset/T-2", nil) // the limit has room again
}

// damage replaces an entry and opens the mount again.
func (e *engine) damage(key string, value []byte) {
	e.t.Helper()
	if err := e.storage.Put(e.t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
		e.t.Fatal(err)
	}
	e.backend = e.open(e.System())
	e.initialize()
	if err := e.grants.Await(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// A note of a rotation that a newer plugin wrote is kept for it.
func TestANewerNoteIsKept(t *testing.T) {
	e := newEngine(t)
	if err := e.rollBack(t.Context(), &logical.Request{Storage: e.storage}, walRotation, map[string]any{"version": 99, "target": "db"}); !errors.Is(err, stored.ErrNewer) {
		t.Error(err)
	}
	if _, err := framework.ListWAL(t.Context(), e.storage); err != nil {
		t.Error(err)
	}
}

// No kind of entry of version 0 begins as an envelope does.
func TestNoOldEntryLooksLikeANewOne(t *testing.T) {
	for _, entry := range []any{role{}, target{}, tidyConfig{}, admission.Freeze{}, ledger.Grant{}, ledger.Installation{}, ending.End{}} {
		text, err := json.Marshal(entry)
		if err != nil || bytes.Contains(text[:min(len(text), 12)], []byte(`"version"`)) {
			t.Errorf("%T is %s, %v", entry, text, err)
		}
	}
}
