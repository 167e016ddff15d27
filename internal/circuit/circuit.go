// Package circuit keeps a target that does not answer from holding up everything
// else: it bounds how many calls of a target are under way, and after several
// that went unanswered lets none through but one at a time, to see.
package circuit

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// failures is how many calls in a row have to go unanswered.
	failures = 5
	// atOnce is how many calls of a target are under way at once, and mintsAtOnce
	// how many of them may be mints: what ends a credential always finds room.
	atOnce, mintsAtOnce = 64, 48
	// mintLimit and revokeLimit are how long a call may take.
	mintLimit, revokeLimit = 30 * time.Second, 2 * time.Minute
	// A target that does not answer is tried again after firstPause, and after
	// twice as long each time up to lastPause, with one call for probeLimit.
	firstPause = time.Second
	lastPause  = time.Minute
	probeLimit = 15 * time.Second
	// mintWait is how long a mint waits for its turn: its caller is waiting, too.
	mintWait = 10 * time.Second
)

// ErrBusy is returned to a mint that has waited for its turn in vain.
var ErrBusy = errors.New("too many calls of the target are under way")

// DownError is returned instead of a call to a target that does not answer.
type DownError struct {
	Since time.Time // when the first call went unanswered
}

func (e *DownError) Error() string {
	return "the target has not answered since " + e.Since.UTC().Format(time.RFC3339)
}

// Kind is what a call is for.
type Kind int

const (
	// Mint fails at once where the target is down, and after a while where it is busy.
	Mint Kind = iota
	// Revoke goes before mints, and waits for the outcome of a call that is
	// trying whether the target is back.
	Revoke
	// Commit is a Revoke that shares its call with others: it takes no turn, or
	// fewer could share one.
	Commit
)

// Verdict is what a call's outcome says of its target.
type Verdict int

const (
	// Nothing: the call was given up.
	Nothing Verdict = iota
	// Answered is anything that came from the target, refusals among them.
	Answered
	// Unanswered is a call that timed out or did not get through.
	Unanswered
)

// Circuit is what the calls of one target go through.
type Circuit struct {
	now     func() time.Time
	verdict func(error) Verdict
	changed func(down bool, err error)

	mu       sync.Mutex
	calls    int // under way, but for commits and the probe
	mints    int // of these
	revoking queue
	minting  queue

	era    int // changes with every change of down; what a call of before says is void
	failed int // calls in a row
	since  time.Time
	down   bool
	pause  time.Duration
	next   time.Time     // when the next probe may start
	probe  chan struct{} // closed at its end; nil for none
}

// New makes a circuit that lets calls through. verdict judges a call's error, nil
// included; changed is told, if it is set, when the target stops answering, with
// the last call's error, and when it answers again.
func New(now func() time.Time, verdict func(error) Verdict, changed func(down bool, err error)) *Circuit {
	return &Circuit{now: now, verdict: verdict, changed: changed}
}

// State is a circuit at one moment.
type State struct {
	Down    bool
	Since   time.Time // where Down: when the first call went unanswered
	Mints   int       // under way
	Revokes int       // under way, but for commits
	Waiting int       // for their turn
}

// State returns the circuit's state.
func (c *Circuit) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := State{Down: c.down, Mints: c.mints, Revokes: c.calls - c.mints, Waiting: len(c.revoking) + len(c.minting)}
	if c.down {
		state.Since = c.since
	}
	return state
}

// Refuses returns the *DownError that a call would get at once, or nil.
func (c *Circuit) Refuses(kind Kind) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refuses(kind)
}

func (c *Circuit) refuses(kind Kind) error {
	probing, pausing := c.probe != nil, c.now().Before(c.next)
	if c.down && (probing && kind == Mint || !probing && pausing) {
		return &DownError{Since: c.since}
	}
	return nil
}

// Do makes a call when it is its turn, with a deadline, and returns its error.
// Where the call is not made, the error is a *DownError, ErrBusy or ctx's. The
// end of ctx ends a mint's waiting, but not the mint itself: what has been
// minted when its caller hangs up has to be known.
func (c *Circuit) Do(ctx context.Context, kind Kind, call func(context.Context) error) error {
	turn, err := c.enter(ctx, kind)
	if err != nil {
		return err
	}
	verdict := Nothing
	defer func() { c.leave(&turn, verdict, err) }()
	ctx, cancel := turn.limit(ctx)
	defer cancel()
	err = call(context.WithValue(ctx, idleKey{}, func() { c.idle(&turn) }))
	verdict = c.verdict(err)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		verdict = Unanswered // however the call puts it
	}
	return err
}

// idleKey is the context key of the function that makes a call idle.
type idleKey struct{}

