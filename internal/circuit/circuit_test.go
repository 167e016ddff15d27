package circuit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errDead   = errors.New("connection refused")
	errNo     = errors.New("the target says no")
	errWanted = errors.New("the caller went away")
)

func judged(err error) Verdict {
	switch {
	case errors.Is(err, errDead):
		return Unanswered
	case errors.Is(err, errWanted):
		return Nothing
	default:
		return Answered
	}
}

func newCircuit() *Circuit { return New(time.Now, judged, nil) }

func returns(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

func isDown(err error) bool {
	var down *DownError
	return errors.As(err, &down)
}

// fail has calls of the target go unanswered.
func fail(t *testing.T, c *Circuit, times int) {
	t.Helper()
	for range times {
		if err := c.Do(t.Context(), Mint, returns(errDead)); !errors.Is(err, errDead) {
			t.Fatalf("got %v, want %v", err, errDead)
		}
	}
}

// Only calls that go unanswered, one after the other, break the circuit.
func TestWhatBreaksTheCircuit(t *testing.T) {
	for _, test := range []struct {
		between error
		broken  bool
	}{{nil, false}, {errNo, false}, {errWanted, true}} {
		c := newCircuit()
		fail(t, c, failures-1)
		_ = c.Do(t.Context(), Revoke, returns(test.between))
		fail(t, c, 1)
		if down := c.State().Down; down != test.broken {
			t.Errorf("after %v in between: down %v, want %v", test.between, down, test.broken)
		}
	}
}

// Every call has a deadline, which is no answer, however the call puts it. A
// mint has its own, whatever becomes of its caller.
func TestADeadlineIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit()
		for _, kind := range []Kind{Mint, Revoke, Commit, Mint, Mint} {
			ctx, cancel := context.WithCancel(t.Context())
			started, limit := time.Now(), revokeLimit
			_ = c.Do(ctx, kind, func(ctx context.Context) error {
				if kind == Mint {
					limit = mintLimit
					cancel()
				}
				<-ctx.Done()
				return errors.New("in its own words")
			})
			cancel()
			if took := time.Since(started); took != limit {
				t.Errorf("a call of kind %d took %s, want %s", kind, took, limit)
			}
		}
		if !c.State().Down {
			t.Error("calls that timed out did not break the circuit")
		}
	})
}

// A target that is down is tried after a pause that grows to a minute, and the
// first answer ends it.
func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, changes := time.Now(), []string{}
		c := New(time.Now, judged, func(down bool, err error) { changes = append(changes, fmt.Sprint(down, err)) })
		fail(t, c, failures)
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			time.Sleep(pause*time.Second - 1)
			for _, kind := range []Kind{Mint, Revoke, Commit} {
				err := c.Do(t.Context(), kind, returns(nil))
				var down *DownError
				if !errors.As(err, &down) || !down.Since.Equal(started) || c.Refuses(kind) == nil {
					t.Fatalf("kind %d before the pause is over: got %v", kind, err)
				}
			}
			time.Sleep(time.Nanosecond)
			if err := c.Refuses(Mint); err != nil {
				t.Errorf("after the pause: %v", err)
			}
			fail(t, c, 1)
		}
		time.Sleep(time.Minute)
		if err := c.Do(t.Context(), Revoke, returns(errWanted)); !errors.Is(err, errWanted) {
			t.Errorf("got %v", err)
		}
		if err := c.Do(t.Context(), Mint, returns(errNo)); !errors.Is(err, errNo) { // the next probe, at once
			t.Errorf("got %v", err)
		}
		if state := c.State(); state.Down || !state.Since.IsZero() {
			t.Errorf("after an answer: %+v", state)
		}
		fail(t, c, failures-1)
		if c.State().Down {
			t.Error("what went unanswered before counts still")
		}
		if want := fmt.Sprint([]string{"true connection refused", "false the target says no"}); fmt.Sprint(changes) != want {
			t.Errorf("changes %v, want %s", changes, want)
		}
	})
}

// While a probe is under way mints are refused, and revokes wait for what it
// shows: then all of them go through, or none.
func TestRevokesWaitForTheProbe(t *testing.T) {
	for _, outcome := range []error{nil, errDead} {
		synctest.Test(t, func(t *testing.T) {
			c := newCircuit()
			fail(t, c, failures)
			time.Sleep(firstPause)
			var all sync.WaitGroup
			probed, through, refused := make(chan struct{}), atomic.Int32{}, atomic.Int32{}
			all.Go(func() {
				_ = c.Do(t.Context(), Mint, func(context.Context) error { <-probed; return outcome })
			})
			synctest.Wait()
			for i := range 3 * atOnce {
				all.Go(func() {
					switch err := c.Do(t.Context(), Kind(1+i%2), returns(nil)); {
					case err == nil:
						through.Add(1)
					case isDown(err):
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if err := c.Do(t.Context(), Mint, returns(nil)); !isDown(err) || c.Refuses(Mint) == nil || c.Refuses(Revoke) != nil {
				t.Errorf("a mint beside the probe: %v", err)
			}
			close(probed)
			all.Wait()
			if outcome == nil && through.Load() != 3*atOnce || outcome != nil && refused.Load() != 3*atOnce {
				t.Errorf("after a probe with %v: %d went through, %d were refused", outcome, through.Load(), refused.Load())
			}
		})
	}
}

// A probe that hangs is given up, so that the next finds out soon.
func TestAProbeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit()
		fail(t, c, failures)
		time.Sleep(firstPause)
		started := time.Now()
		_ = c.Do(t.Context(), Revoke, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if took := time.Since(started); took != probeLimit {
			t.Errorf("the probe took %s, want %s", took, probeLimit)
		}
		if c.Refuses(Mint) == nil {
			t.Error("the target is not down any more")
		}
	})
}

// What began before the target was given up says nothing of it afterwards.
func TestLateOutcomesAreVoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit()
		var all sync.WaitGroup
		late := make(chan struct{})
		for range 2 * failures {
			all.Go(func() { _ = c.Do(t.Context(), Mint, func(context.Context) error { <-late; return errDead }) })
		}
		synctest.Wait()
		fail(t, c, failures)
		time.Sleep(firstPause)
		if err := c.Do(t.Context(), Mint, returns(nil)); err != nil {
			t.Error(err)
		}
		close(late)
		all.Wait()
		if state := c.State(); state != (State{}) {
			t.Errorf("the late failures left %+v", state)
		}
	})
}

