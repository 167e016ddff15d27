package revocation

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Names drawn after a revoke, while it is in flight, or while it fails, are never
// denied, and a whole task, role or mount can be minted for again at once.
func TestDrawAfterRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 46)
		session := map[string][]Session{}
		mint := func() {
			for _, role := range []string{"upload", "download"} {
				for i := range 6 {
					session[role] = append(session[role], w.draw(role, fmt.Sprint("T-", i%3), time.Hour))
				}
			}
		}
		mint()
		for round := range 8 {
			w.iam.fault = nil
			if round%3 == 2 {
				w.iam.fault = func(_ int, name string) (bool, error) { return round%2 == 0, errAWS }
			}
			ended := session["upload"]
			if round%2 == 1 {
				ended = append(ended, session["download"]...)
				session["download"] = nil
			}
			session["upload"] = nil
			var caller sync.WaitGroup
			caller.Go(func() { _ = w.end(t.Context(), ended...) })
			for range 5 { // before, during and after the call
				mint()
				time.Sleep(9 * time.Millisecond)
			}
			caller.Wait()
			mint()
			w.verify()
			time.Sleep(time.Duration(round) * 5 * time.Minute)
			_ = w.Check(t.Context())
			mint()
			w.verify()
		}
	})
}

// What the engine withdrew just before it stopped, or had in flight then, is
// avoided after the restart too.
func TestDrawAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 47)
		session := w.draw("upload", "T-1", 10*time.Minute)
		w.mustEnd(session)
		time.Sleep(10*time.Minute + Grace)
		w.check()
		if w.iam.inline != "" {
			t.Fatalf("there is %s", w.iam.inline)
		}
		time.Sleep(time.Minute)
		w.boot()
		w.check()
		part := session.Code.text[:shortest]
		if again := w.draw("upload", "T-1", time.Hour); strings.HasPrefix(again.Code.text, part) {
			t.Errorf("drew %s below what was withdrawn a minute ago", again.Code)
		}
		flying := w.draw("flight", "T-1", time.Hour)
		w.iam.fault = func(int, string) (bool, error) { return false, errAWS }
		if err := w.end(t.Context(), flying); err == nil {
			t.Fatal("no fault")
		}
		w.iam.fault = nil
		w.boot()
		if again := w.draw("flight", "T-1", time.Hour); strings.HasPrefix(again.Code.text, flying.Code.text[:shortest]) {
			t.Errorf("drew %s below what may still come into force", again.Code)
		}
	})
}
