package precision

import (
	"encoding/json"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// mountFixture is the storage of a mount as a released version wrote it.
type mountFixture struct {
	Plugin  string            `json:"plugin"`  // its version
	At      time.Time         `json:"at"`      // when it was written
	Active  string            `json:"active"`  // the grant that is live then
	Revoked string            `json:"revoked"` // the grant that has a record and was revoked
	Past    string            `json:"past"`    // the grant that is in a history segment
	Request string            `json:"request"` // the request that is approved
	Entries map[string][]byte `json:"entries"`
}

// fixtureEngine opens a mount on a storage at a time.
func fixtureEngine(t *testing.T, fake *providertest.FakeInstaller, storage *countingStorage, now func() time.Time) *engine {
	t.Helper()
	e := &engine{t: t, storage: storage, target: &fake.Fake, kind: fake.Type(), people: populated{&logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
		ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
	}, map[string]bool{}}}
	opened, err := newBackend(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: e.people, StorageView: storage, BackendUUID: "uuid"},
		[]provider.Type{e.kind}, now)
	if err != nil {
		t.Fatal(err)
	}
	e.backend = opened
	t.Cleanup(func() { e.Cleanup(t.Context()) })
	e.initialize()
	return e
}

// writeFixture has this version write a mount with an entry of each kind.
func writeFixture(t *testing.T, file string) {
	fake := &providertest.FakeInstaller{Learnt: provider.Findings{Facts: provider.Facts{"fact": "seen: "}}}
	storage := &countingStorage{}
	var at atomic.Int64 // an engine reads it behind requests, too
	at.Store(time.Now().Add(-72 * time.Hour).Unix())
	now := func() time.Time { return time.Unix(at.Load(), 0) }
	e := fixtureEngine(t, fake, storage, now)
	e.do(logical.CreateOperation, "config/db", map[string]any{"type": "fake", "password": "hunter2"})
	e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake"})
	e.do(logical.CreateOperation, "roles/reset", map[string]any{"target": "db", "action": "reset", "resource": "one", "ttl": "10m"})
	e.do(logical.CreateOperation, "roles/keyed", map[string]any{
		"target": "db", "action": "reset", "resource": "{{key}}", "parameters": map[string]any{"key": map[string]any{"one_of": []any{"one", "two"}}},
		"ttl": "10m", "max_ttl": "1h", "renewable": true, "max_active": 5, "task_pattern": "[A-Z]+-[0-9]+",
	})
	e.do(logical.CreateOperation, "roles/two", map[string]any{"target": "db", "action": "reset", "resource": "one", "ttl": "10m", "approvals": 1, "approval_ttl": "24h", "approval_uses": 3})
	fixture := mountFixture{Plugin: Version, Entries: map[string][]byte{}}
	past := e.readAs("alice", "creds/reset/T-1")
	fixture.Past = past.Data["grant_id"].(string)
	if err := e.revokeLease(past.Secret); err != nil {
		t.Fatal(err)
	}
	at.Store(now().Add(72 * time.Hour).Unix())
	e = fixtureEngine(t, fake, storage, now)
	if err := e.grants.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	packed := false
	for range 500 {
		e.sweeper.Run(storage)
		time.Sleep(10 * time.Millisecond)
		names, _ := storage.List(t.Context(), ledger.HistoryPrefix)
		if packed = len(names) > 0; packed {
			break
		}
	}
	if !packed {
		t.Fatal("nothing was packed")
	}
	fixture.Active = must(e.by("alice", logical.ReadOperation, "creds/keyed/T-2", map[string]any{"key": "one"})).Data["grant_id"].(string)
	revoked := e.readAs("alice", "creds/reset/T-2")
	fixture.Revoked = revoked.Data["grant_id"].(string)
	e.do(logical.UpdateOperation, "end", map[string]any{"grant_id": fixture.Revoked, "reason": "INC-1"})
	e.do(logical.UpdateOperation, "tidy-config", map[string]any{"retention": "2000h"})
	e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-2"})
	e.do(logical.UpdateOperation, "unfreeze", map[string]any{"role": "reset", "reason": "over"})
	e.do(logical.UpdateOperation, "freeze", map[string]any{"target": "other", "reason": "INC-3"})
	fixture.Request = e.approved("T-3")
	fixture.At = now()
	keys, err := logical.CollectKeys(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		entry, err := storage.Get(t.Context(), key)
		if err != nil || entry == nil {
			t.Fatal(key, err)
		}
		fixture.Entries[key] = entry.Value
	}
	text, err := json.MarshalIndent(fixture, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Log(strings.Join(keys, "\n"))
}
