// Package sweep ends what has outlived its lease, and what could not be ended
// when that was asked for; and it packs and forgets what has gone by.
package sweep

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	// atOnce is how many grants a sweep ends at once. It leaves room for those
	// that Vault asks for.
	atOnce = 32
	// What fails is tried again after firstPause, and after twice as long each
	// time up to lastPause, for as long as it takes.
	firstPause = time.Minute
	lastPause  = time.Hour
	// packEvery is how often buckets are packed, and packDelay how long ago all
	// grants of one had their latest end: until then Vault may still ask for them,
	// and a rebuild needs those that hang on a base.
	packEvery = 10 * time.Minute
	packDelay = ledger.BaseKept
	// coverAtOnce is how many buckets of the history, packed by an older plugin, a sweep adds to its lookup.
	coverAtOnce = 200
	// retireEvery is how often what is too old is forgotten.
	retireEvery = time.Hour
	// tidyEvery is how often requests and freezes are tidied up.
	tidyEvery = 10 * time.Minute
)

// Sweeper sweeps for one mount. Its fields are set before it is used.
type Sweeper struct {
	Grants *lifecycle.Manager
	Mount  string // its UUID
	// Open returns the provider that can end a grant. Its error is ErrUnreachable
	// where the target is no longer configured as it was.
	Open func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error)
	// Targets lists the targets that are configured.
	Targets  func(context.Context, logical.Storage) ([]Target, error)
	Settings func(context.Context, logical.Storage) (Settings, error)
	// Needed returns the keys of the installations that roles need.
	Needed func(context.Context, logical.Storage) (map[string]bool, error)
	// Tidy moves what is finished of requests and freezes to the past, and forgets
	// what was so before a time, that is zero for nothing.
	Tidy func(ctx context.Context, storage logical.Storage, before time.Time) (Tidied, error)
	Log  hclog.Logger

	running     atomic.Bool
	tidying     atomic.Bool
	asked       atomic.Bool // all steps are to be taken, whenever they were taken last
	mu          sync.Mutex
	tries       map[string]try    // by grant, of those that failed
	messes      map[string]try    // by grant, of those that could not be tidied up after
	away        map[string]error  // by target, of those that did not answer in this sweep
	unreachable map[string]string // of the grants that failed, the targets that aren't there
	staying     map[string]bool   // the installations whose removal has failed, which has been said
	access      map[string]string // by target, why the engine's own could not be kept up, see tend
	status      Status
	targets     *opener       // of this sweep
	swept       time.Time     // by the wall clock, the last sweep's beginning
	sweptAt     time.Duration // and by the monotonic one
	due         struct{ pack, retire, tidy, orphans time.Time }
}

// Settings are what people choose.
type Settings struct {
	Retention      time.Duration // of the history; 0: for ever
	OrphanInterval time.Duration // between two looks for orphans
}

// ErrUnreachable is returned where a grant can't be ended because its target is
// not configured any more, or is another system.
var ErrUnreachable = errors.New("the grant's target is not configured as it was")

// try is what has been tried in vain.
type try struct {
	pause   time.Duration
	next    time.Time
	blocked *Blocked // why a clean-up could not finish; nil where nothing of others is in the way
}

// Result is what a sweep did.
type Result struct {
	Ended   int // grants
	Failed  int // grants that are tried again later
	Removed int // installations that nothing needed any more
	Packed  int // grants, into the history
	Retired int // segments of the history, and damaged records
	Orphans int // objects at targets that were ended
}

// Nudge begins a sweep behind the request, unless one is under way, and returns.
func (s *Sweeper) Nudge(storage logical.Storage) { s.begin(storage) }

// Run begins a sweep behind the request that takes all its steps, whenever they
// were taken last, and returns. It is false where it will follow another one.
func (s *Sweeper) Run(storage logical.Storage) bool {
	s.asked.Store(true)
	return s.begin(storage)
}

