package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
)

// committers are those of one mount, one for each base: two that wrote the same
// policy would undo each other's. They outlive the providers that use them, since
// a target is opened anew whenever its configuration is written.
type committers struct {
	mu     sync.Mutex
	ledger provider.Ledger // nil until Remember
	mark   *revocation.Mark
	by     map[string]*committer // whose policies it writes, see holderARN
}

// committer ends the sessions of one base.
type committer struct {
	*revocation.Committer
	client atomic.Pointer[client] // the one that was used last: it is the target's as it is now
}

func newCommitters() *committers {
	return &committers{by: map[string]*committer{}}
}

func (c *committers) remember(ledger provider.Ledger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ledger == nil {
		c.ledger = ledger
	}
}

var errNoLedger = errors.New("aws: sessions need a ledger to be ended by")

// await is of, for those who can try again: it waits for the ledger, but not for
// long.
func (c *committers) await(ctx context.Context, base string, using *client) (*committer, error) {
	c.mu.Lock()
	ledger := c.ledger
	c.mu.Unlock()
	if ledger == nil {
		return nil, errNoLedger
	}
	if err := ledger.Await(ctx); err != nil {
		return nil, err
	}
	return c.of(ctx, base, using)
}

// of is the committer of a base, and uses that client from now on.
func (c *committers) of(ctx context.Context, base string, using *client) (*committer, error) {
	base = holderARN(base)
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.by[base]; one != nil {
		one.client.Store(using)
		return one, nil
	}
	if c.ledger == nil {
		return nil, errNoLedger
	}
	if c.mark == nil {
		mount, id, err := c.ledger.Identity(ctx)
		if err != nil {
			return nil, fmt.Errorf("aws: asking whose sessions these are: %w", err)
		}
		mark := revocation.NewMark(mount, id)
		c.mark = &mark
	}
	one := &committer{}
	one.client.Store(using)
	policies, err := newBasePolicies(base, *c.mark, &one.client)
	if err != nil {
		return nil, err
	}
	one.Committer = revocation.New(c.ledger.Life(), revocation.Config{
		Mark: *c.mark, Policies: policies, Now: c.ledger.Now, Elapsed: c.ledger.Elapsed, Longest: policies.longest,
		Recorded: recorded(c.ledger, base), Record: record(c.ledger, base), Announce: announce(c.ledger, base),
		Older: func(ctx context.Context, found revocation.Stamp, own uint64) error {
			return c.ledger.Older(ctx, base, found.Epoch, own)
		},
		Passive: c.ledger.Passive,
	})
	c.by[base] = one
	go restore(c.ledger, base, *c.mark, one.Committer)
	return one, nil
}

// announce tells the ledger which sessions are revoked that nobody asked to revoke.
func announce(ledger provider.Ledger, base string) func(context.Context, []revocation.Session, revocation.Reason) error {
	return func(ctx context.Context, sessions []revocation.Session, why revocation.Reason) error {
		chosen := map[revocation.Code]bool{}
		for _, one := range sessions {
			chosen[one.Code] = true
		}
		choose := func(handle provider.Handle) bool {
			one, err := named(handle)
			return err == nil && chosen[one.Code]
		}
		if why == revocation.AlreadyDenied {
			return ledger.FoundDenied(ctx, base, choose)
		}
		return ledger.EndEarly(ctx, base, choose)
	}
}

// recorded reads a base's record from the ledger's storage.
func recorded(ledger provider.Ledger, base string) func(context.Context) (revocation.Record, error) {
	return func(ctx context.Context) (record revocation.Record, err error) {
		text, err := ledger.Recorded(ctx, base)
		if err != nil || len(text) == 0 {
			return record, err
		}
		if err := json.Unmarshal(text, &record); err != nil {
			// It is not believed, so that what is denied stays denied for as long as a session lives.
			return revocation.Record{}, nil
		}
		return record, nil
	}
}

// record writes a base's record to the ledger's storage.
func record(ledger provider.Ledger, base string) func(context.Context, revocation.Record) error {
	return func(ctx context.Context, record revocation.Record) error {
		text, err := json.Marshal(record)
		if err != nil {
			return fmt.Errorf("aws: encoding what is denied: %w", err)
		}
		return ledger.Record(ctx, base, text)
	}
}

// restore tells a committer what the ledger knows. It fails only when the mount
// ends.
func restore(ledger provider.Ledger, base string, mark revocation.Mark, committer *revocation.Committer) {
	grants, err := ledger.OnBase(ledger.Life(), base)
	if err != nil {
		return
	}
	var live, revoked []revocation.Session
	for _, grant := range grants {
		one, err := named(grant.Handle)
		if err != nil || one.Code.Mark() != mark {
			continue // what another ledger's mark is on is not ended from here
		}
		one.ExpiresAt = grant.ExpiresAt
		if grant.Over {
			revoked = append(revoked, one)
		} else {
			live = append(live, one)
		}
	}
	_ = committer.Restore(live, revoked) // all bear the mark, and nobody else restores it
}

// overtaken says whether a name that was drawn has been ended before a session was
// minted with it. It may have been among those that were ended with others when the
// ledger did not know it yet, and so could not say so.
func (c *committers) overtaken(handle provider.Handle) bool {
	c.mu.Lock()
	committer := c.by[holderARN(handle[handleBase])]
	c.mu.Unlock()
	one, err := named(handle)
	return err == nil && committer != nil && !committer.Lives(one.Code)
}

// forget lets a name go that nothing is minted with.
func (c *committers) forget(handle provider.Handle) {
	c.mu.Lock()
	committer := c.by[holderARN(handle[handleBase])]
	c.mu.Unlock()
	if one, err := named(handle); err == nil && committer != nil {
		committer.Forget(one.Code)
	}
}

// Remember implements provider.Keeper.
func (a *account) Remember(ledger provider.Ledger) {
	a.bases.remember(ledger)
	a.client.skew.use(ledger.Now)
}

// Base implements provider.Committed.
func (a *account) Base(handle provider.Handle) string { return holderARN(handle[handleBase]) }

// holderARN is a base's ARN without its path. To IAM's calls the name alone says
// whose policies are meant: a role that is written with another path, as by
// mistake, or a user that was moved, must not have a second committer, which would
// withdraw what the first has denied.
func holderARN(base string) string {
	kind, path, found := strings.Cut(base, "/")
	if !found {
		return base
	}
	return kind + "/" + path[strings.LastIndex(path, "/")+1:]
}

// Keep implements provider.Keeper.
func (a *account) Keep(ctx context.Context, base string) error {
	committer, err := a.bases.await(ctx, base, a.client)
	if err != nil {
		return err
	}
	return committer.Check(ctx)
}

// Forget implements provider.Keeper.
func (a *account) Forget(handle provider.Handle) { a.bases.forget(handle) }
