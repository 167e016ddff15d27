package lifecycle

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// renewable issues a grant that may live for an hour in all.
func (w *world) renewable(ttl time.Duration) (Issued, RenewOrder) {
	w.t.Helper()
	order := w.order(ttl)
	order.Longest = time.Hour
	issued, err := w.Issue(w.t.Context(), w.storage, order)
	if err != nil {
		w.t.Fatal(err)
	}
	return issued, RenewOrder{Order: order, ID: issued.Grant.ID, Handle: issued.Credential.Handle, Minted: issued.Minted()}
}

func (w *world) renew(order RenewOrder) error {
	_, err := w.Renew(w.t.Context(), w.storage, order)
	return err
}

// ends demands that the credential ends when all say that it does.
func (w *world) ends(want time.Time) {
	w.t.Helper()
	stored := w.only()
	known, _ := w.Index.Get(stored.ID)
	if at := w.target.End(stored.ID); !at.Equal(want) || !stored.ExpiresAt.Equal(want) || !known.ExpiresAt.Equal(want) {
		w.t.Errorf("ends at %s at the target, at %s in the ledger and at %s in its index, want %s", at, stored.ExpiresAt, known.ExpiresAt, want)
	}
}

func (w *world) refused(err error, says string) {
	w.t.Helper()
	var mendable *invalid.Error
	if !errors.As(err, &mendable) || !strings.Contains(err.Error(), says) {
		w.t.Errorf("got %v, want a refusal that says %q", err, says)
	}
}

func TestRenew(t *testing.T) {
	w := newWorld(t)
	issued, order := w.renewable(10 * time.Minute)
	began := issued.Grant.IssuedAt
	w.ends(issued.Grant.ExpiresAt)

	w.clock = began.Add(5 * time.Minute)
	if err := w.renew(order); err != nil {
		t.Fatal(err)
	}
	w.ends(time.Date(2026, 3, 29, 2, 15, 0, 0, time.UTC))

	order.TTL = time.Minute // less than there is
	if err := w.renew(order); err != nil {
		t.Fatal(err)
	}
	w.ends(time.Date(2026, 3, 29, 2, 15, 0, 0, time.UTC))

	order.TTL = 2 * time.Hour // more than there can be
	if err := w.renew(order); err != nil {
		t.Fatal(err)
	}
	last := began.Add(time.Hour).Truncate(time.Second)
	w.ends(last)
	if latest, err := ledger.LatestEnd(order.ID); err != nil || !last.Before(latest) {
		t.Errorf("the ledger looks for the grant until %s, %v", latest, err)
	}

	order.Longest = 24 * time.Hour // the role has become more generous: the ledger's promise stays
	if err := w.renew(order); err != nil {
		t.Fatal(err)
	}
	if latest, _ := ledger.LatestEnd(order.ID); !w.only().ExpiresAt.Before(latest) {
		t.Errorf("the grant ends at %s, and the ledger looks for it until %s", w.only().ExpiresAt, latest)
	}
	w.restart()
	if err := w.end(issued); err != nil {
		t.Fatal(err)
	}
	w.expect(0, ledger.Ended, ledger.LeaseRevoked)
}

// A role that would not grant the same to the letter renews nothing.
func TestRenewOfAChangedGrant(t *testing.T) {
	for says, change := range map[string]func(*RenewOrder){
		"would grant something else": func(order *RenewOrder) {
			order.Scope, _ = scope.New("s3:PutObject", "arn:aws:s3:::releases/other/*")
		},
		"another kind of credential": func(order *RenewOrder) { order.Handle = map[string]string{"fake_grant": "other"} },
		"names another target":       func(order *RenewOrder) { order.Target = "other" },
		"is another system":          func(order *RenewOrder) { order.System = "other" },
		"does not know its grant":    func(order *RenewOrder) { order.ID = ledger.NewID(time.Now()) },
		"can't move":                 func(order *RenewOrder) { order.Provider = struct{ provider.Provider }{order.Provider} },
	} {
		w := newWorld(t)
		issued, order := w.renewable(10 * time.Minute)
		w.clock = w.clock.Add(time.Minute)
		change(&order)
		w.refused(w.renew(order), says)
		w.ends(issued.Grant.ExpiresAt)
	}
}

func TestRenewOfWhatHasEnded(t *testing.T) {
	w := newWorld(t)
	issued, order := w.renewable(10 * time.Minute)
	w.clock = issued.Grant.ExpiresAt
	w.refused(w.renew(order), "its grant is expired")
	if err := w.end(issued); err != nil {
		t.Fatal(err)
	}
	w.refused(w.renew(order), "its grant is expired")
	w.expect(0, ledger.Ended, ledger.LeaseExpired)

	w = newWorld(t)
	issued, order = w.renewable(10 * time.Minute)
	w.target.OnRevoke = func() error { return errors.New("the target broke") }
	if err := w.end(issued); err == nil {
		t.Fatal("the revoke succeeded")
	}
	w.refused(w.renew(order), "its grant is ending")
}

// Wherever a renewal breaks off, the credential lives no longer than the ledger
// says, and the next renewal puts it right.
func TestRenewFails(t *testing.T) {
	w := newWorld(t)
	issued, order := w.renewable(10 * time.Minute)
	w.clock = w.clock.Add(time.Minute)
	broken := errors.New("the target broke")
	w.target.OnRenew = func() error { return broken }
	if err := w.renew(order); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if at := w.target.End(order.ID); !at.Equal(issued.Grant.ExpiresAt) || !w.only().ExpiresAt.After(at) {
		t.Errorf("ends at %s at the target and at %s in the ledger", at, w.only().ExpiresAt)
	}
	w.target.OnRenew = nil
	if err := w.renew(order); err != nil {
		t.Fatal(err)
	}
	w.ends(issued.Grant.ExpiresAt.Add(time.Minute))

	w.clock = w.clock.Add(time.Minute)
	w.storage.FailPut(true)
	if err := w.renew(order); err == nil {
		t.Error("a renewal succeeded that could not be written down")
	}
	w.storage.FailPut(false)
	w.ends(issued.Grant.ExpiresAt.Add(time.Minute))
}

// An end that comes while a renewal is under way waits for it and then ends.
func TestRenewAndEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		issued, order := w.renewable(10 * time.Minute)
		w.clock = w.clock.Add(time.Minute)
		on := make(chan struct{})
		w.target.OnRenew = func() error { <-on; return nil }
		go func() {
			if err := w.renew(order); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait() // the renewal is at the target
		ended := false
		go func() {
			if err := w.end(issued); err != nil {
				t.Error(err)
			}
			ended = true
		}()
		synctest.Wait() // the end has come
		if ended || w.target.Live() != 1 {
			t.Error("an end did not wait for the renewal that is under way")
		}
		close(on)
		synctest.Wait()
		if !ended {
			t.Error("the end still waits")
		}
		w.expect(0, ledger.Ended, ledger.LeaseRevoked)
		w.refused(w.renew(order), "its grant is revoked")
	})
}