func (s *Sweeper) begin(storage logical.Storage) bool {
	if !s.running.CompareAndSwap(false, true) {
		return false
	}
	s.Grants.Behind(func(ctx context.Context) {
		for {
			started := s.Grants.Now()
			result := s.sweep(ctx, storage)
			ended := s.Grants.Now()
			took := ended.Sub(started)
			s.Grants.Metrics.Swept(ended, took, result.Ended, result.Failed, result.Packed, result.Retired)
			if result != (Result{}) {
				s.Log.Info("swept", "ended", result.Ended, "failed", result.Failed, "removed", result.Removed, "packed", result.Packed, "retired", result.Retired, "orphans", result.Orphans, "took", took)
			}
			s.running.Store(false)
			if ctx.Err() != nil || !s.asked.Load() || !s.Grants.Ready() || !s.running.CompareAndSwap(false, true) {
				return
			}
		}
	})
	return true
}

// sweep does what is due. It costs what is due, and does nothing before the
// ledger is in memory. Only one at a time.
func (s *Sweeper) sweep(ctx context.Context, storage logical.Storage) (result Result) {
	if !s.Grants.Ready() {
		return result
	}
	now, asked := s.Grants.Now(), s.asked.Swap(false)
	s.away = map[string]error{}
	s.targets = &opener{open: s.Open, known: map[[2]string]opened{}}
	defer s.note(func(status *Status) { status.Step, status.Begun = "", time.Time{} })
	step := func(name string, due *time.Time, every time.Duration) bool {
		if ctx.Err() != nil || (!asked && now.Before(*due)) {
			return false
		}
		*due = now.Add(every)
		s.note(func(status *Status) { status.Step, status.Begun = name, now })
		return true
	}
	// Beside the steps: a target that hangs must not hold up the others' ends.
	var keeping sync.WaitGroup
	defer keeping.Wait()
	if ctx.Err() == nil {
		keeping.Go(func() { s.keep(ctx, storage, now) })
		if asked {
			s.note(func(*Status) { s.messes = nil })
		}
		s.TidyUp(storage)
	}
	if s.stepped(now) && !asked {
		s.Log.Warn("the clock was put ahead since the last sweep: " +
			"what has expired by it is revoked and forgotten by the next one, if it stays so")
		return result
	}
	if step("end", new(time.Time), 0) {
		s.endDue(ctx, storage, now, asked, &result)
		s.note(func(status *Status) { status.End = EndStep{At: now, Ended: result.Ended, Failed: result.Failed} })
	}
	if s.Grants.KnownOlder() != nil { // nothing is removed on its own that newer storage may know better
		s.Log.Debug("only revocations are retried: the storage is older than what it was, see tidy-status")
		return result
	}
	if step("remove", new(time.Time), 0) {
		result.Removed = s.remove(ctx, storage, now)
	}
	settings, err := s.Settings(ctx, storage)
	if err != nil {
		s.Log.Warn("the sweeper's settings could not be read", "error", err)
		return result
	}
	if step("pack", &s.due.pack, packEvery) {
		packed := s.pack(ctx, storage, now)
		result.Packed = packed.Grants
		s.note(func(status *Status) { status.Pack = packed })
	}
	if settings.Retention > 0 && step("retire", &s.due.retire, retireEvery) {
		retired, err := ledger.Retire(ctx, storage, now.Add(-settings.Retention))
		if err != nil {
			s.Log.Warn("history could not be retired", "error", err)
		}
		if err == nil {
			s.Grants.Index.Forget(now.Add(-settings.Retention))
		}
		result.Retired = retired
		s.note(func(status *Status) { status.Retire = RetireStep{At: now, Deleted: retired, Problem: problem(err)} })
	}
	if s.Tidy != nil && step("requests", &s.due.tidy, tidyEvery) {
		before := time.Time{}
		if settings.Retention > 0 {
			before = now.Add(-settings.Retention)
		}
		tidied, err := s.Tidy(ctx, storage, before)
		if err != nil {
			s.Log.Warn("requests and freezes could not be tidied up", "error", err)
		}
		s.note(func(status *Status) { status.Tidy = TidyStep{At: now, Tidied: tidied, Problem: problem(err)} })
	}
	// The interval may have been shortened since.
	s.due.orphans = earlier(s.due.orphans, now.Add(settings.OrphanInterval))
	if step("orphans", &s.due.orphans, settings.OrphanInterval) {
		found, ended := s.orphans(ctx, storage)
		result.Orphans = ended
		s.note(func(status *Status) { status.Orphans = found })
	}
	return result
}

