package sweep

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
)

// remove removes from the targets what no role and no grant needs any more. What
// fails is tried again a minute later.
func (s *Sweeper) remove(ctx context.Context, storage logical.Storage, now time.Time) (removed int) {
	step := RemoveStep{At: now, Staying: map[string]int{}}
	defer func() {
		step.Removed = removed
		s.note(func(status *Status) { status.Remove = step })
	}()
	idle := s.Grants.Idle()
	if len(idle) == 0 {
		return 0
	}
	needed, err := s.Needed(ctx, storage)
	if err != nil { // and so for each
		step.Problem = problem(err)
		s.Log.Warn("what is installed at targets is not removed: what roles need is not known", "error", err)
		return 0
	}
	for _, installation := range idle {
		if ctx.Err() != nil {
			return removed
		}
		if needed[installation.Key] {
			continue
		}
		switch err := s.removeOne(ctx, storage, installation); {
		case err == nil:
			removed++
			delete(s.staying, installation.Key)
		case errors.Is(err, lifecycle.ErrNeeded): // by a mint that has just come
		default:
			step.Staying[installation.Target]++
			step.Problem = problem(err)
			level := hclog.Warn
			if s.staying[installation.Key] || lifecycle.Unanswered(err) {
				level = hclog.Debug // it has been said, or that the target does not answer
			}
			s.Log.Log(level, "what nothing needs any more could not be removed from its target; it is tried again each minute", "target", installation.Target, "installed", installation.Handle, "error", err)
			if s.staying == nil {
				s.staying = map[string]bool{}
			}
			s.staying[installation.Key] = true
		}
	}
	return removed
}

func (s *Sweeper) removeOne(ctx context.Context, storage logical.Storage, installation ledger.Installation) error {
	grant := ledger.Grant{Target: installation.Target, System: installation.System}
	s.mu.Lock()
	err := s.away[installation.Target]
	s.mu.Unlock()
	if err != nil {
		return &sparedError{err}
	}
	target, err := s.targets.get(ctx, storage, grant)
	if err != nil {
		return err
	}
	byRole := func() (bool, error) {
		needed, err := s.Needed(ctx, storage)
		return needed[installation.Key], err
	}
	if err := s.Grants.Uninstall(ctx, storage, target, installation, byRole); err != nil {
		if lifecycle.Unanswered(err) {
			s.mu.Lock()
			s.away[installation.Target] = err
			s.mu.Unlock()
		}
		return err
	}
	return nil
}
