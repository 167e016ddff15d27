// Package ending ends grants that people name by what a lease prefix can't: by
// entity, by target, by the time that they were issued. A large end goes on behind
// the request, and after a crash.
package ending

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	// atOnce is how many grants of a target are being ended at once: the leases that
	// Vault revokes meanwhile find room as well. One commit ends all that hang on a base
	// and ask for it together.
	atOnce, together = 128, 256
	// rounds is how often what fails is tried before it is left to the sweeper, and
	// pause how long it waits in between.
	rounds = 3
	pause  = 2 * time.Second
	// maxRunning is how many ends are under way at once.
	maxRunning = 16
	// maxProblems is how many of the grants that could not be ended are named.
	maxProblems = 10
)

// Filter names the grants that are to end. An empty field asks nothing, but a
// filter that asks nothing at all names no grant, unless All says so.
type Filter struct {
	ledger.Query
	GrantID      string
	Since, Until time.Time // when the grants were issued, both included
	All          bool
}

// End is one end of many grants, and how far it is.
type End struct {
	ID     string    `json:"id"`
	Filter Filter    `json:"filter"`
	By     string    `json:"by"` // who requested it
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`            // grants that were issued later are not meant
	DoneAt time.Time `json:"done,omitzero"` // zero while it is under way
	// Unrecorded says that storage has not taken all that became of it; see lifecycle.ErrUnrecorded.
	Unrecorded bool `json:"-"`
	Counts
}

// Counts say how far an end is.
type Counts struct {
	Matched  int            `json:"matched"`
	Ended    int            `json:"ended"`
	Failed   int            `json:"failed"` // so far; the sweeper goes on with these
	Targets  map[string]int `json:"targets,omitempty"`
	Problems []string       `json:"problems,omitempty"` // the first few of Failed
}

func (c Counts) clone() Counts {
	c.Targets, c.Problems = maps.Clone(c.Targets), slices.Clone(c.Problems)
	return c
}

// Runner runs the ends of one mount. Its fields are set before it is used.
type Runner struct {
	Grants *lifecycle.Manager
	// Open returns the provider that can end a grant.
	Open func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error)
	Log  hclog.Logger

	mu      sync.Mutex
	running map[string]*run
}

type run struct {
	End
	// first are the grants that matched when the end was requested, whatever their clock said when they were issued. It
	// is nil for an end that a restart has interrupted.
	first []ledger.Grant
	done  chan struct{}
}

// Matching returns the open grants that a filter names, see ledger.Grant.Open, and that were issued by then; zero for any
// time, since the clock that a grant was issued by may have been ahead. The ledger has to be in memory.
func (r *Runner) Matching(filter Filter, at time.Time) []ledger.Grant {
	if filter.GrantID != "" {
		grant, known := r.Grants.Index.Get(filter.GrantID)
		if !known || !grant.Open() || !filter.names(grant, at) {
			return nil
		}
		return []ledger.Grant{grant}
	}
	return slices.DeleteFunc(r.Grants.Index.Live(filter.Query, r.Grants.Now()), func(grant ledger.Grant) bool { return !filter.names(grant, at) })
}

// names says whether the filter names a grant that was issued by then.
func (f Filter) names(grant ledger.Grant, at time.Time) bool {
	switch {
	case f == (Filter{}), !at.IsZero() && grant.IssuedAt.After(at):
		return false
	case f.Role != "" && grant.Role != f.Role, f.Task != "" && grant.Task != f.Task,
		f.EntityID != "" && grant.EntityID != f.EntityID, f.Target != "" && grant.Target != f.Target,
		f.GrantID != "" && grant.ID != f.GrantID:
		return false
	case !f.Since.IsZero() && grant.IssuedAt.Before(f.Since), !f.Until.IsZero() && grant.IssuedAt.Truncate(time.Second).After(f.Until):
		return false // people see when it was issued in whole seconds
	default:
		return true
	}
}

// Count counts grants by target.
func Count(grants []ledger.Grant) Counts {
	counts := Counts{Targets: map[string]int{}}
	counts.add(grants)
	return counts
}

func (c *Counts) add(grants []ledger.Grant) {
	c.Matched += len(grants)
	for _, grant := range grants {
		c.Targets[grant.Target]++
	}
}

// order reads what stays as it is while the counts change.
func (e *End) order() lifecycle.EndOrder {
	return lifecycle.EndOrder{Cause: ledger.Requested, By: e.By, Reason: e.Reason}
}

// Begin writes an end down and begins it. done is closed when it is done, by
// which time each grant has been ended, or is left to the sweeper. What the caller
// can mend is an *invalid.Error.
func (r *Runner) Begin(ctx context.Context, storage logical.Storage, filter Filter, by, reason string) (id string, done <-chan struct{}, err error) {
	begun := &run{done: make(chan struct{}), End: End{
		ID: newID(), Filter: filter, By: by, Reason: reason, At: r.Grants.Now().UTC(), Counts: Counts{Targets: map[string]int{}},
	}}
	begun.first = append([]ledger.Grant{}, r.Matching(filter, time.Time{})...)
	r.mu.Lock()
	if len(r.running) >= maxRunning {
		r.mu.Unlock()
		return "", nil, invalid.Hidden("end", fmt.Sprintf("%d are under way already", maxRunning), "wait for one of them, see end-status, or revoke by lease prefix")
	}
	r.add(begun)
	r.mu.Unlock()
	if err := r.write(ctx, storage, begun.End); err != nil {
		if !r.Grants.MayHold(err) {
			r.remove(begun)
			return "", nil, err
		}
		r.Log.Error("an end is in memory only: storage does not take it; a restart breaks it off", "end_id", begun.ID, "error", err)
		r.note(begun, err)
	}
	r.Log.Warn("grants are ended on request", "end_id", begun.ID, "by", by, "reason", reason)
	r.Grants.Behind(func(ctx context.Context) { r.run(ctx, storage, begun) })
	return begun.ID, begun.done, nil
}

// add is called with mu held.
func (r *Runner) add(begun *run) {
	if r.running == nil {
		r.running = map[string]*run{}
	}
	r.running[begun.ID] = begun
}

func (r *Runner) remove(begun *run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, begun.ID)
}

// Resume goes on with what a crash has interrupted. It is called when the ledger
// is in memory, and must not block.
func (r *Runner) Resume(storage logical.Storage) {
	r.Grants.Behind(func(ctx context.Context) {
		all, _, err := r.stored(ctx, storage)
		if err != nil {
			r.Log.Error("ends that were requested can't be read: what a restart has interrupted does not go on", "error", err)
			return
		}
		for _, end := range all {
			if !end.DoneAt.IsZero() {
				continue
			}
			begun := &run{End: end, done: make(chan struct{})}
			r.mu.Lock()
			_, known := r.running[end.ID]
			if !known {
				r.add(begun)
			}
			r.mu.Unlock()
			if !known {
				r.Log.Warn("an end that was interrupted goes on", "end_id", end.ID)
				r.Grants.Behind(func(ctx context.Context) { r.run(ctx, storage, begun) })
			}
		}
	})
}

// run ends what matches. After a restart, what was ended before does not match any
// more, and stays counted.
func (r *Runner) run(ctx context.Context, storage logical.Storage, begun *run) {
	defer r.remove(begun)
	err := r.carryOut(ctx, storage, begun)
	if err == nil && ctx.Err() == nil {
		err = r.write(ctx, storage, r.snapshot(begun))
	}
	r.note(begun, err)
	close(begun.done)
	for err != nil && r.snapshot(begun).DoneAt != (time.Time{}) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			err = r.write(ctx, storage, r.snapshot(begun))
		}
	}
	if ctx.Err() == nil {
		r.prune(ctx, storage, begun.ID)
	}
}

// note keeps whether storage has taken what became of an end.
func (r *Runner) note(begun *run, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	begun.Unrecorded = begun.Unrecorded || err != nil
}

// carryOut ends what matches, and leaves what it can't end to the sweeper. An error, or an end that is not done, goes
// on after a restart.
func (r *Runner) carryOut(ctx context.Context, storage logical.Storage, begun *run) error {
	left := begun.first
	if left == nil {
		left = r.Matching(begun.Filter, begun.At)
	}
	seen := map[string]bool{}
	for _, grant := range left {
		seen[grant.ID] = true
	}
	found := Count(left)
	r.update(begun, func(counts *Counts) {
		found.Matched = max(counts.Matched, found.Matched)
		found.Ended = found.Matched - len(left)
		if len(counts.Targets) > 0 {
			found.Targets = counts.Targets
		}
		*counts = found
	})
	// What is counted outlives a crash, too; and one that may not write any more must
	// not change a target.
	for err := r.write(ctx, storage, r.snapshot(begun)); err != nil && !r.snapshot(begun).Unrecorded; err = r.write(ctx, storage, r.snapshot(begun)) {
		r.Log.Warn("an end waits until storage takes writes", "end_id", begun.ID, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	for round := range rounds {
		if round > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
		left = r.endAll(ctx, storage, begun, left)
		// A mint may have begun before the end, and be known since.
		var late []ledger.Grant
		for _, grant := range r.Matching(begun.Filter, begun.At) {
			if !seen[grant.ID] {
				seen[grant.ID] = true
				late = append(late, grant)
			}
		}
		r.update(begun, func(counts *Counts) { counts.add(late) })
		if left = append(left, late...); len(left) == 0 {
			break
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := r.Grants.BeginEnd(ctx, storage, left, begun.order()); err != nil {
		r.Log.Warn("that the sweeper is to go on with an end could not be written down for all", "end_id", begun.ID, "error", err)
		return err
	}
	r.update(begun, func(counts *Counts) { counts.Failed, begun.DoneAt = len(left), r.Grants.Now().UTC() })
	end := r.snapshot(begun)
	r.Log.Warn("grants were ended on request", "end_id", end.ID, "by", end.By, "matched", end.Matched, "ended", end.Ended, "failed", end.Failed)
	return nil
}

func (r *Runner) update(begun *run, change func(*Counts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&begun.Counts)
}

func (r *Runner) snapshot(begun *run) End {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := begun.End
	end.Counts = end.clone()
	return end
}

// endAll tries to end grants, and returns those that it could not.
func (r *Runner) endAll(ctx context.Context, storage logical.Storage, begun *run, grants []ledger.Grant) []ledger.Grant {
	based := slices.DeleteFunc(slices.Clone(grants), func(grant ledger.Grant) bool { return grant.Base == "" })
	if err := r.Grants.BeginEnd(ctx, storage, based, begun.order()); err != nil {
		r.Log.Warn("that grants are to end could not be written down for all", "end_id", begun.ID, "error", err)
	}
	r.update(begun, func(counts *Counts) { counts.Failed, counts.Problems = 0, nil })
	byTarget := map[string][]ledger.Grant{}
	for _, grant := range grants {
		byTarget[grant.Target] = append(byTarget[grant.Target], grant)
	}
	var left []ledger.Grant
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, some := range byTarget { // one that hangs must not hold up the others
		all.Go(func() {
			failed := r.endOn(ctx, storage, begun, some)
			mu.Lock()
			defer mu.Unlock()
			left = append(left, failed...)
		})
	}
	all.Wait()
	return left
}

// endOn is endAll of one target's grants.
func (r *Runner) endOn(ctx context.Context, storage logical.Storage, begun *run, grants []ledger.Grant) []ledger.Grant {
	var left []ledger.Grant
	r.endTogether(ctx, storage, begun, grants)
	alone, commits := make(chan struct{}, atOnce), make(chan struct{}, together)
	order := begun.order()
	var all sync.WaitGroup
	for _, grant := range grants {
		turns := alone
		if grant.Base != "" {
			turns = commits
		}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			err := r.end(ctx, storage, grant, order)
			if errors.Is(err, lifecycle.ErrUnrecorded) { // it is dead
				r.note(begun, err)
				err = nil
			}
			r.update(begun, func(counts *Counts) {
				if err == nil {
					counts.Ended++
					return
				}
				left = append(left, grant)
				counts.Failed++
				if len(counts.Problems) < maxProblems {
					counts.Problems = append(counts.Problems, grant.ID+": "+invalid.Clip(err.Error()))
				}
			})
		})
	}
	all.Wait()
	return left
}

// endTogether ends, of one target's grants, those that hang on a base: each base's with
// one commit.
func (r *Runner) endTogether(ctx context.Context, storage logical.Storage, begun *run, grants []ledger.Grant) {
	bySystem := map[string][]ledger.Grant{}
	for _, grant := range grants {
		if grant.Base != "" {
			bySystem[grant.System] = append(bySystem[grant.System], grant)
		}
	}
	for _, some := range bySystem {
		target, err := r.Open(ctx, storage, some[0])
		if err == nil {
			err = r.Grants.EndTogether(ctx, some[0].Target, target, some)
		}
		if err != nil { // as each one will say, too
			r.Log.Debug("grants could not be ended together", "end_id", begun.ID, "target", some[0].Target, "error", err)
		}
	}
}

func (r *Runner) end(ctx context.Context, storage logical.Storage, grant ledger.Grant, order lifecycle.EndOrder) error {
	if current, known := r.Grants.Index.Get(grant.ID); known {
		grant = current // with the handle that its mint has completed meanwhile
	}
	target, err := r.Open(ctx, storage, grant)
	if err != nil {
		return err
	}
	order.Provider, order.ID, order.Target, order.System, order.Handle = target, grant.ID, grant.Target, grant.System, grant.Handle
	return r.Grants.End(ctx, storage, order)
}