// Idle says that the call whose context ctx is asks the target nothing more and only waits.
// Its place is free for another call. Outside of a call, Idle does nothing.
func Idle(ctx context.Context) {
	if idle, in := ctx.Value(idleKey{}).(func()); in {
		idle()
	}
}

func (c *Circuit) idle(waits *turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free(waits)
}

// turn is one call that is let through.
type turn struct {
	kind  Kind
	era   int
	probe bool
	freed bool // whether its room is another's already
}

// limit is the context of the turn's call.
func (t turn) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := revokeLimit
	if t.kind == Mint {
		ctx, limit = context.WithoutCancel(ctx), mintLimit
	}
	if t.probe {
		limit = probeLimit
	}
	return context.WithTimeout(ctx, limit)
}

func (c *Circuit) enter(ctx context.Context, kind Kind) (turn, error) {
	if kind == Mint {
		limited, cancel := context.WithTimeoutCause(ctx, mintWait, ErrBusy)
		defer cancel()
		ctx = limited
	}
	for {
		granted, wait, err := c.try(kind)
		if err != nil || wait == nil {
			return granted, err
		}
		select {
		case <-wait.ready:
			if wait.granted {
				return wait.turn, nil
			}
		case <-ctx.Done():
			c.giveUp(wait)
			return turn{}, context.Cause(ctx)
		}
	}
}

// try grants a turn, or says what to wait for, or refuses.
func (c *Circuit) try(kind Kind) (turn, *waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refuses(kind); err != nil {
		return turn{}, nil, err
	}
	granted := turn{kind: kind, era: c.era}
	switch {
	case c.down && c.probe != nil:
		return turn{}, &waiter{ready: c.probe}, nil
	case c.down:
		c.probe = make(chan struct{})
		granted.probe = true
		return granted, nil, nil
	case kind == Commit:
		return granted, nil, nil
	case c.room(kind):
		c.take(kind)
		return granted, nil, nil
	}
	waiting := &waiter{turn: granted, ready: make(chan struct{})}
	if kind == Mint {
		c.minting.add(waiting)
	} else {
		c.revoking.add(waiting)
	}
	return turn{}, waiting, nil
}

// room says whether a call may start. There is none while others wait for it:
// who leaves hands it to them.
func (c *Circuit) room(kind Kind) bool {
	return c.calls < atOnce && (kind != Mint || c.mints < mintsAtOnce)
}

func (c *Circuit) take(kind Kind) {
	c.calls++
	if kind == Mint {
		c.mints++
	}
}

func (c *Circuit) leave(left *turn, verdict Verdict, err error) {
	c.mu.Lock()
	c.free(left)
	before := c.down
	if left.era == c.era {
		c.judge(*left, verdict)
	}
	if left.probe {
		close(c.probe)
		c.probe = nil
	}
	after := c.down
	c.mu.Unlock()
	if before != after && c.changed != nil {
		c.changed(after, err)
	}
}

// free releases the room of a call, once. A probe and a commit have none.
func (c *Circuit) free(of *turn) {
	if !of.probe && of.kind != Commit && !of.freed {
		of.freed = true
		c.release(of.kind)
	}
}

// release hands a call's room to who has waited longest, revokes first.
func (c *Circuit) release(kind Kind) {
	c.calls--
	if kind == Mint {
		c.mints--
	}
	switch {
	case len(c.revoking) > 0 && c.room(Revoke):
		c.grant(c.revoking.first())
	case len(c.minting) > 0 && c.room(Mint):
		c.grant(c.minting.first())
	}
}

func (c *Circuit) grant(waiting *waiter) {
	c.take(waiting.turn.kind)
	waiting.granted = true
	close(waiting.ready)
}

// judge takes account of what a call of this era says.
func (c *Circuit) judge(left turn, verdict Verdict) {
	switch {
	case verdict == Answered && left.probe:
		c.down, c.failed = false, 0
		c.era++
	case verdict == Answered:
		c.failed = 0
	case verdict == Unanswered && left.probe:
		c.pause = min(2*c.pause, lastPause)
		c.next = c.now().Add(c.pause)
	case verdict == Unanswered:
		if c.failed++; c.failed == 1 {
			c.since = c.now()
		}
		if c.failed < failures {
			return
		}
		c.down, c.pause, c.next = true, firstPause, c.now().Add(firstPause)
		c.era++
		for _, waiting := range append(c.revoking, c.minting...) {
			close(waiting.ready) // to be refused
		}
		c.revoking, c.minting = nil, nil
	default: // nothing was learnt
	}
}

// giveUp takes one out of the queue who does not wait any longer.
func (c *Circuit) giveUp(waiting *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiting.granted {
		c.release(waiting.turn.kind)
		return
	}
	c.revoking.remove(waiting)
	c.minting.remove(waiting)
}
