package sweep

import (
	"context"
	"maps"
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
		tended := map[string]bool{}
		for _, target := range targets {
			if tender, able := target.Provider.(provider.Tender); able {
				tended[target.Name] = true
				go s.tend(ctx, target.Name, tender)
			}
		}
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			maps.DeleteFunc(s.access, func(name string, _ string) bool { return !tended[name] })
		}
	})
}

func (s *Sweeper) tend(ctx context.Context, name string, tender provider.Tender) {
	limited, cancel := context.WithTimeout(ctx, tendFor)
	defer cancel()
	err := tender.Tend(limited)
	if ctx.Err() != nil {
		return
	}
	if changed := s.kept(name, problem(err)); changed && err != nil {
		s.Log.Warn("the engine's own access to a target could not be kept up; it is tried again", "target", name, "error", err)
	} else if changed {
		s.Log.Info("the engine's own access to a target is kept up again", "target", name)
	}
}

// kept notes why a target's access could not be kept up, if it could not, and says
// whether that is news.
func (s *Sweeper) kept(name, problem string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.access[name]
	switch {
	case problem == "":
		delete(s.access, name)
	case s.access == nil:
		s.access = map[string]string{name: problem}
	default:
		s.access[name] = problem
	}
	return before != problem
}
