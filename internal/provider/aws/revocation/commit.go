package revocation

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// When a commit starts. Vault revokes up to 200 leases side by side; without the
// wait each commit would hold those few that came in during the one before.
const (
	quiet       = time.Second           // after that without an arrival, at once
	lull        = 75 * time.Millisecond // else when none has arrived for that long,
	longLull    = 4 * lull              // or that long, while few of those have come that are to be expected,
	enough      = 180                   // or that many callers wait,
	longestWait = time.Second           // or the first has waited that long
)

// callTimeout bounds each call to the policies.
const callTimeout = 20 * time.Second

// queue is the callers that wait for a commit.
type queue struct {
	running bool // a goroutine works on the queue
	waiting []waiter
	checks  []waiter
	hurry   bool      // the next commit does not wait for more
	before  int       // how many the last commits had: Vault sends another for each that returns
	first   time.Time // arrival of the first of those that wait
	last    time.Time // last arrival
}

// waiter is a caller, and the codes that it waits for.
type waiter struct {
	codes []Code
	done  chan error
}

func (c *Committer) enqueue(codes []Code, now time.Time) <-chan error {
	if len(c.waiting) == 0 {
		c.first = now
		since := now.Sub(c.last)
		if c.hurry = since >= quiet || since < 0; c.hurry {
			c.before = 0
		}
	}
	c.last = now
	one := waiter{codes: codes, done: make(chan error, 1)}
	c.waiting = append(c.waiting, one)
	if len(c.waiting) >= enough {
		c.nudge()
	}
	c.start()
	return one.done
}

func (c *Committer) enqueueCheck() <-chan error {
	one := waiter{done: make(chan error, 1)}
	c.checks = append(c.checks, one)
	c.nudge()
	c.start()
	return one.done
}

func (c *Committer) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Committer) start() {
	if !c.running {
		c.running = true
		go c.work()
	}
}

// work commits until nobody waits any more.
func (c *Committer) work() {
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 && len(c.checks) == 0 {
			c.running = false
			c.mu.Unlock()
			return
		}
		wait := c.wait(c.Now())
		c.mu.Unlock()
		if wait <= 0 {
			c.commit()
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.wake:
		case <-c.background.Done():
			c.commit() // which tells everybody
		}
		timer.Stop()
	}
}

// wait is how long the next commit still waits for more callers.
func (c *Committer) wait(now time.Time) time.Duration {
	if len(c.checks) > 0 || c.hurry || len(c.waiting) >= enough {
		return 0
	}
	pause := lull
	if len(c.waiting) < c.before/2 {
		pause = longLull // on a machine that is busy they come late
	}
	return min(pause-now.Sub(c.last), longestWait-now.Sub(c.first), pause)
}

// commit does one round: read if need be, plan, announce, write, answer.
func (c *Committer) commit() {
	c.mu.Lock()
	now := c.passed()
	c.expire(now)
	checks := c.checks
	c.checks = nil
	look := !c.certain || len(checks) > 0 && c.worthLooking(now)
	c.mu.Unlock()

	var seen Observed
	var unseen error
	if look {
		seen, unseen = c.look()
	}
	err := c.take(look, seen, unseen)

	c.mu.Lock()
	c.expire(c.passed())
	waiting := c.waiting
	c.waiting = nil
	c.before = max(len(waiting), c.before/2)
	var next plan
	// Passive, it does what is asked for, and nothing else.
	if passive := len(waiting) == 0 && c.Passive != nil && c.Passive(); err == nil && !passive {
		next, err = c.plan(len(checks) == 0 || c.settled())
	}
	revoked := maps.Clone(c.revoked)
	c.mu.Unlock()

	if err == nil {
		err = c.execute(next, revoked)
	}

	c.mu.Lock()
	c.settle(revoked)
	trusted := c.trusted()
	for _, waiter := range waiting {
		waiter.done <- c.answer(waiter, trusted, err)
	}
	c.mu.Unlock()
	if err == nil && len(next.left) > 0 {
		err = ErrNoRoom
	}
	if err == nil {
		err = unseen
	}
	for _, waiter := range checks {
		waiter.done <- err
	}
}

