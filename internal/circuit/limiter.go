package circuit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Urgency says who goes first where a target takes no more.
type Urgency int

const (
	// Kill ends a credential.
	Kill Urgency = iota
	// Make is for somebody who waits for a new credential.
	Make
	// Tidy removes what is dead already.
	Tidy
	urgencies
)

// patience is how long a call waits for its turn, by urgency. It is less than what
// the calls of a target may take in all: that a turn did not come says nothing of
// whether the target answers.
var patience = [urgencies]time.Duration{Kill: 75 * time.Second, Make: 8 * time.Second, Tidy: 60 * time.Second}

// hopeless is how long a call to Make waits while others go first: then its turn comes
// when these are through, and who waits for it had better hear so.
const hopeless = 2 * time.Second

const (
	// A target that throttles is asked for a share of what it has served in the last
	// span, and cutEvery at most: one burst is one sign.
	share    = 0.9
	span     = time.Second
	cutEvery = 700 * time.Millisecond
	leastAt  = 3.0 // calls a second
	// Every second without a sign raises that by a share, and by a call a second at
	// least, until it has not throttled for calm.
	growth, growthLeast = 0.03, 1
	calm                = 30 * time.Second
	// burst is how much of a second's calls may come at once.
	burst = 0.1
)

// ErrPressed is returned where a call's turn did not come in time because its
// target throttles.
var ErrPressed = errors.New("the target throttles, and others go first")

type urgencyKey struct{}

// WithUrgency says how urgent the calls are that are made with the context; those
// of a context that says nothing are like Kill's.
func WithUrgency(ctx context.Context, urgency Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, urgency)
}

func urgencyOf(ctx context.Context) Urgency {
	urgency, _ := ctx.Value(urgencyKey{}).(Urgency)
	return urgency
}

// Limiter keeps a client's calls to what its target takes. It knows no limit until
// the target throttles, finds it then from what the target serves, and lets the most
// urgent calls through first.
type Limiter struct {
	mu      sync.Mutex
	rate    float64 // calls a second; 0: no limit is known
	tokens  float64
	filled  time.Time // when tokens was right
	cut     time.Time // when the target last throttled
	served  []time.Time
	waiting [urgencies]queue
	timer   *time.Timer
}

// Pressed says whether the target has throttled lately.
func (l *Limiter) Pressed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate > 0
}

// Wait waits for a call's turn. The error is ErrPressed where it did not come in
// time, or ctx's.
func (l *Limiter) Wait(ctx context.Context) error {
	urgency := urgencyOf(ctx)
	l.mu.Lock()
	l.fill(time.Now())
	if l.rate == 0 || (l.tokens >= 1 && l.first(urgency)) {
		l.tokens--
		l.mu.Unlock()
		return nil
	}
	turn := &waiter{ready: make(chan struct{})}
	l.waiting[urgency].add(turn)
	l.schedule()
	l.mu.Unlock()
	err := l.await(ctx, turn, urgency)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if turn.granted { // in the same moment
		return nil
	}
	l.waiting[urgency].remove(turn)
	return err
}

// await waits for a turn that has been asked for.
func (l *Limiter) await(ctx context.Context, turn *waiter, urgency Urgency) error {
	longest := time.NewTimer(patience[urgency])
	defer longest.Stop()
	look := make(<-chan time.Time)
	if urgency == Make {
		ticker := time.NewTicker(hopeless)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-turn.ready:
			return nil
		case <-longest.C:
			return ErrPressed
		case <-look:
			if l.pressed(Kill) {
				return ErrPressed
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pressed says whether calls of an urgency wait.
func (l *Limiter) pressed(urgency Urgency) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting[urgency]) > 0
}

// first says whether nobody waits who goes before a call that comes now.
func (l *Limiter) first(urgency Urgency) bool {
	for _, others := range l.waiting[:urgency+1] {
		if len(others) > 0 {
			return false
		}
	}
	return true
}

// fill adds the tokens, and the growth, of the time since it was last called.
func (l *Limiter) fill(now time.Time) {
	passed := now.Sub(l.filled).Seconds()
	l.filled = now
	if l.rate == 0 {
		l.tokens = 0
		return
	}
	if now.Sub(l.cut) > calm {
		l.rate = 0
		l.release()
		return
	}
	l.rate += passed * max(growthLeast, l.rate*growth)
	l.tokens = min(l.tokens+passed*l.rate, max(1, l.rate*burst))
}

// schedule sees to it that somebody is let through once there is a token.
func (l *Limiter) schedule() {
	if l.timer != nil {
		return
	}
	missing := max(0, 1-l.tokens)
	l.timer = time.AfterFunc(time.Duration(missing/l.rate*float64(time.Second))+time.Millisecond, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer = nil
		now := time.Now()
		l.fill(now)
		l.release()
	})
}

// release lets those through that there are tokens for.
func (l *Limiter) release() {
	for urgency := range l.waiting {
		for len(l.waiting[urgency]) > 0 {
			if l.rate > 0 && l.tokens < 1 {
				l.schedule()
				return
			}
			turn := l.waiting[urgency].first()
			turn.granted = true
			close(turn.ready)
			l.tokens--
		}
	}
}

// Answered is told of every answer of the target, and whether it says that it is
// asked too much.
func (l *Limiter) Answered(throttled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !throttled {
		l.serve(now)
		return
	}
	l.fill(now)
	if now.Sub(l.cut) < cutEvery {
		return
	}
	served := max(leastAt, share*float64(l.lately(now))/span.Seconds())
	if l.rate > 0 {
		served = max(leastAt, min(served, share*l.rate))
	}
	l.rate, l.cut, l.tokens = served, now, 0
}

// serve notes that a call was served.
func (l *Limiter) serve(now time.Time) {
	l.served = append(l.served, now)
	if len(l.served) > 4*cap(l.served)/5 { // before it grows
		l.lately(now)
	}
}

// lately counts the calls that were served in the last span.
func (l *Limiter) lately(now time.Time) int {
	old := 0
	for old < len(l.served) && now.Sub(l.served[old]) > span {
		old++
	}
	l.served = append(l.served[:0], l.served[old:]...)
	return len(l.served)
}
