package precision

import (
	"context"
	"encoding/json"
	"errors"
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

// countingStorage counts what a request does to storage, and refuses writes as
// a standby's storage does where it is told to.
type countingStorage struct {
	logical.InmemStorage
	reads, writes atomic.Int64
	records       atomic.Int64 // reads of the ledger
	readOnly      atomic.Bool
	breaks        atomic.Bool // takes a write, and says that it has failed
}

var errBroken = errors.New("storage broke")

func (s *countingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.reads.Add(1)
	if strings.HasPrefix(key, ledger.Prefix) {
		s.records.Add(1)
	}
	return s.InmemStorage.Get(ctx, key)
}

func (s *countingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.readOnly.Load() {
		return logical.ErrReadOnly
	}
	s.writes.Add(1)
	if err := s.InmemStorage.Put(ctx, entry); err != nil || !s.breaks.Load() {
		return err
	}
	return errBroken
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	if s.readOnly.Load() {
		return logical.ErrReadOnly
	}
	s.writes.Add(1)
	return s.InmemStorage.Delete(ctx, key)
}

// populated is a system view that knows every entity, but those that were merged.
type populated struct {
	*logical.StaticSystemView
	merged map[string]bool
}

func (p populated) EntityInfo(id string) (*logical.Entity, error) {
	if p.merged[id] {
		return nil, nil
	}
	return &logical.Entity{ID: id}, nil
}

// engine is a backend on a fake target, with target "db" and role "reset".
type engine struct {
	*backend
	t       testing.TB
	storage *countingStorage
	target  *providertest.Fake
	kind    provider.Type
	people  populated // where approvals are tested
}

func newEngine(t testing.TB) *engine {
	fake := &providertest.Fake{}
	return newEngineOn(t, fake, fake.Type())
}

// newEngineOn is an engine whose target is of another type, which is a kind of fake.
func newEngineOn(t testing.TB, fake *providertest.Fake, kind provider.Type) *engine {
	e := &engine{t: t, storage: &countingStorage{}, target: fake, kind: kind}
	e.backend = e.open(&logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
		ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
	})
	e.do(logical.CreateOperation, "config/db", map[string]any{"type": "fake", "password": "hunter2"})
	e.do(logical.CreateOperation, "roles/reset", map[string]any{"target": "db", "action": "reset", "resource": "one", "ttl": "10m"})
	return e
}

// open makes another backend on the engine's storage and target.
func (e *engine) open(system logical.SystemView) *backend {
	e.t.Helper()
	opened, err := newBackend(e.t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: system, StorageView: e.storage, BackendUUID: "uuid"},
		[]provider.Type{e.kind}, time.Now)
	if err != nil {
		e.t.Fatal(err)
	}
	return opened
}

func (e *engine) try(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	return e.HandleRequest(e.t.Context(), &logical.Request{Operation: operation, Path: path, Data: data, Storage: e.storage})
}

// do demands that the request succeeds.
func (e *engine) do(operation logical.Operation, path string, data map[string]any) *logical.Response {
	e.t.Helper()
	response, err := e.try(operation, path, data)
	if err != nil || (response != nil && response.IsError()) {
		e.t.Fatalf("%s %s: %v %v", operation, path, response, err)
	}
	return response
}

// kept is a lease as Vault keeps it: as JSON.
func kept(t testing.TB, secret *logical.Secret) *logical.Secret {
	t.Helper()
	text, err := json.Marshal(secret.InternalData)
	if err != nil {
		t.Fatal(err)
	}
	read := *secret
	read.InternalData = nil
	if err := json.Unmarshal(text, &read.InternalData); err != nil {
		t.Fatal(err)
	}
	return &read
}

func (e *engine) revokeLease(lease *logical.Secret) error {
	response, err := e.HandleRequest(e.t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/reset", Secret: kept(e.t, lease), Storage: e.storage})
	if err == nil && response != nil && response.IsError() {
		e.t.Errorf("a revoke answers with an error response, which Vault would not retry: %v", response.Error())
	}
	return err
}
