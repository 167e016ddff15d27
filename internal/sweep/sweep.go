// Package sweep ends what has outlived its lease, and what could not be ended
// when that was asked for; and it packs and forgets what has gone by.
package sweep

import (
	"context"
	"errors"
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
	// retireEvery is how often what is too old is forgotten.
	retireEvery = time.Hour
)

// Sweeper sweeps for one mount. Its fields are set before it is used.
type Sweeper struct {
	Grants *lifecycle.Manager
	// Open returns the provider that can end a grant.
	Open      func(context.Context, logical.Storage, ledger.Grant) (provider.Provider, error)
	Log       hclog.Logger
	Retention time.Duration // of the history; 0: for ever

	running         atomic.Bool
	mu              sync.Mutex
	tries           map[string]try // by grant, of those that failed
	packed, retired time.Time
}

// try is what has been tried in vain.
type try struct {
	pause time.Duration
	next  time.Time
}

// Result is what a sweep did.
type Result struct {
	Ended   int // grants
	Failed  int // grants that are tried again later
	Packed  int // grants, into the history
	Retired int // segments of the history, and damaged records
}

// Nudge begins a sweep behind the request, unless one is under way, and returns.
func (s *Sweeper) Nudge(storage logical.Storage) {
	if !s.running.CompareAndSwap(false, true) {
		return
	}
	s.Grants.Behind(func(ctx context.Context) {
		defer s.running.Store(false)
		if result := s.sweep(ctx, storage); result != (Result{}) {
			s.Log.Info("swept", "ended", result.Ended, "failed", result.Failed, "packed", result.Packed, "retired", result.Retired)
		}
	})
}

// sweep does what is due. It costs what is due, and does nothing before the
// ledger is in memory. Only one at a time.
func (s *Sweeper) sweep(ctx context.Context, storage logical.Storage) Result {
	var result Result
	if !s.Grants.Ready() {
		return result
	}
	now, index := s.Grants.Now(), s.Grants.Index
	s.keep(ctx, storage, now)
	s.endAll(ctx, storage, s.unended(now), &result)
	for ctx.Err() == nil {
		overdue := index.Overdue(atOnce, now)
		if len(overdue) == 0 {
			break
		}
		s.endAll(ctx, storage, overdue, &result)
	}
	if ctx.Err() == nil && now.Sub(s.packed) >= packEvery {
		s.packed = now
		result.Packed = s.pack(ctx, storage, now)
	}
	if ctx.Err() == nil && s.Retention > 0 && now.Sub(s.retired) >= retireEvery {
		s.retired = now
		retired, err := ledger.Retire(ctx, storage, now.Add(-s.Retention))
		if err != nil {
			s.Log.Warn("history could not be retired", "error", err)
		}
		result.Retired = retired
	}
	return result
}

// keepLimit bounds the keeping up of one base.
const keepLimit = 30 * time.Second

// keep has every base that grants hang on looked after.
func (s *Sweeper) keep(ctx context.Context, storage logical.Storage, now time.Time) {
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, grant := range s.Grants.Index.Hanging(now) {
		target, err := s.Open(ctx, storage, grant)
		if err != nil {
			s.Log.Warn("a base can't be looked after", "base", grant.Base, "target", grant.Target, "error", err)
			continue
		}
		keeper, able := target.(provider.Keeper)
		if !able {
			continue
		}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			limited, cancel := context.WithTimeout(ctx, keepLimit)
			defer cancel()
			if err := keeper.Keep(limited, grant.Base); err != nil && ctx.Err() == nil {
				s.Log.Warn("what ends sessions early could not be looked after; it is tried again in a minute", "base", grant.Base, "target", grant.Target, "error", err)
			}
		})
	}
	all.Wait()
}

// unended are the grants whose end has failed, and that it is time to try again.
// Those that have expired are overdue, too.
func (s *Sweeper) unended(now time.Time) []ledger.Grant {
	var due []ledger.Grant
	for _, grant := range s.Grants.Index.Unended() {
		if now.Before(grant.ExpiresAt.Add(ledger.SweepDelay)) && !now.Before(s.tries[grant.ID].next) {
			due = append(due, grant)
		}
	}
	return due
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
				result.Ended++
				return
			}
			result.Failed++
			s.again(grant, err)
		})
	}
	all.Wait()
}

func (s *Sweeper) end(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	target, err := s.Open(ctx, storage, grant)
	if err != nil {
		return err
	}
	return s.Grants.End(ctx, storage, lifecycle.EndOrder{
		Provider: target, ID: grant.ID, Target: grant.Target, System: grant.System, Handle: grant.Handle, Cause: ledger.Swept, Unasked: true,
	})
}

// again has a grant tried again.
func (s *Sweeper) again(grant ledger.Grant, err error) {
	if errors.Is(err, lifecycle.ErrClosed) {
		return
	}
	if s.tries == nil {
		s.tries = map[string]try{}
	}
	tried := s.tries[grant.ID]
	tried.pause = min(max(2*tried.pause, firstPause), lastPause)
	tried.next = s.Grants.Now().Add(tried.pause)
	s.tries[grant.ID] = tried
	s.Grants.Index.Retry(grant.ID, tried.next)
	s.Log.Warn("a grant could not be ended", "grant_id", grant.ID, "target", grant.Target, "expires_at", grant.ExpiresAt, "again_in", tried.pause, "error", err)
}

// pack packs the buckets that have gone by and of which nothing remains to be
// ended.
func (s *Sweeper) pack(ctx context.Context, storage logical.Storage, now time.Time) (grants int) {
	buckets, err := ledger.PastBuckets(ctx, storage, now.Add(-packDelay))
	if err != nil {
		s.Log.Warn("the ledger's buckets could not be listed", "error", err)
		return 0
	}
	for _, bucket := range buckets {
		if s.Grants.Index.Unfinished(bucket) > 0 {
			continue
		}
		packed, err := ledger.Pack(ctx, storage, bucket)
		grants += packed.Grants
		if err != nil {
			s.Log.Warn("a bucket of the ledger could not be packed", "bucket", bucket, "error", err)
			return grants
		}
		if packed.Damaged > 0 {
			s.Log.Warn("a bucket of the ledger has records that can't be read", "bucket", bucket, "records", packed.Damaged)
		}
		for _, grant := range packed.Unfinished { // its write failed, and was taken
			s.Grants.Index.Update(grant, now)
		}
	}
	return grants
}
