package providertest

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

func (s suite) planned(t *testing.T, installer provider.Installer) provider.Handle {
	t.Helper()
	soon, later := s.compile(t, time.Now().Add(time.Minute)), s.compile(t, time.Now().Add(time.Hour))
	handle := installer.Plan(soon, testMount, testLedger)
	if len(handle) == 0 {
		t.Fatal("the installation has no name")
	}
	if other := installer.Plan(later, testMount, testLedger); !maps.Equal(handle, other) {
		t.Errorf("policies that differ in their end only don't share an installation: %v and %v", handle, other)
	}
	for _, other := range []provider.Handle{installer.Plan(soon, "99999999-2222-3333-4444-555555555555", testLedger), installer.Plan(soon, testMount, "zyxwvutsrqponmlkjihgfedc")} {
		if maps.Equal(handle, other) {
			t.Errorf("mounts or ledgers share an installation: %v", handle)
		}
	}
	return handle
}

func (s suite) install(t *testing.T, installer provider.Installer) {
	t.Helper()
	if err := installer.Install(t.Context(), s.planned(t, installer), s.compile(t, time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
}

func (s suite) uninstall(t *testing.T, installer provider.Installer) {
	t.Helper()
	handle := s.planned(t, installer)
	if err := installer.Uninstall(t.Context(), handle); err != nil {
		t.Errorf("uninstalling: %v", err)
	}
	s.notInstalled(t, handle)
}

func (s suite) notInstalled(t *testing.T, handle provider.Handle) {
	t.Helper()
	left, err := s.Installed(t.Context(), handle)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left at the target: %v", left)
	}
}

// installs installs twice and removes twice; in between, and after, it mints.
func (s suite) installs(t *testing.T, installer provider.Installer) {
	s.install(t, installer)
	s.install(t, installer)
	if there, err := s.Installed(t.Context(), s.planned(t, installer)); err != nil || len(there) == 0 {
		t.Errorf("nothing is at the target that was installed: %v %v", there, err)
	}
	_, minted := s.mint(t, time.Hour)
	s.works(t, minted.Fields)
	s.revoke(t, minted.Handle)
	s.uninstall(t, installer)
	s.uninstall(t, installer)
	if err := installer.Uninstall(t.Context(), provider.Handle{}); err == nil {
		t.Error("a handle that names nothing was uninstalled")
	}
	gone := s.prepare(t, time.Hour)
	_, err := s.Provider.Mint(t.Context(), gone.handle, gone.policy, gone.expiresAt)
	if !errors.Is(err, provider.ErrNotInstalled) || !errors.As(err, new(*provider.NotMade)) {
		t.Errorf("a mint without its installation says %v", err)
	}
	s.nothingLeft(t, gone.id)
}

// installFails loses an installation's calls, and then its removal's, from each one
// on in turn; what was left is met by the next.
func (s suite) installFails(t *testing.T, installer provider.Installer, executed bool) {
	handle := s.planned(t, installer)
	attempt := func(work func() error) {
		for call := 0; ; call++ {
			s.Faults.LoseFrom(call, executed)
			err := work()
			made := s.Faults.Heal()
			if err == nil && made > call {
				t.Fatalf("call %d was lost, and all is said to be well", call)
			}
			if err == nil {
				return
			}
		}
	}
	for range 2 {
		attempt(func() error {
			return installer.Install(t.Context(), handle, s.compile(t, time.Now().Add(time.Hour)))
		})
		_, minted := s.mint(t, time.Hour)
		s.works(t, minted.Fields)
		s.revoke(t, minted.Handle)
		attempt(func() error { return installer.Uninstall(t.Context(), handle) })
		s.notInstalled(t, handle)
	}
}
