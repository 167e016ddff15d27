package sweep

import (
	"context"
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
