package precision

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
)

// fullDisk is a storage that takes no writes while it is full, and can be read.
type fullDisk struct {
	logical.Storage
	full atomic.Bool
}

var errFull = errors.New("write /vault/data: no space left on device")

func (s *fullDisk) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.full.Load() {
		return errFull
	}
	return s.Storage.Put(ctx, entry)
}

func (s *fullDisk) Delete(ctx context.Context, key string) error {
	if s.full.Load() {
		return errFull
	}
	return s.Storage.Delete(ctx, key)
}

// onDisk is an engine on a disk that can fill up.
func onDisk(t *testing.T) (*engine, *fullDisk, func(operation logical.Operation, path string, data map[string]any) (*logical.Response, error)) {
	e := newEngine(t)
	disk := &fullDisk{Storage: e.storage}
	opened, err := newBackend(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: e.System(), StorageView: disk, BackendUUID: "uuid"},
		[]provider.Type{e.kind}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	e.backend = opened
	if err := e.Initialize(t.Context(), &logical.InitializationRequest{Storage: disk}); err != nil {
		t.Fatal(err)
	}
	if err := e.grants.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, disk, func(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
		return e.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: path, Data: data, MountPoint: "precision/", Storage: disk})
	}
}

// The emergency stop needs no write: a freeze, a bulk revocation and a revoke work on a full disk, say what is in memory
// only, and are recorded as soon as storage takes it.
func TestTheEmergencyStopNeedsNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, disk, do := onDisk(t)
		defer e.Cleanup(context.Background())
		leased := must(do(logical.ReadOperation, "creds/reset/T-1", nil))
		other := must(do(logical.ReadOperation, "creds/reset/T-2", nil))
		disk.full.Store(true)

		answer := must(do(logical.UpdateOperation, "freeze", map[string]any{"all": true, "reason": "INC-7"}))
		if answer.Data["in_memory"] != true || len(answer.Warnings) != 1 {
			t.Errorf("freeze answers %v, %v", answer.Data, answer.Warnings)
		}
		if _, err := do(logical.ReadOperation, "creds/reset/T-3", nil); !frozen(err) {
			t.Errorf("a mint comes to %v", err)
		}
		_, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/reset", Secret: kept(t, leased.Secret), Storage: disk})
		var coded logical.HTTPCodedError
		if !errors.As(err, &coded) || coded.Code() != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "is revoked at its target") {
			t.Errorf("a revoke comes to %v", err)
		}
		if got := e.target.Live(); got != 1 {
			t.Errorf("%d live after the revoke", got)
		}
		ended := must(do(logical.UpdateOperation, "end", map[string]any{"all": true, "reason": "INC-7"}))
		if ended.Data["ended"] != 1 || ended.Data["failed"] != 0 || ended.Data["recorded"] != false || e.target.Live() != 0 {
			t.Errorf("end answers %v, %d live", ended.Data, e.target.Live())
		}
		if !strings.Contains(strings.Join(ended.Warnings, " "), "in memory only") {
			t.Errorf("end warns of %q", ended.Warnings)
		}
		for _, minted := range []*logical.Response{leased, other} {
			if got := must(do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil)).Data["state"]; got != ledger.Revoked {
				t.Errorf("grants says %v", got)
			}
		}
		if got := must(do(logical.ReadOperation, "tidy-status", nil)).Data["unwritten"]; got != 3 {
			t.Errorf("%v records are unwritten", got)
		}

		disk.full.Store(false)
		time.Sleep(2 * time.Minute) // more than any pause
		if got := must(do(logical.ReadOperation, "tidy-status", nil)).Data["unwritten"]; got != 0 {
			t.Errorf("%v records are unwritten once storage takes them", got)
		}
		if err := e.revokeLease(leased.Secret); err != nil {
			t.Errorf("Vault's next try comes to %v", err)
		}
		e.backend = e.open(e.System())
		e.initialize()
		defer e.Cleanup(context.Background())
		if _, err := e.try(logical.ReadOperation, "creds/reset/T-3", nil); !frozen(err) {
			t.Errorf("after a restart a mint comes to %v", err)
		}
		for _, minted := range []*logical.Response{leased, other} {
			if got := e.grantState(minted); got != ledger.Revoked {
				t.Errorf("after a restart grants says %v", got)
			}
		}
		if got := e.do(logical.ReadOperation, "end-status", nil).Data["ends"].([]map[string]any); len(got) != 1 || got[0]["ended"] != 1 || got[0]["running"] != false {
			t.Errorf("after a restart end-status says %v", got)
		}
	})
}

