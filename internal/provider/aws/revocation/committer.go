package revocation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// Grace is how long past its expiry a session still counts.
	Grace = 5 * time.Minute
	// Quarantine is how long no name is drawn that a withdrawn prefix denies. IAM is
	// eventually consistent; AWS gives no bound.
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
	Quarantine = 15 * time.Minute
	// Lookback is how long past its end Restore wants to know of a revoked session:
	// Grace, Quarantine, and time for a commit that is late.
	Lookback = Grace + Quarantine + 40*time.Minute

	// nearEnd is how close to a session's expiry its revocation only waits for the expiry. A lease is rounded down to a
	// second, so that Vault revokes it at most that early. AWS tells its time in whole seconds, rounded down, too, and
	// some time before it is heard.
	nearEnd = 3 * time.Second
	// longestSession bounds a session whose end is not known.
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html
	longestSession = 36 * time.Hour
)

var (
	// ErrNoRoom is returned where the base role's policies are so full that a
	// session can't be ended, even if others were ended with it; and for a new name,
	// since its session could not be ended either.
	ErrNoRoom = errors.New("revocation: no room is left in the base role's policies to deny sessions")
	// ErrNoName is returned where every name that was tried is denied.
	ErrNoName = errors.New("revocation: every name for this role is denied")
)

// Session is a session's code, and when AWS ends it by itself.
type Session struct {
	Code      Code
	ExpiresAt time.Time // zero where it is not known
}

// Config is what a Committer needs.
type Config struct {
	Mark     Mark
	Policies Policies
	Now      func() time.Time
	// Elapsed is monotonic time since some moment. Nil: that of Now.
	Elapsed func() time.Duration
	// Longest is the longest life of a session of the base. 0: of any session.
	Longest time.Duration
	// Recorded reads the base's record, which is empty at first. Nil for none.
	Recorded func(context.Context) (Record, error)
	// Record writes the base's record, before the first call of every commit that changes anything. So an engine that
	// was deposed, whose storage takes no write any more, changes nothing. On an error nothing is changed.
	Record func(context.Context, Record) error
	// Announce writes to the ledger that live sessions are ending which nobody asked to end, before that happens. On an
	// error nothing is changed. It must not wait for the committer.
	Announce func(ctx context.Context, sessions []Session, why Reason) error
	// Older is told that AWS has policies of an engine on newer storage than this, or on a copy of it. Nothing is
	// changed before it returns nil. Nil for nobody.
	Older func(ctx context.Context, found Stamp, own uint64) error
	// Passive says whether nothing is changed but for revocations that are asked for, as after Older. Nil for no.
	Passive func() bool
}

// Committer draws the names of one base role's sessions, and ends sessions. It
// remembers all that are live and all that are revoked, but nothing that a
// restart would lose: the ledger tells it again. It starts no goroutine before it
// has something to commit, and leaves none behind.
type Committer struct {
	Config
	background context.Context // of commits, which go on without their callers
	restored   chan struct{}   // closed by Restore
	wake       chan struct{}   // enough callers wait

	mu       sync.Mutex
	live     map[Code]time.Time // when it no longer counts
	doomed   map[Code]bool      // of these, those whose early end the ledger is being told of
	revoked  map[Code]*revocation
	denied   map[Prefix]time.Time // no name is drawn below, until then; zero: as long as it may be in force
	counters map[string]int       // of roles' parts that had to advance

	layout  layout    // what is there, as far as is known
	force   prefixSet // what of it is certainly in force; nil if to be computed
	certain bool      // layout is: it was read, and every call since was acknowledged
	read    bool      // it was read once
	room    Room
	full    bool      // some revoked session could not be denied
	wrote   prefixSet // what this engine has written itself, or tried to
	watch   time.Time // until when an empty cover is still checked

	writer string // in the stamps of this engine
	record Record // as storage has it
	loaded bool   // the record was read

	started   time.Time     // what the wall clock said then
	startedAt time.Duration // and what the monotonic one
	said      time.Time     // what AWS's clock said last; zero: nothing yet
	saidAt    time.Duration // and what the monotonic one said then

	queue
}

