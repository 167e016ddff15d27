package circuit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stingy is a target that takes so many calls a second, and throttles the rest.
type stingy struct {
	mu                sync.Mutex
	rate, tokens      float64
	last              time.Time
	served, throttled int
}

func (s *stingy) call() (throttled bool) {
	time.Sleep(5 * time.Millisecond) // the way there
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.tokens = min(s.rate, s.tokens+now.Sub(s.last).Seconds()*s.rate)
	s.last = now
	if s.tokens < 1 {
		s.throttled++
		return true
	}
	s.tokens--
	s.served++
	return false
}

// through makes a call until it is served.
func (s *stingy) through(ctx context.Context, l *Limiter) error {
	for {
		if err := l.Wait(ctx); err != nil {
			return err
		}
		throttled := s.call()
		l.Answered(throttled)
		if !throttled {
			return nil
		}
	}
}

// Where a target serves a tenth of what is asked, few calls are made in vain, and
// little of what it would serve is left unused.
func TestALimiterFindsWhatATargetTakes(t *testing.T) {
	for _, rate := range []float64{10, 30, 300} {
		synctest.Test(t, func(t *testing.T) {
			var l Limiter
			target := &stingy{rate: rate}
			const callers = 200
			calls := int(rate * 60)
			var left atomic.Int64
			left.Store(int64(calls))
			started := time.Now()
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						for errors.Is(target.through(t.Context(), &l), ErrPressed) {
						}
					}
				})
			}
			all.Wait()
			took := time.Since(started).Seconds()
			// Before the first sign, all that are waited for are made.
			if target.throttled > callers+calls/10 {
				t.Errorf("%v a second: %d of %d calls were made in vain", rate, target.throttled, calls)
			}
			if ideal := float64(calls) / rate; took > 1.4*ideal {
				t.Errorf("%v a second: it took %.0f s, where %.0f would do", rate, took, ideal)
			}
		})
	}
}

// Calls that kill go first, whoever came first.
func TestALimiterLetsTheUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		target := &stingy{rate: 10}
		var mu sync.Mutex
		var lastKill, lastTidy time.Time
		var all sync.WaitGroup
		begin := func(urgency Urgency, last *time.Time) {
			all.Go(func() {
				if err := target.through(WithUrgency(t.Context(), urgency), &l); err != nil {
					t.Errorf("urgency %d: %v", urgency, err)
				}
				mu.Lock()
				defer mu.Unlock()
				*last = time.Now()
			})
		}
		started := time.Now()
		for range 200 {
			begin(Tidy, &lastTidy)
		}
		time.Sleep(time.Second)
		for range 200 {
			begin(Kill, &lastKill)
		}
		all.Wait()
		if kills, whole := lastKill.Sub(started), lastTidy.Sub(started); kills > whole*7/10 {
			t.Errorf("the last kill came after %s of %s", kills, whole)
		}
	})
}

// Nothing waits where nothing was throttled, nor long after.
func TestALimiterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		for range 1000 {
			if err := l.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if l.Pressed() {
			t.Error("it is pressed without a sign")
		}
		l.Answered(true)
		if !l.Pressed() {
			t.Error("it is not pressed after a sign")
		}
		time.Sleep(calm + time.Second)
		started := time.Now()
		for range 1000 {
			if err := l.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(started); took > 0 || l.Pressed() {
			t.Errorf("it still limits: %s", took)
		}
	})
}

// Who waits for a credential is told soon; who gives up is not waited for.
func TestWhoDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		l.Answered(true)
		for range 500 {
			go func() { _ = l.Wait(t.Context()) }()
		}
		synctest.Wait()
		if err := l.Wait(WithUrgency(t.Context(), Make)); !errors.Is(err, ErrPressed) {
			t.Errorf("a mint waits: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one who gave up got %v", err)
		}
	})
}

// One sign that a target is asked too much, in a quiet time, says little of what it
// takes: who comes for a new credential then is served, if not at once.
func TestALimiterServesMintsUnderLightThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		target := &stingy{rate: 20}
		l.Answered(true)
		var all sync.WaitGroup
		for range 15 {
			all.Go(func() {
				for range 3 { // the calls of a mint
					if err := target.through(WithUrgency(t.Context(), Make), &l); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	})
}

// While others are killed, who comes for a new credential hears soon that it takes long.
func TestALimiterTellsMintsWhereKillsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		target := &stingy{rate: 5}
		l.Answered(true)
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				if err := target.through(WithUrgency(t.Context(), Kill), &l); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		started := time.Now()
		err := target.through(WithUrgency(t.Context(), Make), &l)
		if took := time.Since(started); !errors.Is(err, ErrPressed) || took > 3*time.Second {
			t.Errorf("%v after %s", err, took)
		}
		all.Wait()
	})
}
