package sweep

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// tendFor is how long a target is tended: until it is due again, which is a minute
// later, and somewhat longer.
const tendFor = 75 * time.Second

// Tend has each target that needs it keep up its own access, behind the request, and
// returns. It does not wait for a sweep: one that hangs at another target must not
// cost this one its access.
func (s *Sweeper) Tend(storage logical.Storage) {
	s.Grants.Behind(func(ctx context.Context) {
		targets, err := s.Targets(ctx, storage)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("the targets could not be read", "error", err)
		}
		for _, target := range targets {
			if tender, able := target.Provider.(provider.Tender); able {
				go s.tend(ctx, target.Name, tender)
			}
		}
	})
}

func (s *Sweeper) tend(ctx context.Context, name string, tender provider.Tender) {
	limited, cancel := context.WithTimeout(ctx, tendFor)
	defer cancel()
	if err := tender.Tend(limited); err != nil && ctx.Err() == nil {
		s.Log.Warn("the engine's own access to a target could not be kept up; it is tried again within a minute", "target", name, "error", err)
	}
}