// stepped says whether the wall clock has gone by more than the monotonic one has since the last sweep. What has expired
// by a clock that is ahead for a moment lives at its target, and is left to its holder.
func (s *Sweeper) stepped(now time.Time) bool {
	elapsed := s.Grants.Elapsed()
	wall, steady := now.Round(0).Sub(s.swept), elapsed-s.sweptAt
	first := s.swept.IsZero()
	s.swept, s.sweptAt = now.Round(0), elapsed
	return !first && wall-steady > ledger.SweepDelay
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// endDue ends what has outlived its lease, and tries again what has failed.
func (s *Sweeper) endDue(ctx context.Context, storage logical.Storage, now time.Time, asked bool, result *Result) {
	s.forget()
	s.endAll(ctx, storage, s.unended(now, asked), result)
	// What has expired is dead at its target. On storage that is not what it was it may have been renewed since.
	for ctx.Err() == nil && s.Grants.KnownOlder() == nil {
		overdue := s.Grants.Index.Overdue(atOnce, now)
		if len(overdue) == 0 {
			return
		}
		overdue = slices.DeleteFunc(overdue, func(grant ledger.Grant) bool {
			if grant.State == ledger.Dead { // TidyUp's; unless it is found alive again
				s.Grants.Index.Retry(grant.ID, now.Add(lastPause))
			}
			return grant.State == ledger.Dead
		})
		s.endAll(ctx, storage, overdue, result)
	}
}

// unended are the grants whose end has failed, and that it is time to try again.
// Those that have expired are overdue, too.
func (s *Sweeper) unended(now time.Time, asked bool) []ledger.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []ledger.Grant
	for _, grant := range s.Grants.Index.Unended() {
		if now.Before(grant.ExpiresAt.Add(ledger.SweepDelay)) && (asked || !now.Before(s.tries[grant.ID].next)) {
			due = append(due, grant)
		}
	}
	if asked {
		for id := range s.tries {
			if grant, known := s.Grants.Index.Get(id); known && !now.Before(grant.ExpiresAt.Add(ledger.SweepDelay)) {
				due = append(due, grant)
			}
		}
	}
	return due
}

// forget drops what is known of grants that somebody else has ended.
func (s *Sweeper) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.tries {
		if grant, known := s.Grants.Index.Get(id); !known || grant.Finished() {
			delete(s.tries, id)
			delete(s.unreachable, id)
		}
	}
}

func (s *Sweeper) endAll(ctx context.Context, storage logical.Storage, grants []ledger.Grant, result *Result) {
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, grant := range grants {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			err := s.end(ctx, storage, grant)
			s.mu.Lock()
			defer s.mu.Unlock()
			if err == nil {
				delete(s.tries, grant.ID)
				delete(s.unreachable, grant.ID)
				result.Ended++
				return
			}
			if !errors.Is(err, ErrUnreachable) {
				result.Failed++
			}
			s.again(grant, err)
		})
	}
	all.Wait()
}

// opener opens each target once in a sweep, so that many grants of one that is not there
// cost one look.
type opener struct {
	open  func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error)
	mu    sync.Mutex
	known map[[2]string]opened
}

type opened struct {
	provider provider.Provider
	err      error
}

func (o *opener) get(ctx context.Context, storage logical.Storage, grant ledger.Grant) (provider.Provider, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := [2]string{grant.Target, grant.System}
	found, known := o.known[key]
	if !known {
		found.provider, found.err = o.open(ctx, storage, grant)
		o.known[key] = found
	}
	return found.provider, found.err
}

