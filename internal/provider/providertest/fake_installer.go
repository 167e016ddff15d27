package providertest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// FakeInstaller is a Fake whose credentials hang on what is installed.
type FakeInstaller struct {
	Fake
	// OnInstall is called before something is installed, and OnUninstall before it
	// is removed. Their errors are the outcome.
	OnInstall, OnUninstall func() error
	// Learnt is what Examine finds.
	Learnt provider.Findings

	held      sync.Mutex
	installed map[string]int // by name: how often
}

const fakeInstalled = "fake_installed"

// Type describes the fake to a backend, as type "fake".
func (f *FakeInstaller) Type() provider.Type {
	kind := f.Fake.Type()
	kind.Open = func(provider.Settings, provider.Facts) (provider.Provider, error) { return f, nil }
	return kind
}

// Installed counts how often each was installed that is at the target.
func (f *FakeInstaller) Installed() map[string]int {
	f.held.Lock()
	defer f.held.Unlock()
	all := map[string]int{}
	for name, times := range f.installed {
		all[name] = times
	}
	return all
}

// Lose removes what is installed, behind the engine's back.
func (f *FakeInstaller) Lose() {
	f.held.Lock()
	defer f.held.Unlock()
	clear(f.installed)
}

// Examine implements provider.Examiner.
func (f *FakeInstaller) Examine(context.Context, scope.Scope, provider.Bounds) (provider.Findings, error) {
	return f.Learnt, nil
}

// Compile implements provider.Provider. What Examine has found is part of it.
func (f *FakeInstaller) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	policy, err := f.Fake.Compile(granted, bounds)
	return provider.Policy(bounds.Facts["fact"]) + policy, err
}

// Plan implements provider.Installer.
func (f *FakeInstaller) Plan(policy provider.Policy, _, _ string) provider.Handle {
	return provider.Handle{fakeInstalled: nameIn(policy)}
}

func nameIn(policy provider.Policy) string {
	name, _, _ := strings.Cut(string(policy), " until ")
	return name
}

// Install implements provider.Installer.
func (f *FakeInstaller) Install(_ context.Context, handle provider.Handle, _ provider.Policy) error {
	if f.OnInstall != nil {
		if err := f.OnInstall(); err != nil {
			return err
		}
	}
	f.held.Lock()
	defer f.held.Unlock()
	if f.installed == nil {
		f.installed = map[string]int{}
	}
	f.installed[handle[fakeInstalled]]++
	return nil
}

// Uninstall implements provider.Installer.
func (f *FakeInstaller) Uninstall(_ context.Context, handle provider.Handle) error {
	if f.OnUninstall != nil {
		if err := f.OnUninstall(); err != nil {
			return err
		}
	}
	if handle[fakeInstalled] == "" {
		return errors.New("fake: the handle names nothing")
	}
	f.held.Lock()
	defer f.held.Unlock()
	delete(f.installed, handle[fakeInstalled])
	return nil
}

// Mint implements provider.Provider.
func (f *FakeInstaller) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	f.held.Lock()
	_, there := f.installed[nameIn(policy)]
	f.held.Unlock()
	if !there {
		return provider.Credential{}, &provider.NotMade{Reason: provider.ErrNotInstalled}
	}
	return f.Fake.Mint(ctx, handle, policy, expiresAt)
}
