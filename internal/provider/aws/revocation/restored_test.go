package revocation

import (
	"testing"
	"testing/synctest"
	"time"
)

// snapshot is what a ledger and its storage know at one moment.
type snapshot struct {
	ledger map[Code]record
	kept   Record
}

func (w *world) snapshot() snapshot {
	taken := snapshot{ledger: map[Code]record{}, kept: w.kept}
	for code, one := range w.ledger {
		taken.ledger[code] = *one
	}
	return taken
}

// restore starts the engine again on a ledger from before.
func (w *world) restore(taken snapshot) {
	w.stop()
	synctest.Wait()
	w.ledger, w.kept = map[Code]*record{}, taken.kept
	for code, one := range taken.ledger {
		w.ledger[code] = &record{expiresAt: one.expiresAt, ending: one.ending, dead: one.dead}
	}
	w.boot()
}

// A snapshot from before revocations is restored: nothing that was revoked works again before it can't any more, what
// the ledger calls live and is denied counts as revoked, and that the storage is older is told once.
func TestARestoredLedgerRevivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 60)
		before, spared := w.draw("upload", "T-1", 2*time.Hour), w.draw("upload", "T-1", 2*time.Hour)
		old := w.draw("download", "T-2", time.Hour)
		w.mustEnd(old)
		taken := w.snapshot()
		after := w.draw("upload", "T-3", 4*time.Hour) // which the snapshot does not know
		w.mustEnd(before, after)

		w.iam.written = nil // the ledger is wrong about what lives
		w.restore(taken)
		start := time.Now()
		for range 3 {
			w.check()
			for name, session := range map[string]Session{"from before": before, "minted after": after, "revoked before": old} {
				if !w.iam.inForce().covers(session.Code) {
					t.Fatalf("a revoked session works again: %s", name)
				}
			}
			w.restart()
		}
		if w.iam.inForce().covers(spared.Code) {
			t.Error("a session is denied that nobody revoked")
		}
		if one := w.ledger[before.Code]; !one.ending || w.found != 1 {
			t.Errorf("the ledger calls a denied session live; told of %d, want 1", w.found)
		}
		if len(w.older) != 1 || w.older[0].Epoch <= taken.kept.Epoch {
			t.Errorf("told of newer storage: %v, want it once", w.older)
		}
		w.accepted = true
		// A second restore makes nothing shorter.
		time.Sleep(6 * time.Hour)
		w.restore(taken)
		w.check()
		for time.Since(start) < 12*time.Hour+Grace+6*time.Hour-time.Minute {
			time.Sleep(time.Minute)
			w.check()
			if !w.iam.inForce().covers(after.Code) {
				t.Fatalf("withdrawn %s after it was first seen", time.Since(start))
			}
		}
		time.Sleep(TakeoverDelay + 2*time.Minute)
		w.check()
		if left := w.iam.policies(); left != 0 {
			t.Errorf("%d policies are left when no session can live any more", left)
		}
	})
}

// restart starts the engine again on its ledger.
func (w *world) restart() {
	w.stop()
	synctest.Wait()
	w.boot()
}

// What is first seen is remembered over restarts, though storage does not know why it is denied.
func TestWhatIsFoundIsKeptAsLongAsASessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 61)
		stranger := Prefix{testMark.text + "zzz"}
		w.iam.inline = Document([]Prefix{stranger})
		w.draw("upload", "T-1", time.Hour)
		for range 12 {
			w.check()
			if _, there := w.iam.inForce()[stranger]; !there {
				t.Fatal("a Deny under this mark was withdrawn that nothing explains")
			}
			time.Sleep(time.Hour)
			w.restart()
			w.draw("upload", "T-1", time.Hour)
		}
		time.Sleep(Grace + TakeoverDelay + time.Minute)
		w.check()
		if left := w.iam.policies(); left != 0 {
			t.Errorf("%d policies are left", left)
		}
	})
}

// An engine on a copy of the storage changes nothing while the original runs, and the original goes on as if it were
// not there.
func TestACopyChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 62)
		known, later := w.draw("upload", "T-1", time.Hour), w.draw("download", "T-2", 5*time.Hour)
		w.mustEnd(known)
		taken := w.snapshot()
		second := &world{t: t, iam: w.iam, random: newRandom(63), ledger: map[Code]*record{}, kept: taken.kept}
		for code, one := range taken.ledger {
			second.ledger[code] = &one
		}
		second.boot()
		defer func() { second.stop() }()
		original := w.iam.written
		check := func() {
			writes := w.iam.writeCount()
			w.iam.written = nil
			second.check()
			w.iam.written = original
			if w.iam.writeCount() != writes {
				t.Errorf("the copy has made the calls %v", w.iam.writes[writes:])
			}
		}
		check()
		w.mustEnd(later) // which the copy does not know
		for range 6 * 60 {
			check()
			w.check()
			time.Sleep(time.Minute)
		}
		if len(second.older) == 0 || len(w.older) != 0 {
			t.Errorf("the copy was told %d times that it is one, and the original %d times", len(second.older), len(w.older))
		}
		if left := w.iam.policies(); left != 0 {
			t.Errorf("%d policies are left", left)
		}
	})
}

// A wall clock that steps ahead withdraws nothing, whether AWS tells its time or not, and whatever has been restarted
// meanwhile if it does.
func TestAClockThatIsAheadWithdrawsNothing(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 64)
			w.iam.silent = silent
			session := w.draw("upload", "T-1", time.Hour)
			w.mustEnd(session)
			for minute := range 64 {
				w.ahead = []time.Duration{0, 2 * time.Hour, -2 * time.Hour, 10 * time.Minute}[minute%4]
				if !silent && minute%8 == 7 {
					w.restart()
				}
				w.check()
				if !w.iam.inForce().covers(session.Code) {
					t.Fatalf("withdrawn after %d minutes, with a clock that is %s ahead", minute, w.ahead)
				}
				time.Sleep(time.Minute)
			}
			w.ahead = 0
			time.Sleep(Grace + TakeoverDelay)
			w.check()
			if left := w.iam.policies(); left != 0 {
				t.Errorf("%d policies are left", left)
			}
		})
	}
}

// After a failover to a node whose clock is ahead, a revocation near the expiry denies, unless AWS's own clock says that
// it is over.
func TestARevocationNearTheExpiryOnANodeThatIsAhead(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 65)
			w.iam.silent = silent
			session := w.draw("upload", "T-1", time.Hour)
			time.Sleep(58 * time.Minute)
			w.ahead = Grace - time.Minute
			w.restart()
			w.check()
			w.mustEnd(session)
			if !w.iam.inForce().covers(session.Code) {
				t.Error("a session is called revoked, and works for two minutes more")
			}
		})
	}
}
