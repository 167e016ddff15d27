package sweep

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// tended is a target whose access has to be kept up.
type tended struct {
	*providertest.Fake
	now, all atomic.Int32 // tending at the moment, and begun in all
	fails    error
}

func (t *tended) Tend(ctx context.Context) error {
	t.now.Add(1)
	defer t.now.Add(-1)
	t.all.Add(1)
	if t.fails != nil {
		return t.fails
	}
	<-ctx.Done()
	return nil
}

// Each target that needs it is tended until the next minute's turn, or until the mount
// is unloaded; the others are left alone, and nobody waits.
func TestTargetsAreTended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, other, failing := &tended{Fake: w.target}, &tended{Fake: w.target}, &tended{Fake: w.target, fails: errors.New("away")}
		targets := []Target{{Name: "one", Provider: one}, {Name: "plain", Provider: w.target}, {Name: "broken", Problem: errors.New("x")}, {Name: "failing", Provider: failing}, {Name: "other", Provider: other}}
		w.Targets = func(context.Context, logical.Storage) ([]Target, error) { return targets, nil }
		for minute := range 3 {
			w.Tend(w.storage)
			synctest.Wait()
			if one.now.Load() < 1 || other.now.Load() < 1 {
				t.Errorf("in minute %d %d and %d tend", minute, one.now.Load(), other.now.Load())
			}
			time.Sleep(time.Minute)
			if one.now.Load() != 1 {
				t.Errorf("after minute %d %d tend one target", minute, one.now.Load())
			}
		}
		targets = targets[:1]
		w.Tend(w.storage)
		time.Sleep(tendFor - time.Minute + time.Second)
		if other.now.Load() != 0 || one.now.Load() != 1 || failing.all.Load() != 3 {
			t.Errorf("a target that is not configured any more is tended by %d, the other one by %d, and one that fails was by %d", other.now.Load(), one.now.Load(), failing.all.Load())
		}
		w.Grants.Close()
		synctest.Wait()
		if one.now.Load() != 0 {
			t.Error("a target is tended although the mount is unloaded")
		}
	})
}

// Why a target's access can't be kept up is said once, and is in the status until it can.
func TestWhatCantBeKeptUpIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var said strings.Builder
		w.Log = hclog.New(&hclog.LoggerOptions{Output: &said})
		target := &tended{Fake: w.target, fails: errors.New("refused")}
		targets := []Target{{Name: "one", Provider: target}}
		w.Targets = func(context.Context, logical.Storage) ([]Target, error) { return targets, nil }
		after := func(minutes int) (status map[string]string) {
			for range minutes {
				w.Tend(w.storage)
				time.Sleep(time.Minute)
			}
			synctest.Wait()
			return w.Status().Access
		}
		if status := after(5); status["one"] != "refused" || len(status) != 1 {
			t.Errorf("the status says %v", status)
		}
		if times := strings.Count(said.String(), "could not be kept up"); times != 1 {
			t.Errorf("it was said %d times: %s", times, said.String())
		}
		target.fails = errors.New("sealed")
		if status := after(2); status["one"] != "sealed" || strings.Count(said.String(), "could not be kept up") != 2 {
			t.Errorf("of another reason the status says %v, the log %s", status, said.String())
		}
		target.fails = nil
		if status := after(2); len(status) != 0 || strings.Count(said.String(), "kept up again") != 1 {
			t.Errorf("once it can, the status says %v, the log %s", status, said.String())
		}
		target.fails = errors.New("sealed")
		after(1)
		targets = nil
		if status := after(1); len(status) != 0 {
			t.Errorf("of a target that is not configured any more the status says %v", status)
		}
		w.Grants.Close()
	})
}
