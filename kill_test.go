package precision

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// pressed is a fake target that kills first and is tidied up later.
type pressed struct {
	*providertest.Fake
	tidied, busy *atomic.Int64
}

func (p pressed) Kill(ctx context.Context, handle provider.Handle) (left bool, err error) {
	return true, p.Fake.Revoke(ctx, handle)
}

func (p pressed) Tidy(ctx context.Context, handle provider.Handle) error {
	if p.busy.Add(-1) >= 0 {
		return errors.New("the target is busy")
	}
	p.tidied.Add(1)
	return p.Fake.Revoke(ctx, handle)
}

// A lease is revoked when its credential is dead; what is left is tidied up behind
// it, in vain at first, and after a restart.
func TestWhatIsDeadIsTidiedUpLater(t *testing.T) {
	fake := &providertest.Fake{}
	target := pressed{fake, &atomic.Int64{}, &atomic.Int64{}}
	kind := fake.Type()
	kind.Open = func(provider.Settings, provider.Facts) (provider.Provider, error) { return target, nil }
	e := newEngineOn(t, fake, kind)
	e.initialize()
	target.busy.Store(1000)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	for range 2 { // Vault may ask again
		if err := e.revokeLease(minted.Secret); err != nil {
			t.Fatal(err)
		}
	}
	record := e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil).Data
	if fake.Live() != 0 || record["state"] != ledger.Revoked || record["untidy"] != true || target.tidied.Load() != 0 {
		t.Errorf("%d live, %d tidied, and the ledger says %v", fake.Live(), target.tidied.Load(), record)
	}
	if live := e.grants.Index.Count(ledger.Query{}, time.Now()); live != 0 {
		t.Errorf("%d grants are counted as live", live)
	}
	status := e.do(logical.ReadOperation, "tidy-status", nil).Data
	if left := status["untidy"].(map[string]int); left["db"] != 1 || len(left) != 1 {
		t.Errorf("tidy-status says that %v are untidy", left)
	}
	ended := record["ended_at"]
	target.busy.Store(1)
	e.backend = e.open(e.System())
	e.initialize()
	for range 300 {
		if record = e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil).Data; record["untidy"] == false {
			break
		}
		e.sweeper.Run(e.storage) // what has failed waits for longer each time, unless somebody asks
		time.Sleep(10 * time.Millisecond)
	}
	if record["untidy"] != false || record["state"] != ledger.Revoked || record["ended_at"] != ended || record["ending"] != ledger.LeaseRevoked || target.tidied.Load() != 1 {
		t.Errorf("tidied %d times, and the ledger says %v", target.tidied.Load(), record)
	}
}

// What is dead leaves room, whatever is left of it at the target; what is to end does
// not, until it has.
func TestWhatIsDeadLeavesRoom(t *testing.T) {
	fake := &providertest.Fake{}
	target := pressed{fake, &atomic.Int64{}, &atomic.Int64{}}
	kind := fake.Type()
	kind.Open = func(provider.Settings, provider.Facts) (provider.Provider, error) { return target, nil }
	e := newEngineOn(t, fake, kind)
	e.initialize()
	target.busy.Store(1000)
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"max_active": 1})
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	fake.OnRevoke = func() error { return errors.New("the target is on fire") }
	if err := e.revokeLease(minted.Secret); err == nil {
		t.Fatal("a revoke that failed has succeeded")
	}
	_, err := e.try(logical.ReadOperation, "creds/reset/T-2", nil)
	forbidden(t, err, "max_active is 1")
	fake.OnRevoke = nil
	for after, restart := range []bool{false, true} {
		if err := e.revokeLease(minted.Secret); err != nil {
			t.Fatal(err)
		}
		if restart {
			e.backend = e.open(e.System())
			e.initialize()
		}
		minted = e.do(logical.ReadOperation, fmt.Sprintf("creds/reset/T-%d", 3+after), nil)
		if fake.Live() != 1 || target.tidied.Load() != 0 {
			t.Errorf("restarted: %t: %d live, %d tidied", restart, fake.Live(), target.tidied.Load())
		}
	}
}
