package precision

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// hanging is a target that is looked at for as long as it wants.
type hanging struct {
	*providertest.Fake
	looks *looks
}

type looks struct {
	mu   sync.Mutex
	on   bool
	free chan struct{}
	seen int
	then func() // called by each look, once it may go on
}

func (h hanging) Examine(ctx context.Context, _ scope.Scope, _ provider.Bounds) (provider.Findings, error) {
	h.looks.mu.Lock()
	on, free, then := h.looks.on, h.looks.free, h.looks.then
	h.looks.seen++
	h.looks.mu.Unlock()
	if on {
		select {
		case <-free:
		case <-ctx.Done():
			return provider.Findings{}, fmt.Errorf("the target hangs: %w", ctx.Err())
		}
	}
	if then != nil {
		then()
	}
	return provider.Findings{}, nil
}

func newHangingEngine(t *testing.T) (*engine, *looks) {
	fake, seen := &providertest.Fake{}, &looks{free: make(chan struct{})}
	kind := fake.Type()
	kind.Open = func(provider.Settings, provider.Facts) (provider.Provider, error) { return hanging{fake, seen}, nil }
	e := newEngineOn(t, fake, kind)
	e.initialize()
	if err := e.grants.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, seen
}

// A target that hangs while a role is checked holds up no other write, of this role neither.
func TestAHangingTargetHoldsUpNoOtherWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, target := newHangingEngine(t)
		defer e.Cleanup(context.Background())
		target.on = true
		answered := make(chan error, 1)
		go func() {
			response, err := e.try(logical.CreateOperation, "roles/slow", map[string]any{"target": "db", "action": "reset", "resource": "two"})
			if err == nil && response.IsError() {
				err = response.Error()
			}
			answered <- err
		}()
		synctest.Wait()
		target.mu.Lock()
		target.on = false
		target.mu.Unlock()
		e.do(logical.CreateOperation, "roles/other", map[string]any{"target": "db", "action": "reset", "resource": "one"})
		e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake"})
		e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake"})
		e.do(logical.DeleteOperation, "roles/slow", nil)
		e.do(logical.DeleteOperation, "roles/reset", nil)
		e.do(logical.UpdateOperation, "freeze", map[string]any{"target": "db", "reason": "INC-7"})
		select {
		case err := <-answered:
			t.Fatalf("the write did not hang: %v", err)
		default:
		}
		close(target.free)
		if err := <-answered; err != nil {
			t.Errorf("the write that hung comes to %v", err)
		}
		if e.do(logical.ReadOperation, "roles/slow", nil) == nil {
			t.Error("it was not stored")
		}
	})
}

// What was changed while a role was checked is kept: the write is checked again, on what is there then.
func TestAWriteDoesNotUndoAnother(t *testing.T) {
	e, target := newHangingEngine(t)
	defer e.Cleanup(context.Background())
	target.then = sync.OnceFunc(func() {
		target.mu.Lock()
		target.then = nil
		target.mu.Unlock()
		e.do(logical.UpdateOperation, "roles/reset", map[string]any{"resource": "two"})
	})
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"ttl": "5m"})
	if got := e.do(logical.ReadOperation, "roles/reset", nil).Data; got["resource"] != "two" || got["ttl"] != int64(300) {
		t.Errorf("the role is %v", got)
	}
}

// A role whose definition never stays is refused, and not stored on what was not checked.
func TestARoleThatIsAlwaysChangedIsRefused(t *testing.T) {
	e, target := newHangingEngine(t)
	defer e.Cleanup(context.Background())
	changes := 0
	target.then = func() {
		changes++
		entry := fmt.Appendf(nil, `{"target":"db","action":"reset","resource":"changed-%d"}`, changes)
		if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: rolePrefix + "reset", Value: entry}); err != nil {
			t.Error(err)
		}
	}
	_, err := e.try(logical.UpdateOperation, "roles/reset", map[string]any{"ttl": "5m"})
	var coded logical.HTTPCodedError
	if !errors.As(err, &coded) || coded.Code() != http.StatusConflict || changes != writeTries {
		t.Errorf("after %d changes: %v", changes, err)
	}
}

// A role is not stored on a target that was deleted while the role was checked.
func TestARoleIsNotStoredOnADeletedTarget(t *testing.T) {
	e, target := newHangingEngine(t)
	defer e.Cleanup(context.Background())
	e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake"})
	target.then = func() {
		target.mu.Lock()
		target.then = nil
		target.mu.Unlock()
		e.do(logical.DeleteOperation, "config/other", nil)
	}
	response, err := e.try(logical.CreateOperation, "roles/new", map[string]any{"target": "other", "action": "reset", "resource": "one"})
	if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "no such target") {
		t.Errorf("%v, %v", response, err)
	}
	if entry, err := e.storage.Get(t.Context(), rolePrefix+"new"); entry != nil || err != nil {
		t.Errorf("%v, %v", entry, err)
	}
}

// Locks of different keys don't wait for each other, and those of one do.
func TestKeyedLocks(t *testing.T) {
	var locks keyedLocks
	unlock := locks.lock("a")
	locks.lock("b")()
	counter := 0
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { defer locks.lock("a")(); counter++ })
	}
	unlock()
	all.Wait()
	if counter != 100 || len(locks.locks) != 0 {
		t.Errorf("%d, %d locks are left", counter, len(locks.locks))
	}
}
