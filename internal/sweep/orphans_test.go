package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// finder is a fake target that lists what bears a mark.
type finder struct {
	*providertest.Fake
	marked []provider.Marked
	fails  error // at the end of the list
	looks  int
}

func (f *finder) Marked(_ context.Context, _ string, known func(string, provider.Handle) bool) iter.Seq2[provider.Marked, error] {
	f.looks++
	return func(yield func(provider.Marked, error) bool) {
		for _, marked := range f.marked {
			if !known(marked.Grant, nil) && !yield(marked, nil) {
				return
			}
		}
		if f.fails != nil {
			yield(provider.Marked{}, f.fails)
		}
	}
}

// found is a world whose target can be listed.
func found(t *testing.T) (*world, *finder) {
	w := newWorld(t)
	target := &finder{Fake: w.target}
	w.targets = []Target{{Name: "store", Provider: target}}
	return w, target
}

// leave puts an object at the target that the ledger does not know, with a mark
// of this ledger.
func (w *world) leave(target *finder, endsAt time.Time) *provider.Marked {
	w.t.Helper()
	own, err := w.Grants.LedgerID(w.t.Context(), w.storage)
	if err != nil {
		w.t.Fatal(err)
	}
	id := ledger.NewID(endsAt)
	handle := provider.Handle{"fake_grant": id, "user_name": "user-of-" + id}
	if _, err := w.target.Mint(w.t.Context(), handle, "", endsAt); err != nil {
		w.t.Fatal(err)
	}
	target.marked = append(target.marked, provider.Marked{Handle: handle, Mount: "mount", Ledger: own, Grant: id, Role: "upload", ExpiresAt: endsAt})
	return &target.marked[len(target.marked)-1]
}

func (w *world) wantLive(want int) {
	w.t.Helper()
	if live := w.target.Live(); live != want {
		w.t.Errorf("at %s %d credentials live, want %d", w.clock.Format(time.TimeOnly), live, want)
	}
}

// An orphan is reported at once, ended after the end that its mark states, and
// then in the ledger.
func TestAnOrphanIsEndedAfterItsEnd(t *testing.T) {
	w, target := found(t)
	endsAt := w.clock.Add(30 * time.Minute) // the end of a bucket, so its id says no more
	orphan := w.leave(target, endsAt.Add(-time.Second))
	w.want(Result{})
	step := w.Status().Orphans.Targets[0]
	if len(step.Orphans) != 1 || step.Orphans[0].Fate != Waits || step.Orphans[0].Grant != orphan.Grant || step.Orphans[0].Name != orphan.Handle["user_name"] {
		t.Errorf("the status says %+v", step)
	}
	w.clock = endsAt.Add(ledger.SweepDelay - time.Second)
	w.Run(w.storage)
	w.idle()
	w.wantLive(1)
	w.clock = w.clock.Add(time.Second)
	w.Run(w.storage)
	w.idle()
	w.wantLive(0)
	if grant := w.stored(orphan.Grant); grant.State != ledger.Ended || grant.Ending != ledger.Orphaned || grant.Role != "upload" || grant.Target != "store" {
		t.Errorf("the ledger says %+v", grant)
	}
	if fate := w.Status().Orphans.Targets[0].Orphans[0].Fate; fate != IsEnded {
		t.Errorf("the status says %q", fate)
	}
}

// idle waits until no sweep is under way.
func (w *world) idle() {
	for w.running.Load() {
		time.Sleep(time.Millisecond)
	}
}

// A renewal may have moved the end after the mark was made; the id knows how far.
func TestAnOrphansIDSaysHowLongItMayLive(t *testing.T) {
	w, target := found(t)
	orphan := w.leave(target, w.clock.Add(8*time.Hour))
	orphan.ExpiresAt = w.clock.Add(-time.Hour)
	w.want(Result{})
	w.wantLive(1)
}

// What is not marked as this mount's and this ledger's is never touched, and
// neither is what states no end.
func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*provider.Marked){
		"another ledger": func(m *provider.Marked) { m.Ledger = "another" },
		"no ledger":      func(m *provider.Marked) { m.Ledger = "" },
		"another mount":  func(m *provider.Marked) { m.Mount = "another" },
		"no mark":        func(m *provider.Marked) { m.Mount, m.Ledger, m.Grant = "", "", "" },
		"no end":         func(m *provider.Marked) { m.ExpiresAt = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			w, target := found(t)
			change(w.leave(target, w.clock.Add(-time.Hour)))
			w.want(Result{})
			w.wantLive(1)
			step := w.Status().Orphans.Targets[0]
			if got, want := fmt.Sprint(step.Foreign, len(step.Orphans)), map[bool]string{true: "0 1", false: "1 0"}[name == "no end"]; got != want {
				t.Errorf("foreign and orphans: %s, want %s", got, want)
			}
		})
	}
}

// A mark whose grant has no proper id is this ledger's all the same.
func TestAnOrphanWithoutAnID(t *testing.T) {
	for _, id := range []string{"", "made by hand", "../../config", "00000000"} {
		w, target := found(t)
		w.leave(target, w.clock.Add(-time.Hour)).Grant = id
		w.want(Result{Orphans: 1})
		w.wantLive(0)
	}
}

// It is one grant of the ledger, however often it is met.
func TestAnOrphanWithoutAnIDThatCanNotBeEnded(t *testing.T) {
	w, target := found(t)
	w.leave(target, w.clock.Add(-time.Hour)).Grant = "by hand"
	w.target.OnRevoke = func() error { return errors.New("no") }
	for range 5 {
		w.clock = w.clock.Add(2 * time.Hour)
		w.sweep(t.Context(), w.storage)
	}
	if got := len(w.Grants.Index.Open(ledger.Query{}, w.clock)); got != 1 {
		t.Errorf("the ledger has %d grants of one object", got)
	}
	w.target.OnRevoke = nil
	w.clock = w.clock.Add(2 * time.Hour)
	w.sweep(t.Context(), w.storage)
	w.wantLive(0)
}

