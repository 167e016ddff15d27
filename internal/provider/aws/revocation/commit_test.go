package revocation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSingleRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20)
		session, other := w.draw("upload", "T-1", time.Hour), w.draw("upload", "T-1", time.Hour)
		start := time.Now()
		w.mustEnd(session)
		if took := time.Since(start); took != w.iam.latency {
			t.Errorf("took %s, one call takes %s", took, w.iam.latency)
		}
		w.expectWrites(1)
		w.mustEnd(session) // again
		w.expectWrites(1)
		time.Sleep(2 * time.Second)
		w.mustEnd(other)
		w.expectWrites(2)
	})
}

func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 21)
		var sessions []Session
		for i := range 300 {
			sessions = append(sessions, w.draw("upload", fmt.Sprint("T-", i%3), time.Hour))
		}
		w.draw("upload", "T-9", time.Hour)
		w.mustEnd(sessions...)
		w.expectWrites(1)
		if denied := w.iam.inForce(); len(denied) != 3 {
			t.Errorf("three whole tasks are denied by %v", denied)
		}
	})
}

func TestManyRevokesAtOnce(t *testing.T) {
	for _, sideBySide := range []int{190, 1000} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 22)
			sessions := make(chan Session, 1000)
			for i := range cap(sessions) {
				sessions <- w.draw(fmt.Sprint("role-", i%5), fmt.Sprint("T-", i%50), time.Hour)
				w.draw(fmt.Sprint("role-", i%5), fmt.Sprint("T-", i%50), time.Hour)
			}
			close(sessions)
			w.iam.others = 4
			var callers sync.WaitGroup
			for range sideBySide {
				callers.Go(func() {
					for session := range sessions {
						if err := w.end(t.Context(), session); err != nil {
							t.Error(err)
						}
					}
				})
			}
			callers.Wait()
			commits := w.announced
			t.Logf("%d side by side: %d commits, %d writes", sideBySide, commits, w.iam.writeCount())
			if commits > 10 {
				t.Errorf("%d commits", commits)
			}
			if w.collateral > 0 {
				t.Errorf("%d ended early", w.collateral)
			}
		})
	}
}

// A whole role side by side takes at most ten writes, and is one prefix in the end.
func TestWholeRoleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 23)
		var callers sync.WaitGroup
		for i := range 1000 {
			session := w.draw("upload", fmt.Sprint("T-", i%50), time.Hour)
			callers.Go(func() {
				time.Sleep(time.Second)
				if err := w.end(t.Context(), session); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if got := w.iam.writeCount(); got > 10 {
			t.Errorf("%d writes", got)
		}
		if err := w.Check(t.Context()); err != nil { // tidies up what was written in haste
			t.Fatal(err)
		}
		if denied := w.iam.inForce(); len(denied) != 1 {
			t.Errorf("a whole role is denied by %d prefixes", len(denied))
		}
	})
}

// After the first, a commit waits for a lull, for enough callers, or a second.
func TestWaiting(t *testing.T) {
	revoke := func(w *world, after time.Duration) {
		session := w.draw("upload", "T-1", time.Hour)
		go func() {
			time.Sleep(after)
			if err := w.end(w.t.Context(), session); err != nil {
				w.t.Error(err)
			}
		}()
	}
	for name, test := range map[string]struct {
		arrivals []time.Duration
		commits  []time.Duration // their acknowledgements
	}{
		"lull":         {[]time.Duration{0, 40e6, 100e6}, []time.Duration{30e6, 205e6}},
		"after quiet":  {[]time.Duration{0, 1500e6}, []time.Duration{30e6, 1530e6}},
		"a second":     {steps(10e6, 50e6, 40), []time.Duration{40e6, 1090e6, 2065e6}},
		"enough":       {slices.Concat([]time.Duration{0}, slices.Repeat([]time.Duration{50e6}, 180)), []time.Duration{30e6, 80e6}},
		"not enough":   {slices.Concat([]time.Duration{0}, slices.Repeat([]time.Duration{50e6}, 179)), []time.Duration{30e6, 155e6}},
		"while flying": {[]time.Duration{0, 1e6, 2e6}, []time.Duration{30e6, 107e6}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 24)
				w.draw("upload", "T-1", time.Hour)
				start := time.Now()
				var commits []time.Duration
				verify := w.iam.written
				w.iam.written = func() { commits = append(commits, time.Since(start)); verify() }
				for _, at := range test.arrivals {
					revoke(w, at)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if !slices.Equal(commits, test.commits) {
					t.Errorf("commits at %v, want %v", commits, test.commits)
				}
			})
		})
	}
}

func steps(from, by time.Duration, count int) (all []time.Duration) {
	for i := range count {
		all = append(all, from+time.Duration(i)*by)
	}
	return all
}

func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 25)
		session := w.draw("upload", "T-1", time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := w.end(ctx, session); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second)
		if !w.iam.inForce().covers(session.Code) {
			t.Error("the commit did not go on")
		}
		w.mustEnd(session)
		w.expectWrites(1)
	})
}

// A session at its end needs no call: Vault revokes every lease that runs out.
func TestRevokeAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 26)
		session := w.draw("upload", "T-1", time.Hour)
		time.Sleep(time.Hour - 600*time.Millisecond)
		w.mustEnd(session)
		if now := time.Now(); now.Before(session.ExpiresAt) {
			t.Errorf("called dead %s before its end", session.ExpiresAt.Sub(now))
		}
		w.mustEnd(session)
		w.expectWrites(0)
	})
}