// answer is nil where the caller's sessions are dead, whatever became of the
// others.
func (c *Committer) answer(one waiter, trusted prefixSet, err error) error {
	for _, code := range one.codes {
		if c.revoked[code] == nil || trusted.covers(code) { // past its end, or denied
			continue
		}
		if err == nil {
			err = ErrNoRoom
		}
		return err
	}
	return nil
}

func (c *Committer) call(call func(context.Context) error) error {
	if c.background.Err() != nil {
		return context.Cause(c.background)
	}
	ctx, cancel := context.WithTimeout(c.background, callTimeout)
	defer cancel()
	return call(ctx)
}

// worthLooking says whether a check has anything to check. A cover that has become
// empty is looked at for a while, since the write of an engine that was deposed
// may come late.
func (c *Committer) worthLooking(now time.Time) bool {
	return len(c.revoked) > 0 || len(c.layout) > 0 || now.Before(c.watch)
}

func (c *Committer) look() (seen Observed, err error) {
	if err := c.load(); err != nil {
		return Observed{}, err
	}
	err = c.call(func(ctx context.Context) (err error) {
		seen, err = c.Policies.Read(ctx)
		return err
	})
	if err != nil {
		return Observed{}, fmt.Errorf("revocation: reading the base role's policies: %w", err)
	}
	return seen, nil
}

// take takes what was read for what is there, and keeps in force of it what is not explained. That it could not be read
// is an error only where it is not known otherwise: revocations go on without.
func (c *Committer) take(looked bool, seen Observed, unseen error) error {
	if unseen != nil || !looked {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.certain {
			return nil
		}
		return unseen
	}
	newer, changed, err := c.adopt(seen)
	if err == nil && newer != (Stamp{}) {
		err = c.notice(newer)
	} else if err == nil && changed {
		c.mu.Lock()
		record := c.describe(c.record.Epoch, plan{})
		c.mu.Unlock()
		err = c.persist(record)
	}
	if err == nil {
		err = c.yield()
	}
	if err != nil { // what was not told is told after the next read
		c.mu.Lock()
		c.certain = false
		c.mu.Unlock()
	}
	return err
}

