package lifecycle

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// What a role that is being written needs stays, even if it was being removed when the
// write began and had to be installed again.
func TestWhatIsReservedWhileItIsRemovedStays(t *testing.T) {
	w := newWorld(t)
	w.Start(w.storage, func() (bool, error) { return true, nil })
	if err := w.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	fake := &providertest.FakeInstaller{}
	order := w.order(time.Hour)
	order.Provider = fake
	policy, _, err := order.Compile(w.clock)
	if err != nil {
		t.Fatal(err)
	}
	release, err := w.Install(t.Context(), w.storage, order, policy)
	if err != nil {
		t.Fatal(err)
	}
	release() // and its role is deleted again
	idle := w.Idle()
	if len(idle) != 1 {
		t.Fatalf("%d are idle", len(idle))
	}
	byNone := func() (bool, error) { return false, nil }
	removing, hold := make(chan struct{}), make(chan struct{})
	fake.OnUninstall = func() error { close(removing); <-hold; return nil }
	removed := make(chan error, 1)
	go func() { removed <- w.Uninstall(t.Context(), w.storage, fake, idle[0], byNone) }()
	<-removing
	written := make(chan func(), 1)
	go func() {
		release, err := w.Install(t.Context(), w.storage, order, policy)
		if err != nil {
			t.Error(err)
		}
		written <- release
	}()
	for !w.installed.isReserved(idle[0].Key) {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	release = <-written
	fake.OnUninstall = nil
	if err := w.Uninstall(t.Context(), w.storage, fake, idle[0], byNone); !errors.Is(err, ErrNeeded) || len(fake.Installed()) != 1 {
		t.Errorf("%v, and installed are %v", err, fake.Installed())
	}
	release()
	if err := w.Uninstall(t.Context(), w.storage, fake, idle[0], byNone); err != nil || len(fake.Installed()) != 0 {
		t.Errorf("%v, and installed are %v", err, fake.Installed())
	}
}

// A record of an installation that can't be read keeps the ledger from nothing.
func TestADamagedInstallationStopsNothing(t *testing.T) {
	w := newWorld(t)
	if err := w.storage.Put(t.Context(), &logical.StorageEntry{Key: "i/torn", Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	w.Start(w.storage, func() (bool, error) { return true, nil })
	if err := w.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.installed.loaded {
		t.Error("what is installed is not known")
	}
}
