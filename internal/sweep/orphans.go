package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// listTimeout bounds the listing of a target: what is due elsewhere waits.
const listTimeout = time.Minute

// Target is one that may hold what the ledger does not know.
type Target struct {
	Name     string
	System   string // see ledger.Grant
	Provider provider.Provider
	Problem  error // why it has no provider
}

// orphans looks, at each system once, for what bears the mark of this mount and
// ledger. What is of a grant that is finished is ended again; what is of none is
// reported, and ended once its own end has passed.
func (s *Sweeper) orphans(ctx context.Context, storage logical.Storage) (step OrphanStep, ended int) {
	step.At = s.Grants.Now()
	own, err := s.Grants.LedgerID(ctx, storage)
	if err != nil {
		step.Problem = problem(err)
		return step, 0
	}
	targets, err := s.Targets(ctx, storage)
	if err != nil {
		step.Problem = problem(err)
		return step, 0
	}
	seen := map[string]bool{}
	for _, target := range targets {
		finder, able := target.Provider.(provider.OrphanFinder)
		found := TargetStep{Target: target.Name, Listed: able, Problem: problem(target.Problem)}
		if able && !(target.System != "" && seen[target.System]) {
			seen[target.System] = true
			look := look{Sweeper: s, storage: storage, target: target, own: own, step: &found}
			look.at(ctx, finder)
		}
		ended += found.Ended
		step.Targets = append(step.Targets, found)
	}
	return step, ended
}

// look is a look at one target.
type look struct {
	*Sweeper
	storage logical.Storage
	target  Target
	own     string // the ledger's id
	step    *TargetStep
}

func (l *look) at(ctx context.Context, finder provider.OrphanFinder) {
	known := func(id string, handle provider.Handle) bool {
		grant, known := l.Grants.Index.Get(id)
		for key, value := range handle {
			known = known && grant.Handle[key] == value
		}
		return known
	}
	listing, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	for marked, err := range finder.Marked(listing, l.Mount, known) {
		if err == nil {
			err = l.judge(ctx, marked)
		}
		if err == nil {
			continue
		}
		l.step.Problem = problem(err)
		if !errors.Is(err, provider.ErrNotPermitted) { // which the status says, and is no fault
			l.Log.Warn("a target could not be searched for orphans", "target", l.target.Name, "error", err)
		}
		return
	}
}

// judge decides about one object. Its error ends the look.
func (l *look) judge(ctx context.Context, marked provider.Marked) error {
	if marked.Mount != l.Mount || marked.Ledger != l.own {
		l.step.Foreign++
		return nil
	}
	if _, known := l.Grants.Index.Get(marked.Grant); known {
		return nil // its end will come
	}
	if _, held := l.Grants.Held(marked.Grant); held {
		return nil // it has ended, and storage does not know yet
	}
	grant, err := ledger.Find(ctx, l.storage, marked.Grant)
	switch {
	case errors.Is(err, stored.ErrNewer):
		return nil // its record is not this plugin's to replace
	case err == nil && !grant.Finished():
		l.Grants.Index.Update(grant, l.Grants.Now()) // its write failed, and was taken
		return nil
	case err == nil:
		l.again(ctx, marked, grant)
		return nil
	case errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrDamaged):
		l.unknown(ctx, marked)
		return nil
	default:
		return err
	}
}

// again ends what is left of a finished grant. A list may be some seconds old.
func (l *look) again(ctx context.Context, marked provider.Marked, grant ledger.Grant) {
	if l.Grants.Now().Before(grant.EndedAt.Add(ledger.SweepDelay)) {
		return
	}
	l.end(ctx, marked, grant)
}

func (l *look) unknown(ctx context.Context, marked provider.Marked) {
	id, endsAt := marked.Grant, marked.ExpiresAt
	if !ledger.IsID(id) {
		id = ledger.DerivedID(endsAt, fmt.Sprint(l.target.System, marked.Handle)) // a map is printed in order
		if _, known := l.Grants.Index.Get(id); known {
			return // as above: ending it has failed before
		}
	} else if latest, err := ledger.LatestEnd(id); err == nil && !endsAt.IsZero() && latest.After(endsAt) {
		endsAt = latest // part of the mark, too: renewals may have moved the end
	}
	orphan := Orphan{Name: nameOf(marked.Handle), Grant: marked.Grant, EndsAt: endsAt, Fate: Waits}
	switch {
	case endsAt.IsZero():
		orphan.Fate = Stays
	case !l.Grants.Now().Before(endsAt.Add(ledger.SweepDelay)):
		orphan.Fate = Fails
		if l.end(ctx, marked, ledger.Grant{
			ID: id, Target: l.target.Name, System: l.target.System, Role: marked.Role, Task: marked.Task,
			Handle: marked.Handle, ExpiresAt: endsAt, Ending: ledger.Orphaned,
		}) {
			orphan.Fate = IsEnded
		}
	}
	l.Log.Warn("a target has what the ledger does not know", "target", l.target.Name, "found", marked.Handle, "grant_id", marked.Grant, "ends_at", endsAt, "fate", orphan.Fate)
	if len(l.step.Orphans) < maxOrphans {
		l.step.Orphans = append(l.step.Orphans, orphan)
	}
}

func (l *look) end(ctx context.Context, marked provider.Marked, grant ledger.Grant) bool {
	if err := l.Grants.EndFound(ctx, l.storage, l.target.Provider, grant, marked.Handle); err != nil {
		l.Log.Warn("what was found at a target could not be ended", "target", l.target.Name, "found", marked.Handle, "error", err)
		return false
	}
	l.step.Ended++
	return true
}

// nameOf is how people know an object: its name, if its handle has one.
func nameOf(handle provider.Handle) string {
	return cmp.Or(handle["user_name"], handle["name"], handle["login"], handle["token_role"])
}
