package precision

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// placed is a fake target that says which system it is.
type placed struct {
	*providertest.FakeInstaller
	where string
}

func (p placed) Identity() string { return p.where }

func newPlacedEngine(t *testing.T) (*engine, *providertest.FakeInstaller) {
	fake := &providertest.FakeInstaller{}
	kind := fake.Type()
	kind.Config["where"] = &framework.FieldSchema{Type: framework.TypeString, Description: "Which system it is.", DisplayAttrs: &framework.DisplayAttributes{Name: "Where"}}
	kind.Open = func(settings provider.Settings, _ provider.Facts) (provider.Provider, error) {
		return placed{fake, settings.Text("where")}, nil
	}
	e := newEngineOn(t, &fake.Fake, kind)
	e.initialize()
	return e, fake
}

// A target is only pointed to another system under live grants by force, which
// closes them as lost and says what is left for a person.
func TestATargetThatMoves(t *testing.T) {
	e, fake := newPlacedEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	elsewhere := map[string]any{"type": "fake", "where": "elsewhere"}
	response, err := e.try(logical.UpdateOperation, "config/db", elsewhere)
	if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "live grants on it: 1") {
		t.Fatalf("the target was moved: %v %v", response, err)
	}
	elsewhere["force"] = true
	warnings := strings.Join(e.do(logical.UpdateOperation, "config/db", elsewhere).Warnings, "\n")
	id := minted.Data["grant_id"].(string)
	for _, part := range []string{"grant " + id + " is lost", "reset on one"} {
		if !strings.Contains(warnings, part) {
			t.Errorf("the answer does not say %q: %s", part, warnings)
		}
	}
	if state := e.grantState(minted); state != ledger.Lost {
		t.Errorf("the grant is %s, want lost", state)
	}
	// Its lease lapses later, and must not stay for ever.
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Errorf("the lease of a lost grant can't be revoked: %v", err)
	}
	if fake.End(id).IsZero() {
		t.Error("the lost grant was ended on the new system")
	}
	e.do(logical.ReadOperation, "creds/reset/T-2", nil) // where it is now
	if got := e.do(logical.ReadOperation, "grants", map[string]any{"state": "lost"}).Data["grants"].([]map[string]any); len(got) != 1 {
		t.Errorf("%d grants are listed as lost, want 1", len(got))
	}
}

// Without live grants a target moves as it likes.
func TestATargetWithoutGrantsMoves(t *testing.T) {
	e, _ := newPlacedEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
	e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake", "where": "elsewhere"})
	e.do(logical.ReadOperation, "creds/reset/T-2", nil)
	if state := e.grantState(minted); state != ledger.Revoked {
		t.Errorf("a grant of before is %s, want revoked", state)
	}
}

// A target that is pointed back is the one again that a lost grant lives on: its lease
// ends it.
func TestATargetThatMovesBack(t *testing.T) {
	e, fake := newPlacedEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	id := minted.Data["grant_id"].(string)
	e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake", "where": "elsewhere", "force": true})
	e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake"})
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
	if !fake.End(id).IsZero() || e.grantState(minted) != ledger.Revoked {
		t.Errorf("the lease is revoked, and the credential lives until %s; the ledger says %s", fake.End(id), e.grantState(minted))
	}
}

// While the grants of a target that has moved are closed, which waits for those that
// are being ended on a system that hangs, mints go on.
func TestMintsGoOnWhileATargetMoves(t *testing.T) {
	e, fake := newPlacedEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	ending, hold := make(chan struct{}), make(chan struct{})
	fake.OnRevoke = func() error { close(ending); <-hold; return nil }
	revoked, moved := make(chan error, 1), make(chan error, 1)
	go func() { revoked <- e.revokeLease(minted.Secret) }()
	<-ending
	go func() {
		_, err := e.try(logical.UpdateOperation, "config/db", map[string]any{"type": "fake", "where": "elsewhere", "force": true})
		moved <- err
	}()
	for e.do(logical.ReadOperation, "config/db", nil).Data["where"] != "elsewhere" {
		runtime.Gosched()
	}
	e.do(logical.ReadOperation, "creds/reset/T-2", nil)
	select {
	case err := <-moved:
		t.Errorf("the target was moved before the end of its grant was known: %v", err)
	default:
	}
	close(hold)
	if err := errors.Join(<-revoked, <-moved); err != nil {
		t.Error(err)
	}
	if state := e.grantState(minted); state != ledger.Revoked {
		t.Errorf("the grant that was ended is %s", state)
	}
}