// What lives is left to its lease, and what is left of a finished grant is ended
// again, from a record and from the history, but not while a list may be stale.
func TestWhatTheLedgerKnows(t *testing.T) {
	w, target := found(t)
	live := w.issue(10 * time.Hour)
	finished := w.issue(time.Minute)
	end := func() {
		t.Helper()
		if err := w.Grants.End(t.Context(), w.storage, lifecycle.EndOrder{Provider: w.target, ID: finished.Grant.ID, Handle: finished.Credential.Handle}); err != nil {
			t.Fatal(err)
		}
	}
	own, _ := w.Grants.LedgerID(t.Context(), w.storage)
	for _, issued := range []lifecycle.Issued{live, finished} {
		target.marked = append(target.marked, provider.Marked{Handle: issued.Credential.Handle, Mount: "mount", Ledger: own, Grant: issued.Grant.ID, ExpiresAt: issued.Grant.ExpiresAt})
	}
	end()
	rise := func() {
		if _, err := w.target.Mint(t.Context(), finished.Credential.Handle, "", w.clock); err != nil {
			t.Fatal(err)
		}
	}
	rise()
	w.want(Result{})
	w.wantLive(2)
	for _, result := range []Result{{Orphans: 1}, {Packed: 1, Orphans: 1}, {Orphans: 1}} { // the last from the history
		w.clock = w.clock.Add(time.Hour)
		w.want(result)
		w.wantLive(1)
		rise()
	}
	if grant, err := ledger.Find(t.Context(), w.storage, finished.Grant.ID); err != nil || grant.Ending != ledger.LeaseRevoked {
		t.Errorf("the ledger says %+v: %v", grant, err)
	}
}

// The ledger is written before the target is touched, and an end that fails is
// tried again like any other.
func TestAnOrphanThatCanNotBeEnded(t *testing.T) {
	w, target := found(t)
	orphan := w.leave(target, w.clock.Add(-time.Hour))
	w.target.OnRevoke = func() error {
		if grant := w.stored(orphan.Grant); grant.State != ledger.Ending {
			t.Errorf("the target is told before the ledger: %s", grant.State)
		}
		return errors.New("the target broke")
	}
	w.want(Result{})
	if fate := w.Status().Orphans.Targets[0].Orphans[0].Fate; fate != Fails {
		t.Errorf("the status says %q", fate)
	}
	w.target.OnRevoke = nil
	w.clock = w.clock.Add(time.Minute)
	w.want(Result{Ended: 1})
	w.wantLive(0)
}

// Where the right is missing, or the target is away, the status says so, and
// everything else goes on.
func TestATargetThatCanNotBeListed(t *testing.T) {
	for _, fails := range []error{fmt.Errorf("ListUsers: %w", provider.ErrNotPermitted), errors.New("the target broke")} {
		w, target := found(t)
		target.fails = fails
		w.leave(target, w.clock.Add(-time.Hour))
		w.targets = append(w.targets, Target{Name: "plain", Provider: w.target}, Target{Name: "broken", Problem: errors.New("it does not open")})
		w.want(Result{Orphans: 1})
		steps := w.Status().Orphans.Targets
		if len(steps) != 3 || steps[0].Problem != fails.Error() || steps[1].Listed || steps[1].Problem != "" || steps[2].Problem == "" {
			t.Errorf("the status says %+v", steps)
		}
	}
}

// A system is looked at once, however many targets it is, and each interval.
func TestOrphansAreLookedForEachInterval(t *testing.T) {
	w, target := found(t)
	w.targets = []Target{{Name: "a", System: "x", Provider: target}, {Name: "b", System: "x", Provider: target}, {Name: "c", System: "y", Provider: target}}
	for _, test := range []struct {
		after    time.Duration
		interval time.Duration
		looks    int
	}{{0, time.Hour, 2}, {time.Hour - 1, time.Hour, 2}, {1, time.Hour, 4}, {time.Minute, time.Minute, 4}, {time.Minute, 2 * time.Minute, 6}, {time.Minute, 2 * time.Minute, 6}} {
		w.clock = w.clock.Add(test.after)
		w.settings.OrphanInterval = test.interval
		w.want(Result{})
		if target.looks != test.looks {
			t.Errorf("at %s: %d looks, want %d", w.clock.Format(time.TimeOnly), target.looks, test.looks)
		}
	}
	w.Run(w.storage)
	w.idle()
	if target.looks != 8 {
		t.Errorf("%d looks after one was asked for, want 8", target.looks)
	}
}

// Grants whose target is not there are counted, looked at each hour at the cost
// of one look, and ended once it is there and somebody asks.
func TestUnreachableGrants(t *testing.T) {
	w := newWorld(t)
	for range 100 {
		w.issue(time.Minute)
	}
	working, looks := w.Open, 0
	w.Open = func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error) {
		looks++
		return nil, fmt.Errorf("store: %w", ErrUnreachable)
	}
	w.clock = w.clock.Add(time.Hour)
	for range 3 {
		w.want(Result{})
		if got := w.Status().Unreachable["store"]; got != 100 || looks != 1 {
			t.Errorf("%d unreachable after %d looks, want 100 and 1", got, looks)
		}
	}
	w.Open = working
	w.want(Result{})
	w.Run(w.storage)
	w.idle()
	w.wantLive(0)
	if status := w.Status(); len(status.Unreachable) != 0 || status.Again != 0 || status.End.Ended != 100 {
		t.Errorf("the status says %+v", status)
	}
}
