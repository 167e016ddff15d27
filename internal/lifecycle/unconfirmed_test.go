package lifecycle

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// A target that can't confirm that a credential is dead fails the revoke until the
// credential expires. The grant is then closed, and is never shown as revoked.
func TestUnconfirmedRevokeIsNeverCalledRevoked(t *testing.T) {
	w := newWorld(t)
	issued := w.issue(time.Hour)
	w.target.OnRevoke = func() error { return &provider.Unconfirmed{Reason: "the right is missing"} }
	var unconfirmed *provider.Unconfirmed
	if err := w.end(issued); !errors.As(err, &unconfirmed) {
		t.Fatalf("got %v, want an *Unconfirmed", err)
	}
	grant, err := ledger.Get(t.Context(), w.storage, issued.Grant.ID)
	if err != nil || grant.State != ledger.Ending || grant.Unconfirmed != "the right is missing" {
		t.Fatalf("recorded %q, unconfirmed %q (%v)", grant.State, grant.Unconfirmed, err)
	}
	if known, _ := w.Index.Get(grant.ID); known.Unconfirmed != grant.Unconfirmed {
		t.Errorf("the index has %q", known.Unconfirmed)
	}
	w.clock = w.clock.Add(time.Hour + time.Second)
	if err := w.end(issued); err != nil {
		t.Fatalf("after expiry: %v", err)
	}
	grant, err = ledger.Get(t.Context(), w.storage, issued.Grant.ID)
	if err != nil || grant.State != ledger.Ended || grant.Unconfirmed == "" || grant.Status(w.clock) != ledger.Expired {
		t.Errorf("after expiry: %q, shown as %q, unconfirmed %q (%v)", grant.State, grant.Status(w.clock), grant.Unconfirmed, err)
	}
}

// What is confirmed by a later attempt is recorded as any other.
func TestUnconfirmedRevokeCanBeConfirmedLater(t *testing.T) {
	w := newWorld(t)
	issued := w.issue(time.Hour)
	w.target.OnRevoke = func() error { return &provider.Unconfirmed{Reason: "the right is missing"} }
	if err := w.end(issued); err == nil {
		t.Fatal("the revoke succeeded")
	}
	w.target.OnRevoke = nil
	if err := w.end(issued); err != nil {
		t.Fatal(err)
	}
	grant, err := ledger.Get(context.Background(), w.storage, issued.Grant.ID)
	if err != nil || grant.Unconfirmed != "" || grant.Status(w.Now()) != ledger.Revoked {
		t.Errorf("shown as %q, unconfirmed %q (%v)", grant.Status(w.Now()), grant.Unconfirmed, err)
	}
}