// end ends a grant. A target that has not answered is not asked again in this
// sweep: the others' grants would wait for it.
func (s *Sweeper) end(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	s.mu.Lock()
	err := s.away[grant.Target]
	s.mu.Unlock()
	if err != nil {
		return &sparedError{err}
	}
	target, err := s.targets.get(ctx, storage, grant)
	if err != nil {
		return err
	}
	err = s.Grants.End(ctx, storage, lifecycle.EndOrder{
		Provider: target, ID: grant.ID, Target: grant.Target, System: grant.System, Handle: grant.Handle, Cause: ledger.Swept, Unasked: true,
	})
	if lifecycle.Unanswered(err) {
		s.mu.Lock()
		s.away[grant.Target] = err
		s.mu.Unlock()
	}
	return err
}

// sparedError is of a grant whose target was not asked, since it had not answered
// for another one.
type sparedError struct{ error }

func (e *sparedError) Unwrap() error { return e.error }

// again has a grant tried again. One whose target is not there is looked at each
// lastPause, and said once.
func (s *Sweeper) again(grant ledger.Grant, err error) {
	if errors.Is(err, lifecycle.ErrClosed) {
		return
	}
	if s.tries == nil {
		s.tries = map[string]try{}
	}
	tried := s.tries[grant.ID]
	said := false
	switch {
	case lifecycle.Unanswered(err): // such a target is spared already, and this is of all its grants
		tried.pause = max(tried.pause, firstPause)
		delete(s.unreachable, grant.ID)
	case errors.Is(err, ErrUnreachable):
		tried.pause = lastPause
		_, said = s.unreachable[grant.ID]
		if s.unreachable == nil {
			s.unreachable = map[string]string{}
		}
		s.unreachable[grant.ID] = grant.Target
		if !s.Grants.Now().Before(grant.ExpiresAt) {
			s.Grants.Index.Discount(grant.ID)
		}
	default:
		tried.pause = min(max(2*tried.pause, firstPause), lastPause)
		delete(s.unreachable, grant.ID)
	}
	tried.next = s.Grants.Now().Add(tried.pause)
	s.tries[grant.ID] = tried
	s.Grants.Index.Retry(grant.ID, tried.next)
	if said {
		return
	}
	level := hclog.Warn
	if unavailable, spared := new(lifecycle.UnavailableError), new(sparedError); errors.As(err, &unavailable) || errors.As(err, &spared) {
		level = hclog.Debug // that its target does not answer has been said
	}
	s.Log.Log(level, "a grant could not be ended", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "expires_at", grant.ExpiresAt, "again_in", tried.pause, "error", err)
}

// pack packs the buckets that have gone by and of which nothing remains to be
// ended.
func (s *Sweeper) pack(ctx context.Context, storage logical.Storage, now time.Time) PackStep {
	step := PackStep{At: now}
	buckets, err := ledger.PastBuckets(ctx, storage, now.Add(-packDelay))
	if err != nil {
		s.Log.Warn("the ledger's buckets could not be listed", "error", err)
		step.Problem = problem(err)
		return step
	}
	for _, bucket := range buckets {
		if s.Grants.Index.Unfinished(bucket) > 0 {
			continue
		}
		packed, err := ledger.Pack(ctx, storage, bucket)
		step.Grants += packed.Grants
		step.Damaged += packed.Damaged
		if err != nil {
			s.Log.Warn("a bucket of the ledger could not be packed", "bucket", bucket, "error", err)
			step.Problem = problem(err)
			return step
		}
		if packed.Damaged > 0 {
			s.Log.Warn("a bucket of the ledger has records that can't be read", "bucket", bucket, "records", packed.Damaged)
		}
		s.Grants.Index.Packed(bucket)
		for _, grant := range packed.Unfinished { // its write failed, and was taken
			s.Grants.Index.Update(grant, now)
		}
	}
	if err := ledger.Cover(ctx, storage, now.Add(-packDelay), coverAtOnce); err != nil {
		s.Log.Warn("the lookup of the history could not be brought up to date", "error", err)
		step.Problem = problem(err)
	}
	return step
}
