package sweep

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Keep looks after the bases that grants hang on, behind the request, and
// returns. A sweep does so, too; this is for when the ledger has just been read.
func (s *Sweeper) Keep(storage logical.Storage) {
	s.Grants.Behind(func(ctx context.Context) { s.keep(ctx, storage, s.Grants.Now()) })
}

// keepLimit bounds the keeping up of one base.
const keepLimit = 30 * time.Second

// keep has every base that grants hang on looked after. A target that has not
// answered in time is not asked for its other bases: what is due elsewhere waits.
func (s *Sweeper) keep(ctx context.Context, storage logical.Storage, now time.Time) {
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	var away sync.Map // by target
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
		if _, silent := away.Load(grant.Target); silent {
			<-turns
			continue
		}
		all.Go(func() {
			defer func() { <-turns }()
			limited, cancel := context.WithTimeout(ctx, keepLimit)
			defer cancel()
			if err := keeper.Keep(limited, grant.Base); err != nil && ctx.Err() == nil {
				if errors.Is(limited.Err(), context.DeadlineExceeded) {
					away.Store(grant.Target, true)
				}
				s.Log.Warn("what ends sessions early could not be looked after; it is tried again in a minute", "base", grant.Base, "target", grant.Target, "error", err)
			}
		})
	}
	all.Wait()
}
