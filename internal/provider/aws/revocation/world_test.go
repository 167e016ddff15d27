package revocation

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// world is a committer, its base role at AWS, and what the ledger knows. Its clock
// is that of the bubble that the test runs in.
type world struct {
	*Committer
	t      *testing.T
	iam    *fakeIAM
	random *rand.Rand
	stop   context.CancelFunc

	mu         sync.Mutex
	ledger     map[Code]*record
	collateral int
	found      int     // sessions that were denied already
	announced  int     // commits
	refuse     error   // what the ledger answers
	kept       Record  // in the ledger's storage
	older      []Stamp // what the ledger was told
	accepted   bool    // that it is older

	ahead time.Duration // how much the wall clock is
}

type record struct {
	expiresAt time.Time
	ending    bool // the ledger says so
	dead      bool // Revoke returned nil
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, iam: &fakeIAM{latency: 30 * time.Millisecond}, random: newRandom(seed), ledger: map[Code]*record{}}
	w.boot()
	w.iam.written = w.verify
	t.Cleanup(func() { w.stop(); w.iam.check(t) })
	return w
}

// boot starts a committer anew, as after a crash.
func (w *world) boot() {
	if w.stop != nil {
		w.stop()
	}
	background, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.Committer = New(background, w.config())
	var live, revoked []Session
	for code, one := range w.ledger {
		switch session := (Session{code, one.expiresAt}); {
		case one.ending && time.Since(one.expiresAt) < Lookback:
			revoked = append(revoked, session)
		case !one.ending && time.Now().Before(one.expiresAt):
			live = append(live, session)
		}
	}
	if err := w.Restore(live, revoked); err != nil {
		w.t.Fatal(err)
	}
}

// config is of the base role's committer, with the ledger as it is.
func (w *world) config() Config {
	begun := time.Now()
	return Config{
		Mark: testMark, Policies: w.iam, Longest: 12 * time.Hour,
		Now:     func() time.Time { return time.Now().Add(w.ahead).Round(0) },
		Elapsed: func() time.Duration { return time.Since(begun) },
		Recorded: func(context.Context) (Record, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.kept, nil
		},
		Record: func(_ context.Context, record Record) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.announced++
			if w.refuse == nil {
				w.kept = record
			}
			return w.refuse
		},
		Announce: w.announce,
		Older: func(_ context.Context, found Stamp, own uint64) error {
			w.older = append(w.older, found)
			return nil
		},
		Passive: func() bool { return len(w.older) > 0 && !w.accepted },
	}
}

func (w *world) announce(_ context.Context, collateral []Session, why Reason) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	if why == AlreadyDenied {
		for _, session := range collateral {
			w.found++
			w.ledger[session.Code].ending = true
		}
		return nil
	}
	for _, session := range collateral {
		if w.Lives(session.Code) {
			w.t.Errorf("%s may still be minted while the ledger is told of its end", session.Code)
		}
		if !w.ledger[session.Code].ending {
			w.collateral++
		}
		if one := w.ledger[session.Code]; !one.expiresAt.Equal(session.ExpiresAt) {
			w.t.Errorf("%s is said to end at %s, not at %s", session.Code, session.ExpiresAt, one.expiresAt)
		}
		w.ledger[session.Code].ending = true
	}
	return nil
}

// verify holds what must hold at every moment: what is called dead is denied, and
// what the ledger calls live is not.
func (w *world) verify() {
	denied := w.iam.inForce()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for code, one := range w.ledger {
		switch {
		case one.dead && now.Before(one.expiresAt) && !denied.covers(code):
			w.t.Errorf("%s is called dead and works", code)
		case !one.ending && now.Before(one.expiresAt) && denied.covers(code):
			w.t.Errorf("%s is live and denied", code)
		}
	}
}

// draw mints a session.
func (w *world) draw(role, task string, life time.Duration) Session {
	w.t.Helper()
	expiresAt := time.Now().Add(life)
	name, err := w.Draw(w.t.Context(), role, task, randomID(w.random), expiresAt)
	if err != nil {
		w.t.Fatal(err)
	}
	if denied := w.iam.inForce(); denied.covers(name.Code()) {
		w.t.Fatalf("drew %s, which is denied", name)
	}
	w.mu.Lock()
	w.ledger[name.Code()] = &record{expiresAt: expiresAt}
	w.mu.Unlock()
	return Session{name.Code(), expiresAt}
}

// end revokes sessions as the lifecycle does.
func (w *world) end(ctx context.Context, sessions ...Session) error {
	w.mu.Lock()
	for _, session := range sessions {
		w.ledger[session.Code].ending = true
	}
	w.mu.Unlock()
	if err := w.Revoke(ctx, sessions...); err != nil {
		return err
	}
	w.mu.Lock()
	for _, session := range sessions {
		w.ledger[session.Code].dead = true
	}
	w.mu.Unlock()
	w.verify()
	return nil
}

func (w *world) mustEnd(sessions ...Session) {
	w.t.Helper()
	if err := w.end(w.t.Context(), sessions...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) check() {
	w.t.Helper()
	if err := w.Check(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.verify()
}

func (w *world) expectWrites(want int) {
	w.t.Helper()
	if got := w.iam.writeCount(); got != want {
		w.t.Errorf("%d writes, want %d: %v", got, want, w.iam.writes)
	}
}
