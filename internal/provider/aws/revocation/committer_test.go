package revocation

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The cover shrinks as sessions expire, not before AWS's clock may have got there,
// and its policy goes with the last.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 27)
		first, second := w.draw("upload", "T-1", time.Hour), w.draw("download", "T-1", 2*time.Hour)
		w.mustEnd(first, second)
		w.check()
		w.check()
		w.expectWrites(1)
		time.Sleep(time.Hour + Grace - time.Second)
		w.check()
		w.expectWrites(1)
		time.Sleep(time.Second)
		w.check()
		w.expectWrites(2)
		if denied := w.iam.inForce(); denied.covers(first.Code) || !denied.covers(second.Code) {
			t.Errorf("in force: %v", denied)
		}
		time.Sleep(time.Hour)
		w.check()
		if got := w.iam.policies(); got != 0 {
			t.Errorf("%d policies where nothing is revoked", got)
		}
		time.Sleep(Quarantine + time.Minute)
		calls := w.iam.calls
		w.check()
		if w.iam.calls != calls {
			t.Error("an empty cover is still read")
		}
	})
}

// What others have done to the policies is put right within a check.
func TestCheckPutsRight(t *testing.T) {
	for name, spoil := range map[string]func(*fakeIAM){
		"deleted":  func(f *fakeIAM) { f.inline = "" },
		"emptied":  func(f *fakeIAM) { f.inline = `{"Version":"2012-10-17","Statement":[]}` },
		"narrowed": func(f *fakeIAM) { f.inline = Document([]Prefix{{"aaaaaaaaa"}}) },
		"allows":   func(f *fakeIAM) { f.inline = strings.Replace(f.inline, "Deny", "Allow", 1) },
		"added":    func(f *fakeIAM) { f.managed = map[int]Managed{3: {Document([]Prefix{{"aaaaaaaaa"}}), true}} },
		"leftover": func(f *fakeIAM) { f.managed = map[int]Managed{3: {Document([]Prefix{{"aaaaaaaaa"}}), false}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 28)
				sessions := []Session{w.draw("upload", "T-1", time.Hour), w.draw("upload", "T-1", time.Hour)}
				w.draw("upload", "T-1", time.Hour)
				w.mustEnd(sessions...)
				before := w.iam.inForce()
				w.iam.written = nil
				spoil(w.iam)
				w.check()
				if !maps.Equal(w.iam.inForce(), before) || len(w.iam.managed) > 0 {
					t.Errorf("there is %s, %v", w.iam.inline, w.iam.managed)
				}
			})
		})
	}
}

// The write of an engine that was deposed is found even where nothing is revoked
// any more, and names below it are not drawn.
func TestLateWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 29)
		session := w.draw("upload", "T-1", time.Minute)
		w.mustEnd(session)
		late := w.iam.inline
		time.Sleep(time.Minute + Grace)
		w.check()
		time.Sleep(10 * time.Minute)
		w.iam.inline = late
		w.check()
		if w.iam.inline != "" {
			t.Errorf("there is %s", w.iam.inline)
		}
		time.Sleep(Quarantine - time.Minute)
		if again := w.draw("upload", "T-1", time.Hour); strings.HasPrefix(again.Code.text, session.Code.text[:shortest]) {
			t.Errorf("drew %s below what was withdrawn a moment ago", again.Code)
		}
		time.Sleep(2 * time.Minute)
		w.check()
		if again := w.draw("upload", "T-1", time.Hour); !strings.HasPrefix(again.Code.text, session.Code.text[:taskEnd]) {
			t.Errorf("drew %s, although nothing is denied any more", again.Code)
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 30)
		failed := w.draw("upload", "T-1", time.Hour)
		session := w.draw("upload", "T-1", time.Hour)
		w.Forget(failed.Code)
		delete(w.ledger, failed.Code)
		w.mustEnd(session)
		for prefix := range w.iam.inForce() {
			if len(prefix.text) != shortest {
				t.Errorf("%s spares a session that was never minted", prefix)
			}
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 31)
		stranger := Session{Code: Code{NewMark("x", "y").text + strings.Repeat("a", codeLength-markChars)}}
		if err := w.Revoke(t.Context(), stranger); err == nil {
			t.Error("a session of another mount is revoked")
		}
		if err := w.Revoke(t.Context(), Session{}); err == nil {
			t.Error("a session without a code is revoked")
		}
		other := New(t.Context(), Config{Mark: testMark, Policies: w.iam, Now: time.Now})
		if err := other.Restore(nil, []Session{stranger}); err == nil {
			t.Error("a session of another mount is restored")
		}
		id, expiresAt := randomID(w.random), time.Now().Add(time.Hour)
		if _, err := w.Draw(t.Context(), "upload", "T-1", id, expiresAt); err != nil {
			t.Error(err)
		}
		for _, random := range []string{id, id[1:], strings.ToUpper(id), ""} {
			if name, err := w.Draw(t.Context(), "upload", "T-1", random, expiresAt); err == nil {
				t.Errorf("drew %s from %q", name, random)
			}
		}
	})
}
