package revocation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A failed commit fails its callers and nobody else; what it held is committed
// with the next one, or by a check.
func TestFailedCommit(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		for _, call := range []string{"PutInline", "Read"} {
			t.Run(fmt.Sprintf("%s carried out %v", call, carriedOut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 40)
					first, second, third := w.draw("upload", "T-1", time.Hour), w.draw("upload", "T-1", time.Hour), w.draw("upload", "T-2", time.Hour)
					w.draw("upload", "T-1", time.Hour)
					w.mustEnd(first)
					broken := false
					w.iam.fault = func(_ int, name string) (bool, error) {
						if name == "PutInline" && call == "Read" && !broken { // so that a read is needed
							broken = true
							return false, errAWS
						}
						if name == call {
							return carriedOut, errAWS
						}
						return true, nil
					}
					if err := w.end(t.Context(), second); !errors.Is(err, errAWS) {
						t.Errorf("got %v, want %v", err, errAWS)
					}
					if err := w.end(t.Context(), third); !errors.Is(err, errAWS) {
						t.Errorf("got %v, want %v", err, errAWS)
					}
					if err := w.end(t.Context(), first); err != nil && call == "PutInline" && carriedOut {
						t.Errorf("the session that was dead before: %v", err)
					}
					w.iam.fault = nil
					w.check()
					for _, session := range []Session{second, third} {
						if !w.iam.inForce().covers(session.Code) {
							t.Errorf("%s is lost", session.Code)
						}
					}
					writes := w.iam.writeCount()
					w.mustEnd(second, third)
					w.expectWrites(writes)
				})
			})
		}
	}
}

// A revoke is answered at once only while what it wants is certainly in force.
func TestRevokeAgain(t *testing.T) {
	for _, call := range []string{"PutInline", "Announce"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 39)
			session := w.draw("upload", "T-1", time.Hour)
			w.mustEnd(session)
			w.iam.inline = ""
			w.iam.fault = func(_ int, name string) (bool, error) {
				if name == call {
					return false, errAWS
				}
				return true, nil
			}
			if call == "Announce" {
				w.refuse = errAWS
			}
			if err := w.Check(t.Context()); !errors.Is(err, errAWS) {
				t.Errorf("%s: got %v", call, err)
			}
			if err := w.Revoke(t.Context(), session); !errors.Is(err, errAWS) {
				t.Errorf("%s: got %v, although nothing is denied", call, err)
			}
			w.iam.fault, w.refuse = nil, nil
			w.mustEnd(session)
		})
	}
}

// The ledger can't be written: nothing is changed at AWS.
func TestLedgerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 41)
		session := w.draw("upload", "T-1", time.Hour)
		w.refuse = errors.New("storage is read-only")
		if err := w.end(t.Context(), session); !errors.Is(err, w.refuse) {
			t.Errorf("got %v", err)
		}
		if err := w.Check(t.Context()); !errors.Is(err, w.refuse) {
			t.Errorf("got %v", err)
		}
		w.expectWrites(0)
		w.refuse = nil
		w.check()
		w.expectWrites(1)
	})
}

// A check that can't read is an error; revocations go on with what is known.
func TestReadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 42)
		w.iam.fault = func(_ int, name string) (bool, error) { return name != "Read", errAWS }
		if _, err := w.Draw(t.Context(), "upload", "T-1", randomID(w.random), time.Now().Add(time.Hour)); !errors.Is(err, errAWS) {
			t.Errorf("a name is drawn although it is not known what is denied: %v", err)
		}
		w.iam.fault = nil
		session, second := w.draw("upload", "T-1", time.Hour), w.draw("upload", "T-2", time.Hour)
		w.iam.fault = func(_ int, name string) (bool, error) {
			if name == "Read" {
				return false, errAWS
			}
			return true, nil
		}
		w.mustEnd(session)
		var check sync.WaitGroup
		check.Go(func() {
			if err := w.Check(t.Context()); !errors.Is(err, errAWS) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		w.mustEnd(second) // in the check's commit
		check.Wait()
	})
}

func TestCallThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 43)
		session := w.draw("upload", "T-1", time.Hour)
		w.iam.latency = time.Hour
		if err := w.end(t.Context(), session); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		w.iam.latency = time.Millisecond
		w.mustEnd(session)
	})
}

func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 44)
		session := w.draw("upload", "T-1", time.Hour)
		time.AfterFunc(10*time.Millisecond, w.stop)
		if err := w.end(t.Context(), session); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := w.Check(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		w.expectWrites(0)
	})
}

// Before the ledger has been read nothing is drawn or committed.
func TestBeforeRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 45)
		live, revoked := w.draw("upload", "T-1", time.Hour), w.draw("upload", "T-1", time.Hour)
		early := New(t.Context(), w.config())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := early.Draw(ctx, "upload", "T-1", randomID(w.random), live.ExpiresAt); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		done := make(chan error)
		go func() { done <- early.Revoke(t.Context(), revoked) }()
		synctest.Wait()
		w.ledger[revoked.Code].ending = true
		if err := early.Restore([]Session{live, revoked}, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.verify()
		w.expectWrites(1)
		if err := early.Restore(nil, nil); err == nil {
			t.Error("restored twice")
		}
	})
}

// Policies so small that sessions have to be ended with others: exactly those are
// reported, and before that happens.
func TestCollateral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 48)
		w.iam.own, w.iam.others = 10240-700, 10
		var revoked []Session
		for i := range 400 {
			session := w.draw(fmt.Sprint("role-", i%10), fmt.Sprint("T-", i%40), time.Hour)
			if w.random.IntN(4) == 0 {
				revoked = append(revoked, session)
			}
		}
		w.mustEnd(revoked...)
		complete(w)
		ended := 0
		for _, one := range w.ledger {
			if one.ending {
				ended++
			}
		}
		if w.collateral == 0 || ended != len(revoked)+w.collateral {
			t.Errorf("%d ended, %d revoked, %d reported", ended, len(revoked), w.collateral)
		}
		w.check()
		w.mustEnd(w.draw("role-1", "T-1", time.Hour))
		complete(w)
		w.boot()
		w.check()
		complete(w)
	})
}

// Policies that are full altogether: what is denied stays denied, what is not is
// an error for exactly its callers, and nothing is minted that could not be ended.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 49)
		w.iam.own, w.iam.others = 10240-frameSize-3*14, 10 // three role parts
		var sessions []Session
		for i := range 6 {
			sessions = append(sessions, w.draw(fmt.Sprint("role-", i), "T-1", time.Hour))
		}
		w.mustEnd(sessions[0], sessions[1])
		dead := 0
		for _, session := range sessions[2:4] {
			if err := w.end(t.Context(), session); err == nil {
				dead++
			} else if !errors.Is(err, ErrNoRoom) {
				t.Errorf("got %v", err)
			}
		}
		if dead != 1 {
			t.Errorf("%d more are dead, want 1", dead)
		}
		if _, err := w.Draw(t.Context(), "role-9", "T-1", randomID(w.random), time.Now().Add(time.Hour)); !errors.Is(err, ErrNoRoom) {
			t.Errorf("a session is minted that could not be ended: %v", err)
		}
		if err := w.Check(t.Context()); !errors.Is(err, ErrNoRoom) {
			t.Errorf("got %v", err)
		}
		w.iam.own = 0
		w.check()
		for _, session := range sessions[:4] {
			if !w.iam.inForce().covers(session.Code) {
				t.Errorf("%s lives", session.Code)
			}
		}
		w.draw("role-9", "T-1", time.Hour)
		w.iam.own, w.iam.others = 10240, 10
		w.boot()
		if _, err := w.Draw(t.Context(), "role-9", "T-1", randomID(w.random), time.Now().Add(time.Hour)); !errors.Is(err, ErrNoRoom) {
			t.Errorf("got %v", err)
		}
	})
}