// busy is a circuit with all the mints under way that there may be, which end
// when they are told to.
func busy(t *testing.T, extra int) (c *Circuit, end chan struct{}, all *sync.WaitGroup) {
	c, end, all = newCircuit(), make(chan struct{}), &sync.WaitGroup{}
	for range mintsAtOnce + extra {
		all.Go(func() {
			if err := c.Do(t.Context(), Mint, func(context.Context) error { <-end; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	synctest.Wait()
	return c, end, all
}

// Mints that hang never keep a revoke from its turn; no more calls are under way
// than may be, and revokes that wait go before mints that have waited longer.
func TestRevokesGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, end, all := busy(t, 10)
		if state := c.State(); state.Mints != mintsAtOnce || state.Waiting != 10 {
			t.Fatalf("with mints alone: %+v", state)
		}
		if err := c.Do(t.Context(), Revoke, returns(nil)); err != nil {
			t.Error(err)
		}
		room := atOnce - mintsAtOnce
		var order []Kind
		var mu sync.Mutex
		revoked := make(chan struct{})
		for range room + 5 {
			all.Go(func() {
				err := c.Do(t.Context(), Revoke, func(context.Context) error {
					mu.Lock()
					order = append(order, Revoke)
					mu.Unlock()
					<-revoked
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if state := c.State(); state.Mints != mintsAtOnce || state.Revokes != room || state.Waiting != 15 {
			t.Errorf("with revokes: %+v", state)
		}
		for range 5 {
			end <- struct{}{} // a mint's end makes room for a revoke
			synctest.Wait()
		}
		if state := c.State(); state.Revokes != room+5 || state.Mints != mintsAtOnce-5 || state.Waiting != 10 || len(order) != room+5 {
			t.Errorf("after five mints: %+v", state)
		}
		if err := c.Do(t.Context(), Commit, returns(nil)); err != nil { // takes no turn
			t.Error(err)
		}
		close(revoked)
		close(end)
		all.Wait()
		if state := c.State(); state != (State{}) {
			t.Errorf("in the end: %+v", state)
		}
	})
}

// A call that only waits leaves its place to others, once, and its outcome still counts.
func TestIdleCallsLeaveTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, woken := newCircuit(), make(chan struct{})
		var all sync.WaitGroup
		for range 3 * atOnce {
			all.Go(func() {
				err := c.Do(t.Context(), Revoke, func(ctx context.Context) error {
					Idle(ctx)
					Idle(ctx)
					<-woken
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		started := time.Now()
		if err := c.Do(t.Context(), Mint, returns(nil)); err != nil || time.Since(started) != 0 {
			t.Errorf("a mint beside idle revokes: %v after %s", err, time.Since(started))
		}
		close(woken)
		all.Wait()
		if state := c.State(); state != (State{}) {
			t.Errorf("in the end: %+v", state)
		}
	})
	Idle(t.Context()) // outside of a call
}

// Who waits does so until its own deadline, a mint for ten seconds at most.
func TestWaitingHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, end, all := busy(t, 0)
		started := time.Now()
		if err := c.Do(t.Context(), Mint, returns(nil)); !errors.Is(err, ErrBusy) || time.Since(started) != mintWait {
			t.Errorf("got %v after %s", err, time.Since(started))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Do(ctx, Mint, returns(nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's own deadline", err)
		}
		if state := c.State(); state.Waiting != 0 || state.Down {
			t.Errorf("who gave up is still there: %+v", state)
		}
		close(end)
		all.Wait()
	})
}

// Who waits for a turn when the target is given up is told at once.
func TestTheQueueIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit()
		var all sync.WaitGroup
		var refused atomic.Int32
		for range mintsAtOnce + 10 {
			all.Go(func() {
				err := c.Do(t.Context(), Mint, func(context.Context) error { time.Sleep(mintWait / 2); return errDead })
				if isDown(err) {
					refused.Add(1)
				}
			})
		}
		all.Wait()
		// Those whose turn came with the ends of the first four were let through.
		if got := refused.Load(); got != 10-(failures-1)-1 {
			t.Errorf("%d were refused", got)
		}
	})
}

// A turn that is granted in the moment that its caller gives up is passed on.
func TestATurnIsNotLost(t *testing.T) {
	for range 200 {
		c := newCircuit()
		var all sync.WaitGroup
		for range 3 * atOnce {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
				defer cancel()
				_ = c.Do(ctx, Revoke, func(context.Context) error { time.Sleep(150 * time.Microsecond); return errWanted })
			})
		}
		all.Wait()
		if state := c.State(); state.Mints != 0 || state.Revokes != 0 || state.Waiting != 0 {
			t.Fatalf("in the end: %+v", state)
		}
	}
}
