package sweep

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	// While more than crowd ends are under way that somebody waits for, nothing is tidied
	// up: it would take storage and time from them, too. But not for longer than holdBack:
	// then the target alone decides what goes first.
	crowd    = 8
	holdBack = 5 * time.Minute
	lookPace = 100 * time.Millisecond
)

// TidyUp begins, unless it is under way, to remove what is left at targets of
// credentials that are dead, and returns. It is apart from a sweep: where a target
// throttles it takes long, and what lives must not wait for it.
func (s *Sweeper) TidyUp(storage logical.Storage) {
	if s.tidying.Load() || s.Grants.Index.CountUntidy() == 0 || !s.tidying.CompareAndSwap(false, true) {
		return
	}
	s.Grants.Behind(func(ctx context.Context) {
		for {
			tidied, failed := s.tidyUp(ctx, storage)
			s.tidying.Store(false)
			if tidied > 0 || failed > 0 {
				s.Log.Info("tidied up", "tidied", tidied, "failed", failed)
			}
			// What has come meanwhile.
			if ctx.Err() != nil || tidied == 0 || !s.tidying.CompareAndSwap(false, true) {
				return
			}
		}
	})
}

func (s *Sweeper) tidyUp(ctx context.Context, storage logical.Storage) (tidied, failed int) {
	targets := &opener{open: s.Open, known: map[[2]string]opened{}}
	turns := make(chan struct{}, atOnce)
	var mu sync.Mutex
	var all sync.WaitGroup
	held := time.NewTimer(holdBack)
	defer held.Stop()
	for _, grant := range s.untidy() {
		s.letKill(ctx, held)
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			err := s.tidyOne(ctx, storage, targets, grant)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				tidied++
				return
			}
			failed++
			s.tidyAgain(grant, err)
		})
	}
	all.Wait()
	return tidied, failed
}

// letKill waits while many ends are under way, but not once held has fired.
func (s *Sweeper) letKill(ctx context.Context, held *time.Timer) {
	for s.Grants.Killing() > crowd {
		select {
		case <-ctx.Done():
			return
		case <-held.C:
			held.Reset(0) // for those that come next
			return
		case <-time.After(lookPace):
		}
	}
}

// untidy are the grants that it is time to tidy up after.
func (s *Sweeper) untidy() (due []ledger.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, left := s.Grants.Now(), map[string]try{}
	for _, grant := range s.Grants.Index.Untidy() {
		tried, failed := s.messes[grant.ID]
		if failed {
			left[grant.ID] = tried
		}
		if !now.Before(tried.next) {
			due = append(due, grant)
		}
	}
	s.messes = left // without those that are gone
	return due
}

// tidyAgain has a grant tidied up after again later. What is dead is in no hurry, and
// what can't be removed would be asked for each minute.
func (s *Sweeper) tidyAgain(grant ledger.Grant, err error) {
	if errors.Is(err, lifecycle.ErrClosed) || errors.Is(err, context.Canceled) {
		return
	}
	s.mu.Lock()
	if s.messes == nil {
		s.messes = map[string]try{}
	}
	tried, again := s.messes[grant.ID]
	tried.pause = min(max(2*tried.pause, firstPause), lastPause)
	tried.next = s.Grants.Now().Add(tried.pause)
	tried.blocked = nil
	if blocked := new(provider.CleanupBlocked); errors.As(err, &blocked) {
		tried.blocked = &Blocked{Grant: grant.ID, Target: grant.Target, Reason: blocked.Reason, Remedy: blocked.Remedy}
	}
	s.messes[grant.ID] = tried
	s.mu.Unlock()
	level := hclog.Warn
	if again || lifecycle.Unanswered(err) || errors.Is(err, provider.ErrUnavailable) || errors.Is(err, ErrUnreachable) {
		level = hclog.Debug // it has been said, or is no more than that the target is slow
	}
	s.Log.Log(level, "what is left of a dead credential could not be removed", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "handle", grant.Handle, "again_in", tried.pause, "error", err)
}

func (s *Sweeper) tidyOne(ctx context.Context, storage logical.Storage, targets *opener, grant ledger.Grant) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	target, err := targets.get(ctx, storage, grant)
	if err != nil {
		return err
	}
	return s.Grants.End(ctx, storage, lifecycle.EndOrder{
		Provider: target, ID: grant.ID, Target: grant.Target, System: grant.System, Handle: grant.Handle, Unasked: true,
	})
}
