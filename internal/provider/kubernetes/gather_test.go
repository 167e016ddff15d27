package kubernetes

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// However many ask, few questions are asked, and no answer is older than who gets it.
func TestGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var questions gathered[time.Time]
		var asked atomic.Int32
		ask := func(context.Context) (time.Time, error) {
			asked.Add(1)
			now := time.Now()
			time.Sleep(10 * time.Millisecond)
			return now, nil
		}
		const callers = 100
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				came := time.Now()
				if answer, err := questions.ask(t.Context(), time.Second, ask); err != nil || answer.Before(came) {
					t.Errorf("who came at %s has an answer of %s: %v", came, answer, err)
				}
			})
		}
		all.Wait()
		if n := asked.Load(); n > 12 {
			t.Errorf("%d questions for %d callers in 110 ms of 10 ms each", n, callers)
		}
	})
}

// Who gives up takes the answer from nobody, and a question that hangs ends.
func TestGatheredGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var questions gathered[int]
		slow := func(context.Context) (int, error) { time.Sleep(10 * time.Millisecond); return 7, nil }
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := questions.ask(ctx, time.Second, slow); !errors.Is(err, context.Canceled) {
				t.Errorf("who gives up gets %v", err)
			}
		})
		all.Go(func() {
			if answer, err := questions.ask(t.Context(), time.Second, slow); answer != 7 || err != nil {
				t.Errorf("who waits gets %d, %v", answer, err)
			}
		})
		time.Sleep(time.Millisecond)
		cancel()
		all.Wait()
		_, err := questions.ask(t.Context(), time.Second, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a question that hangs: %v", err)
		}
	})
}
