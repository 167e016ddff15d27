package revocation

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scenario is revokes that fill three policies and more, with expiry, a squeeze
// and a check that tidies up. Errors are the faults' and are ignored; what must
// hold is verified after each call.
func scenario(w *world) {
	sessions := map[int][]Session{}
	for i := range 1100 {
		kind := i % 11
		name, err := w.Draw(w.t.Context(), fmt.Sprint("role-", i%7), fmt.Sprint("T-", i%60), randomID(w.random), time.Now().Add(time.Duration(1+kind%2)*time.Hour))
		if err != nil {
			continue
		}
		session := Session{name.Code(), time.Now().Add(time.Duration(1+kind%2) * time.Hour)}
		w.ledger[name.Code()] = &record{expiresAt: session.ExpiresAt}
		sessions[kind] = append(sessions[kind], session)
	}
	end := func(sessions []Session) {
		_ = w.end(w.t.Context(), sessions...)
		restart(w)
	}
	check := func() {
		_ = w.Check(w.t.Context())
		restart(w)
	}
	end(sessions[0])
	end(sessions[1])
	end(sessions[2])
	end(sessions[3])
	end(sessions[4])
	check()
	w.iam.own = 9000 // others take the room
	end(sessions[5])
	check()
	time.Sleep(time.Hour + Grace)
	_ = w.Check(w.t.Context())
	end(sessions[7])
	w.iam.own = 0
	check()
	time.Sleep(time.Hour)
	check()
}

// restart starts the engine again where it has stopped. The first check then denies
// all that the ledger knows to be ending, and nothing that lives.
func restart(w *world) {
	if w.background.Err() == nil {
		return
	}
	synctest.Wait()
	w.iam.fault = nil
	w.boot()
	_ = w.Check(w.t.Context())
	complete(w)
}

func complete(w *world) {
	w.t.Helper()
	denied := w.iam.inForce()
	for code, one := range w.ledger {
		if alive := time.Now().Before(one.expiresAt); alive && denied.covers(code) != one.ending {
			w.t.Errorf("%s: denied %v, in the ledger %v", code, denied.covers(code), one.ending)
		}
	}
}

// finish is what the next minutes bring: all that was revoked is denied, nothing
// else is, and in the end nothing is left.
func finish(w *world) {
	w.iam.fault = nil
	w.check()
	complete(w)
	w.draw("role-1", "T-1", time.Minute)
	time.Sleep(2*time.Hour + Grace + TakeoverDelay)
	w.check()
	if got := w.iam.policies(); got != 0 {
		w.t.Errorf("%d policies are left", got)
	}
}

// Each call of the scenario fails once, with and without being carried out; and
// after each the engine stops and starts again.
func TestEveryCallFails(t *testing.T) {
	calls := 0
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 50)
		scenario(w)
		calls = w.iam.calls
		finish(w)
		t.Logf("%d calls: %v", calls, w.iam.writes)
		if w.collateral > 0 {
			t.Errorf("%d ended early", w.collateral)
		}
	})
	for n := 1; n <= calls; n++ {
		for _, fault := range []string{"refused", "answer lost", "crash before", "crash after"} {
			t.Run(fmt.Sprintf("call %d %s", n, fault), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 50)
					crash := strings.HasPrefix(fault, "crash")
					w.iam.fault = func(call int, _ string) (bool, error) {
						switch {
						case call == n && crash:
							w.stop()
							return fault == "crash after", errAWS
						case call == n:
							return fault == "answer lost", errAWS
						default:
							return true, nil
						}
					}
					scenario(w)
					finish(w)
				})
			})
		}
	}
}