// adopt is take without what storage and ledger have to know of it, which it returns, see keep.
func (c *Committer) adopt(seen Observed) (newer Stamp, changed bool, err error) {
	found, err := seen.layout()
	if err != nil {
		return Stamp{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hear(seen.At)
	c.layout, c.force, c.room = found, nil, seen.Room
	c.certain, c.read = true, true
	for _, policy := range found {
		c.hold(policy.entries)
	}
	newer, changed = c.keep(found)
	return newer, changed, nil
}

// trusted are the prefixes that are certainly in force.
func (c *Committer) trusted() prefixSet {
	if c.force == nil {
		c.force = c.layout.trusted()
	}
	return c.force
}

// hold keeps names from being drawn that begin with one of the prefixes.
func (c *Committer) hold(prefixes []Prefix) {
	for _, prefix := range prefixes {
		c.denied[prefix] = time.Time{}
	}
}

// expire forgets what is past its end. It leaves what is in force to the next
// commit. Before AWS has been read, what the time is is not known.
func (c *Committer) expire(now time.Time) {
	if !c.read {
		return
	}
	maps.DeleteFunc(c.live, func(_ Code, until time.Time) bool { return !now.Before(until) })
	maps.DeleteFunc(c.revoked, func(_ Code, one *revocation) bool { return !now.Before(one.until.Add(one.late)) })
	maps.DeleteFunc(c.denied, func(_ Prefix, until time.Time) bool { return !until.IsZero() && !now.Before(until) })
	if len(c.denied) == 0 {
		clear(c.counters)
	}
}

// plan computes the next commit. From here on no name is drawn that it would deny.
func (c *Committer) plan(urgent bool) (plan, error) {
	parts := map[Prefix]bool{}
	revoked := make([]Code, 0, len(c.revoked))
	for code := range c.revoked {
		revoked = append(revoked, code)
		parts[code.prefix(shortest)] = true
	}
	var live []Code // those that a prefix for a revoked one could touch
	for code := range c.live {
		if parts[code.prefix(shortest)] {
			live = append(live, code)
		}
	}
	next, err := compute(c.layout, c.room, sorted(revoked), sorted(live), urgent)
	c.full = err != nil || len(next.left) > 0
	if err != nil {
		return plan{}, err
	}
	for _, step := range next.steps {
		c.hold(step.entries)
	}
	return next, nil
}

// execute announces a plan and makes its calls, one after the other. The codes of
// revoked that it ends early are added to it.
func (c *Committer) execute(next plan, revoked map[Code]*revocation) error {
	if len(next.steps) == 0 {
		return nil
	}
	c.mu.Lock()
	record := c.next(next)
	c.mu.Unlock()
	if err := c.persist(record); err != nil {
		return err
	}
	if err := c.announce(next, revoked); err != nil {
		return err
	}
	stamp := Stamp{Epoch: record.Epoch, Writer: c.writer}
	for _, step := range next.steps {
		c.mu.Lock()
		for _, prefix := range step.entries {
			c.wrote[prefix] = struct{}{}
		}
		c.mu.Unlock()
		err := c.call(func(ctx context.Context) error { return step.run(ctx, c.Policies, stamp) })
		c.mu.Lock()
		if err != nil {
			// Whether it was carried out is not known: the next commit reads first. What
			// was denied is denied in either case.
			c.certain = false
		} else {
			step.done(c.layout, stamp)
		}
		c.force, c.watch = nil, c.passed().Add(Quarantine)
		c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("revocation: changing the base role's policies: %w", err)
		}
	}
	return nil
}

// announce tells the ledger which live sessions a plan ends early, and then counts
// them as revoked.
func (c *Committer) announce(next plan, revoked map[Code]*revocation) error {
	c.mu.Lock()
	var collateral []Session
	c.doomed = map[Code]bool{}
	for _, code := range next.collateral {
		if until, found := c.live[code]; found {
			collateral = append(collateral, Session{Code: code, ExpiresAt: until.Add(-Grace)})
			c.doomed[code] = true
		}
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.doomed = nil
	}()
	if len(collateral) == 0 {
		return nil
	}
	return c.tell(collateral, Collateral, revoked)
}

// tell writes to the ledger that live sessions are ending, and then counts them as revoked, also in revoked.
func (c *Committer) tell(sessions []Session, why Reason, revoked map[Code]*revocation) error {
	if c.Announce != nil {
		err := c.call(func(ctx context.Context) error { return c.Announce(ctx, sessions, why) })
		if err != nil {
			return fmt.Errorf("revocation: telling the ledger: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, session := range sessions {
		if until, found := c.live[session.Code]; found {
			delete(c.live, session.Code)
			c.revoked[session.Code] = &revocation{until: until}
			if revoked != nil {
				revoked[session.Code] = c.revoked[session.Code]
			}
		}
	}
	return nil
}

// settle notes what a commit has achieved. Once it is certain what is in force,
// what isn't has been withdrawn.
func (c *Committer) settle(revoked map[Code]*revocation) {
	now := c.passed()
	if !c.certain {
		return
	}
	trusted := c.trusted()
	for code, one := range revoked {
		one.acked = one.acked || trusted.covers(code)
	}
	there := prefixSet{}
	for _, policy := range c.layout {
		for _, prefix := range policy.entries {
			there[prefix] = struct{}{}
		}
	}
	for prefix, until := range c.denied {
		if _, found := there[prefix]; !found && until.IsZero() {
			c.denied[prefix] = now.Add(Quarantine)
		}
	}
}
