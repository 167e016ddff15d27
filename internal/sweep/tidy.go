package sweep

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
)

// TidyUp begins, unless it is under way, to remove what is left at targets of
// credentials that are dead, and returns. It is apart from a sweep: where a target
// throttles it takes long, and what lives must not wait for it.
func (s *Sweeper) TidyUp(storage logical.Storage) {
	if len(s.Grants.Index.Untidy()) == 0 || !s.tidying.CompareAndSwap(false, true) {
		return
	}
	s.Grants.Behind(func(ctx context.Context) {
		for {
			tidied, failed := s.tidyUp(ctx, storage)
			s.tidying.Store(false)
			if tidied > 0 || failed > 0 {
				s.Log.Info("tidied up", "tidied", tidied, "failed", failed)
			}
			// What has come meanwhile; what failed waits for the next minute.
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
	for _, grant := range s.Grants.Index.Untidy() {
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
			if !errors.Is(err, lifecycle.ErrClosed) {
				s.Log.Debug("what is left of a dead credential could not be removed; it is tried again in a minute", "grant_id", grant.ID, "target", grant.Target, "error", err)
			}
		})
	}
	all.Wait()
	return tidied, failed
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
