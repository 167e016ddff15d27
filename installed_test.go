package precision

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

func newInstallingEngine(t *testing.T) (*engine, *providertest.FakeInstaller) {
	fake := &providertest.FakeInstaller{Learnt: provider.Findings{Facts: provider.Facts{"fact": "seen: "}, Warnings: []string{"something is odd"}}}
	e := newEngineOn(t, &fake.Fake, fake.Type())
	e.initialize()
	return e, fake
}

func (e *engine) installedAre(fake *providertest.FakeInstaller, want ...string) {
	e.t.Helper()
	got := slices.Sorted(maps.Keys(fake.Installed()))
	if !slices.Equal(got, want) {
		e.t.Errorf("installed are %q, want %q", got, want)
	}
	written, _, err := ledger.Installations(e.t.Context(), e.storage)
	if err != nil {
		e.t.Fatal(err)
	}
	if len(written) != len(want) {
		e.t.Errorf("%d installations are written down, want %d", len(written), len(want))
	}
}

// sweepUntil sweeps until what is installed is as it should be.
func (e *engine) sweepUntil(fake *providertest.FakeInstaller, want int) {
	e.t.Helper()
	for range 200 {
		if len(fake.Installed()) == want {
			return
		}
		e.sweeper.Run(e.storage)
		time.Sleep(10 * time.Millisecond)
	}
	e.t.Fatalf("installed are %v, want %d", fake.Installed(), want)
}

// What a role needs at its target comes with it, once, and goes with the last role
// and the last grant that need it.
func TestWhatRolesNeedIsInstalledAndRemoved(t *testing.T) {
	e, fake := newInstallingEngine(t)
	e.installedAre(fake, "seen: reset on one")
	e.do(logical.CreateOperation, "roles/same", map[string]any{"target": "db", "action": "reset", "resource": "one"})
	e.installedAre(fake, "seen: reset on one")
	first, second := e.do(logical.ReadOperation, "creds/reset/T-1", nil), e.do(logical.ReadOperation, "creds/same/T-1", nil)
	e.do(logical.DeleteOperation, "roles/reset", nil)
	e.sweeper.Run(e.storage)
	e.do(logical.DeleteOperation, "roles/same", nil)
	for _, minted := range []*logical.Response{first, second} {
		e.sweeper.Run(e.storage)
		e.installedAre(fake, "seen: reset on one")
		if err := e.revokeLease(minted.Secret); err != nil {
			t.Fatal(err)
		}
	}
	e.sweepUntil(fake, 0)
	e.do(logical.DeleteOperation, "config/db", nil)
	e.installedAre(fake)
}

// A role that is changed leaves nothing behind of what it was.
func TestAChangedRoleLeavesNothing(t *testing.T) {
	e, fake := newInstallingEngine(t)
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"resource": "two"})
	e.sweepUntil(fake, 1)
	e.installedAre(fake, "seen: reset on two")
}

// What depends on who reads a credential is installed by the first who does.
func TestWhatParametersNeedIsInstalledByAMint(t *testing.T) {
	e, fake := newInstallingEngine(t)
	e.do(logical.CreateOperation, "roles/any", map[string]any{
		"target": "db", "action": "reset", "resource": "x/{{name}}", "parameters": map[string]any{"name": "[a-z]+"},
	})
	e.installedAre(fake, "seen: reset on one")
	var minted []*logical.Response
	for range 3 {
		minted = append(minted, e.do(logical.ReadOperation, "creds/any/T-1", map[string]any{"name": "a"}))
	}
	e.installedAre(fake, "seen: reset on one", "seen: reset on x/a")
	if times := fake.Installed()["seen: reset on x/a"]; times != 1 {
		t.Errorf("three mints installed %d times, want once", times)
	}
	for _, one := range minted {
		if err := e.revokeLease(one.Secret); err != nil {
			t.Fatal(err)
		}
	}
	e.sweepUntil(fake, 1)
	e.installedAre(fake, "seen: reset on one")
}