// A freeze that is in memory only can be lifted there.
func TestAFreezeInMemoryIsLifted(t *testing.T) {
	e, disk, do := onDisk(t)
	defer e.Cleanup(context.Background())
	disk.full.Store(true)
	must(do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"}))
	if again := must(do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"})); len(again.Warnings) != 2 {
		t.Errorf("a second freeze warns of %q", again.Warnings)
	}
	must(do(logical.UpdateOperation, "unfreeze", map[string]any{"role": "reset", "reason": "over"}))
	disk.full.Store(false)
	must(do(logical.ReadOperation, "creds/reset/T-1", nil))
}

// A freeze that storage has cannot be lifted without a write: it stays in force.
func TestAStoredFreezeStaysWhileStorageIsFull(t *testing.T) {
	e, disk, do := onDisk(t)
	defer e.Cleanup(context.Background())
	must(do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"}))
	disk.full.Store(true)
	if _, err := do(logical.UpdateOperation, "unfreeze", map[string]any{"role": "reset", "reason": "over"}); !errors.Is(err, errFull) {
		t.Errorf("unfreeze comes to %v", err)
	}
	disk.full.Store(false)
	if _, err := do(logical.ReadOperation, "creds/reset/T-1", nil); !frozen(err) {
		t.Errorf("a mint comes to %v", err)
	}
}

// Sessions are denied at their target while storage takes no writes. What was written there is recorded once storage
// takes it, so that a restart does not take the storage for a restored one.
func TestSessionsAreRevokedOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &machineTarget{
			managed: map[int]revocation.Managed{}, sessions: map[revocation.Code]time.Time{}, logins: map[string]time.Time{},
		}
		disk := &fullDisk{Storage: &logical.InmemStorage{}}
		var opened *backend
		boot := func() {
			kind := provider.Type{Name: "machine", Open: func(provider.Settings, provider.Facts) (provider.Provider, error) {
				return &machineProvider{machineTarget: target}, nil
			}}
			system := &logical.StaticSystemView{
				DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
				ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
			}
			config := &logical.BackendConfig{
				Logger: hclog.NewNullLogger(), StorageView: disk, BackendUUID: "uuid", System: system,
			}
			var err error
			if opened, err = newBackend(t.Context(), config, []provider.Type{kind}, time.Now); err != nil {
				t.Fatal(err)
			}
			if err := opened.initialize(t.Context(), &logical.InitializationRequest{Storage: disk}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		do := func(operation logical.Operation, path string, data map[string]any) *logical.Response {
			t.Helper()
			return must(opened.HandleRequest(t.Context(), &logical.Request{
				Operation: operation, Path: path, Data: data, MountPoint: "precision/", Storage: disk,
			}))
		}
		boot()
		do(logical.CreateOperation, "config/cloud", map[string]any{"type": "machine"})
		do(logical.CreateOperation, "roles/session-a", map[string]any{
			"target": "cloud", "action": "reset", "resource": "one", "ttl": "1h", "max_ttl": "4h",
		})
		leased := do(logical.ReadOperation, "creds/session-a/T-1", nil)
		do(logical.ReadOperation, "creds/session-a/T-2", nil)
		disk.full.Store(true)

		_, err := opened.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.RevokeOperation, Path: "creds/session-a", Secret: kept(t, leased.Secret), Storage: disk,
		})
		var coded logical.HTTPCodedError
		if !errors.As(err, &coded) || coded.Code() != http.StatusServiceUnavailable ||
			!strings.Contains(err.Error(), "is revoked at its target") || len(target.denied()) != 1 {
			t.Errorf("a revoke comes to %v, %d are denied", err, len(target.denied()))
		}
		ended := do(logical.UpdateOperation, "end", map[string]any{"all": true, "reason": "INC-7"})
		if ended.Data["ended"] != 1 || ended.Data["failed"] != 0 || ended.Data["recorded"] != false ||
			len(target.denied()) != 2 {
			t.Errorf("end answers %v, %d are denied", ended.Data, len(target.denied()))
		}
		// Two grants, and what was written at the target.
		if got := do(logical.ReadOperation, "tidy-status", nil).Data["unwritten"]; got != 3 {
			t.Errorf("%v records are unwritten", got)
		}

		disk.full.Store(false)
		time.Sleep(2 * time.Minute) // more than any pause
		if got := do(logical.ReadOperation, "tidy-status", nil).Data["unwritten"]; got != 0 {
			t.Errorf("%v records are unwritten once storage takes them", got)
		}
		opened.Cleanup(context.Background())
		boot()
		defer func() { opened.Cleanup(context.Background()) }()
		do(logical.UpdateOperation, "tidy", nil)
		synctest.Wait()
		status := do(logical.ReadOperation, "tidy-status", nil).Data
		if status["restored"].(map[string]any)["suspected"] != false {
			t.Errorf("after a restart, the storage is taken for another: %v", status["restored"])
		}
		if len(target.denied()) != 2 {
			t.Errorf("after a restart, %d sessions are denied", len(target.denied()))
		}
		do(logical.ReadOperation, "creds/session-a/T-3", nil)
	})
}