type revocation struct {
	until time.Time     // when it no longer counts, by AWS's clock
	late  time.Duration // how much longer its Deny is kept, see TakeoverDelay
	acked bool          // a commit that includes it has been acknowledged
}

// New makes a committer that works until background ends. It does nothing before
// Restore.
func New(background context.Context, config Config) *Committer {
	c := &Committer{
		Config: config, background: background, writer: newWriter(),
		restored: make(chan struct{}), wake: make(chan struct{}, 1),
		live: map[Code]time.Time{}, revoked: map[Code]*revocation{}, denied: map[Prefix]time.Time{}, counters: map[string]int{}, wrote: prefixSet{},
	}
	if begun := c.Now(); c.Elapsed == nil {
		c.Elapsed = func() time.Duration { return c.Now().Sub(begun) } // monotonic where Now is time.Now
	}
	c.started, c.startedAt = c.Now().Round(0), c.elapsed()
	return c
}

// Restore tells the committer, once, what the ledger knows of the base role: the
// sessions that are live, pending ones included, and those that were ended before
// their time, whether they are dead yet or not, until Lookback after their end.
// A Check should follow.
func (c *Committer) Restore(live, revoked []Session) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.restored:
		return errors.New("revocation: restored twice")
	default:
	}
	for _, sessions := range [][]Session{live, revoked} {
		for _, session := range sessions {
			if err := c.mine(session.Code); err != nil {
				return err
			}
		}
	}
	now := c.passed()
	for _, session := range live {
		c.live[session.Code] = c.until(session)
	}
	for _, session := range revoked {
		delete(c.live, session.Code)
		c.revoked[session.Code] = &revocation{until: c.until(session)}
		// Which prefixes the engine had in flight when it stopped, or withdrew just
		// before, is not known. Each is below the session's mark and role part.
		c.denied[session.Code.prefix(shortest)] = now.Add(Quarantine)
	}
	close(c.restored)
	return nil
}

func (c *Committer) mine(code Code) error {
	if code.text == "" || code.Mark() != c.Mark {
		return fmt.Errorf("revocation: session %q does not bear the mark %s", code, c.Mark)
	}
	return nil
}

func (c *Committer) until(session Session) time.Time {
	if session.ExpiresAt.IsZero() {
		return c.passed().Add(longestSession)
	}
	return session.ExpiresAt.Add(Grace)
}