// Who removes what a role needs behind the engine's back stops no mint.
func TestWhatWasLostIsInstalledAgain(t *testing.T) {
	e, fake := newInstallingEngine(t)
	fake.Lose()
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.installedAre(fake, "seen: reset on one")
}

// What was made is not looked at again by a mint, after a restart either.
func TestAMintDoesNotInstallWhatWasMade(t *testing.T) {
	e, fake := newInstallingEngine(t)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.backend = e.open(e.System())
	e.initialize()
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	if times := fake.Installed()["seen: reset on one"]; times != 1 {
		t.Errorf("it was installed %d times, want once", times)
	}
}

// A failure is written down before it can leave something, and swept.
func TestAnInstallationThatFailsLeavesNothing(t *testing.T) {
	e, fake := newInstallingEngine(t)
	fake.OnInstall = func() error { return errors.New("the target broke") }
	if _, err := e.try(logical.CreateOperation, "roles/other", map[string]any{"target": "db", "action": "reset", "resource": "other"}); err == nil || !strings.Contains(err.Error(), "the target broke") {
		t.Errorf("a role whose installation failed was written: %v", err)
	}
	if got := e.do(logical.ReadOperation, "roles/other", nil); got != nil {
		t.Errorf("the role is there: %v", got)
	}
	if written, _, _ := ledger.Installations(t.Context(), e.storage); len(written) != 2 {
		t.Errorf("%d installations are written down, want 2", len(written))
	}
	fake.OnInstall = nil
	for range 200 {
		if written, _, _ := ledger.Installations(t.Context(), e.storage); len(written) == 1 {
			return
		}
		e.sweeper.Run(e.storage)
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the installation that failed is still written down")
}

// A target that doesn't give up what is on it is only deleted by force, which says
// what is left.
func TestATargetWithInstallationsStays(t *testing.T) {
	e, fake := newInstallingEngine(t)
	fake.OnUninstall = func() error { return errors.New("the target broke") } // before a sweep can ask for it
	e.do(logical.DeleteOperation, "roles/reset", nil)
	e.sweepUntil(fake, 1)
	if response, err := e.try(logical.DeleteOperation, "config/db", nil); err == nil && !response.IsError() {
		t.Error("a target was deleted that something is left on")
	}
	response := e.do(logical.DeleteOperation, "config/db", map[string]any{"force": true})
	if response == nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "reset on one") {
		t.Errorf("force does not say what is left: %v", response)
	}
	if written, _, _ := ledger.Installations(t.Context(), e.storage); len(written) != 0 {
		t.Errorf("%d installations are written down, want none", len(written))
	}
}

// Mints and removals side by side: none finds its ground gone.
func TestMintsAndRemovalsSideBySide(t *testing.T) {
	e, fake := newInstallingEngine(t)
	e.do(logical.CreateOperation, "roles/any", map[string]any{
		"target": "db", "action": "reset", "resource": "x/{{name}}", "parameters": map[string]any{"name": "[a-z]+"},
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 40 {
				minted, err := e.try(logical.ReadOperation, "creds/any/T-1", map[string]any{"name": "a"})
				if err != nil || minted.IsError() {
					t.Errorf("a mint failed: %v %v", minted, err)
					return
				}
				if err := e.revokeLease(minted.Secret); err != nil {
					t.Error(err)
				}
				e.sweeper.Run(e.storage)
			}
		})
	}
	all.Wait()
	e.sweepUntil(fake, 1)
}

// What was installed before a restart is known after it.
func TestInstallationsOutliveARestart(t *testing.T) {
	e, fake := newInstallingEngine(t)
	e.backend = e.open(e.System())
	e.do(logical.DeleteOperation, "roles/reset", nil)
	e.initialize()
	e.sweepUntil(fake, 0)
	e.installedAre(fake)
}