// Draw makes the name of a session to be minted, from 16 characters of lower-case
// base32 that were never given before. The session counts as live at once. The
// name is none that is denied, may come to be, or was a short time ago. The first
// draw waits for Restore, and for the policies to be read.
func (c *Committer) Draw(ctx context.Context, role, task, random string, expiresAt time.Time) (Name, error) {
	if !idShape.MatchString(random) {
		return Name{}, fmt.Errorf("revocation: %q are not %d characters of base32", random, idChars)
	}
	if err := c.awaitRead(ctx); err != nil {
		return Name{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full || !c.room.any() {
		return Name{}, ErrNoRoom
	}
	code, err := c.free(role, task, random)
	if err != nil {
		return Name{}, err
	}
	_, live := c.live[code]
	if _, revoked := c.revoked[code]; live || revoked {
		return Name{}, fmt.Errorf("revocation: session %s was drawn before", code)
	}
	c.live[code] = c.until(Session{Code: code, ExpiresAt: expiresAt})
	return Name{code: code, readable: readable(role, task)}, nil
}

// free finds a code that nothing denies.
func (c *Committer) free(role, task, random string) (Code, error) {
	const roleParts, taskParts = 1 << 15, 1 << 10 // to try; a role part has 15 bits
	now := c.passed()
	for range roleParts {
		rolePart := c.Mark.text + part("role", role, c.counters[role], roleChars)
		for counter := range taskParts {
			code := Code{rolePart + part("task", task, counter, taskChars) + random}
			switch length := c.deniedAt(code, now); {
			case length == 0:
				return code, nil
			case length > shortest:
				continue
			}
			break
		}
		c.counters[role]++
	}
	return Code{}, ErrNoName
}

// deniedAt is the length of the shortest prefix that denies a code, 0 for none.
func (c *Committer) deniedAt(code Code, now time.Time) int {
	for length := shortest; length <= codeLength; length++ {
		if until, found := c.denied[code.prefix(length)]; found && (until.IsZero() || now.Before(until)) {
			return length
		}
	}
	return 0
}

// awaitRead waits until it is known what is in force.
func (c *Committer) awaitRead(ctx context.Context) error {
	if err := c.awaitRestore(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	read := c.read
	c.mu.Unlock()
	if read {
		return nil
	}
	return c.Check(ctx)
}

func (c *Committer) awaitRestore(ctx context.Context) error {
	select {
	case <-c.restored:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("revocation: waiting for the ledger: %w", context.Cause(ctx))
	case <-c.background.Done():
		return fmt.Errorf("revocation: waiting for the ledger: %w", context.Cause(c.background))
	}
}

// Forget drops a name that no session was minted with, and none may be.
func (c *Committer) Forget(code Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, code)
}

// Lives says whether a name is still one that a session may be minted with: it was
// drawn, and is not to be denied.
func (c *Committer) Lives(code Code) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, lives := c.live[code]
	return lives && !c.doomed[code]
}

// Revoke ends sessions, and returns nil when AWS has acknowledged it. The ledger
// must say that they are ending before. On an error they stay revoked: the next
// commit or the next check ends them. Where ctx ends first, the commit goes on.
//
// A session at its expiry is left to that, see expires: its own policy denies everything then.
func (c *Committer) Revoke(ctx context.Context, sessions ...Session) error {
	for _, session := range sessions {
		if err := c.mine(session.Code); err != nil {
			return err
		}
	}
	if err := c.awaitRestore(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	now := c.Now()
	var ending time.Time
	var codes []Code
	for _, session := range sessions {
		if c.expires(session) && c.revoked[session.Code] == nil {
			if session.ExpiresAt.After(ending) {
				ending = session.ExpiresAt
			}
			continue
		}
		if c.revoke(session) {
			codes = append(codes, session.Code)
		}
	}
	var done <-chan error
	if len(codes) > 0 {
		done = c.enqueue(codes, now)
	}
	c.mu.Unlock()
	if done != nil {
		if err := c.await(ctx, done); err != nil {
			return err
		}
	}
	return c.sleep(ctx, ending)
}

// revoke notes that a session is revoked, and reports whether that is still to be
// committed.
func (c *Committer) revoke(session Session) bool {
	code, until := session.Code, c.until(session)
	if known, found := c.live[code]; found && (session.ExpiresAt.IsZero() || known.After(until)) {
		until = known
	}
	delete(c.live, code)
	known := c.revoked[code]
	if known == nil {
		c.revoked[code] = &revocation{until: until}
		return true
	}
	if until.After(known.until) && !session.ExpiresAt.IsZero() {
		known.until = until
	}
	return !known.acked || !c.certain || !c.trusted().covers(code)
}

// sleep waits for a session's own end.
func (c *Committer) sleep(ctx context.Context, end time.Time) error {
	c.mu.Lock()
	remaining := end.Sub(c.passed())
	c.mu.Unlock()
	if remaining <= 0 || end.IsZero() {
		return nil
	}
	timer := time.NewTimer(remaining)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.background.Done():
		return context.Cause(c.background)
	}
}

// Check reads what is in force and puts right what differs, drops what has
// expired, and commits what earlier commits failed to. It is to be called once a
// minute, and after Restore. Where nothing is revoked it makes no call.
func (c *Committer) Check(ctx context.Context) error {
	if err := c.awaitRestore(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	done := c.enqueueCheck()
	c.mu.Unlock()
	return c.await(ctx, done)
}

func (c *Committer) await(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
