package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// installations are what has been installed at targets, see provider.Installer.
type installations struct {
	mu       sync.Mutex
	byKey    map[string]*installation
	reserved map[string]int // by key, for roles that are being written
	loaded   bool           // what storage knows is among them
}

// installation is one of them. turn is held while it is installed or removed.
type installation struct {
	ledger.Installation
	turn chan struct{}
	made bool // so that a mint need not look
}

// take waits for the turn of an installation, which is made known if it is not.
func (i *installations) take(ctx context.Context, wanted ledger.Installation) (*installation, error) {
	for {
		i.mu.Lock()
		known := i.byKey[wanted.Key]
		if known == nil {
			known = i.add(wanted)
		}
		i.mu.Unlock()
		select {
		case known.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		i.mu.Lock()
		current := i.byKey[wanted.Key]
		i.mu.Unlock()
		if current == known {
			return known, nil
		}
		<-known.turn // it has been removed meanwhile
	}
}

func (i *installations) add(wanted ledger.Installation) *installation {
	if i.byKey == nil {
		i.byKey = map[string]*installation{}
	}
	known := &installation{Installation: wanted, turn: make(chan struct{}, 1)}
	i.byKey[wanted.Key] = known
	return known
}

func (i *installations) made(key string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.byKey[key] != nil && i.byKey[key].made
}

func (i *installations) knows(key string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.byKey[key] != nil
}

// reserve keeps an installation from being removed until release is called. One that
// is being removed already is installed again after that.
func (i *installations) reserve(key string) (release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.reserved == nil {
		i.reserved = map[string]int{}
	}
	i.reserved[key]++
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.reserved[key]--; i.reserved[key] == 0 {
			delete(i.reserved, key)
		}
	}
}

func (i *installations) mark(known *installation, made bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	known.made = made
}

func (i *installations) isReserved(key string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reserved[key] > 0
}

func (i *installations) drop(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.byKey, key)
}

// need is what a policy needs at its target. The zero value is nothing.
type need struct {
	ledger.Installation
	installer provider.Installer
	policy    provider.Policy
}

func (m *Manager) need(ctx context.Context, storage logical.Storage, order Order, policy provider.Policy) (need, error) {
	installer, able := order.Provider.(provider.Installer)
	if !able {
		return need{}, nil
	}
	own, err := m.LedgerID(ctx, storage)
	if err != nil {
		return need{}, err
	}
	handle := installer.Plan(policy, order.Mount, own)
	if len(handle) == 0 {
		return need{}, nil
	}
	return need{Installation: ledger.NewInstallation(order.Target, order.System, handle, m.Now()), installer: installer, policy: policy}, nil
}

// Install sees to it that what the order's policy needs at its target is there and
// as it should be. Nothing is minted. It stays at least until release is called, by
// when the role is stored that needs it.
func (m *Manager) Install(ctx context.Context, storage logical.Storage, order Order, policy provider.Policy) (release func(), err error) {
	needed, err := m.need(ctx, storage, order, policy)
	if err != nil || needed.Key == "" {
		return func() {}, err
	}
	release = m.installed.reserve(needed.Key)
	if err := m.install(ctx, storage, needed, true); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// InstallAgain puts right what an order's policy needs, where it was installed before. What
// was not is left to the first mint.
func (m *Manager) InstallAgain(ctx context.Context, storage logical.Storage, order Order, policy provider.Policy) error {
	needed, err := m.need(ctx, storage, order, policy)
	if err != nil || needed.Key == "" || !m.installed.knows(needed.Key) {
		return err
	}
	return m.install(ctx, storage, needed, true)
}

// install installs what is needed, which is written down before and after. What was
// made is looked at again only if that is asked for: a mint must not put right, and so
// hide, what somebody has changed.
func (m *Manager) install(ctx context.Context, storage logical.Storage, needed need, again bool) error {
	if needed.Key == "" || (!again && m.installed.made(needed.Key)) {
		return nil
	}
	known, err := m.installed.take(ctx, needed.Installation)
	if err != nil {
		return err
	}
	defer func() { <-known.turn }()
	if !again && m.installed.made(needed.Key) {
		return nil // by one who had the turn before
	}
	if recorded, err := ledger.GetInstallation(ctx, storage, needed.Key); err == nil && recorded.Made && !again {
		m.installed.mark(known, true) // before a restart
		return nil
	} else if err != nil && !errors.Is(err, ledger.ErrNotFound) && (!again || !errors.Is(err, ledger.ErrDamaged) || errors.Is(err, stored.ErrNewer)) {
		return err // the write of a role replaces a damaged record
	}
	m.installed.mark(known, false)
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := ledger.PutInstallation(detached, storage, needed.Installation); err != nil {
		return err
	}
	err = m.lane(needed.Target).Do(ctx, circuit.Mint, func(ctx context.Context) error {
		return needed.installer.Install(ctx, needed.Handle, needed.policy)
	})
	if err == nil {
		made := needed.Installation
		made.Made = true
		if err := ledger.PutInstallation(context.WithoutCancel(ctx), storage, made); err != nil {
			return err
		}
		m.installed.mark(known, true)
	}
	var down *circuit.DownError
	switch {
	case errors.As(err, &down), errors.Is(err, circuit.ErrBusy):
		return unavailable(needed.Target, err)
	case err != nil:
		return fmt.Errorf("preparing target %q: %w", needed.Target, err)
	}
	return nil
}

// Idle are the installations that no grant needs. It is empty until the ledger is
// in memory.
func (m *Manager) Idle() []ledger.Installation {
	if !m.Ready() {
		return nil
	}
	m.installed.mu.Lock()
	defer m.installed.mu.Unlock()
	if !m.installed.loaded {
		return nil
	}
	var idle []ledger.Installation
	for key, known := range m.installed.byKey {
		if !m.Index.Needs(key) {
			idle = append(idle, known.Installation)
		}
	}
	return idle
}

// Installed are the installations that were made by a target.
func (m *Manager) Installed(target string) []ledger.Installation {
	m.installed.mu.Lock()
	defer m.installed.mu.Unlock()
	var all []ledger.Installation
	for _, known := range m.installed.byKey {
		if known.Target == target {
			all = append(all, known.Installation)
		}
	}
	return all
}

// ErrNeeded is returned where an installation is not removed since a grant or a role
// needs it.
var ErrNeeded = errors.New("what is installed is needed")

// Uninstall removes an installation that no role and no grant need. byRole says
// whether a role does that is stored. A mint, or the write of a role, that comes
// meanwhile installs it again.
func (m *Manager) Uninstall(ctx context.Context, storage logical.Storage, target provider.Provider, idle ledger.Installation, byRole func() (bool, error)) error {
	installer, able := target.(provider.Installer)
	if !able {
		return fmt.Errorf("target %q installs nothing", idle.Target)
	}
	known, err := m.installed.take(ctx, idle)
	if err != nil {
		return err
	}
	defer func() { <-known.turn }()
	// A mint is in the index before it looks whether this is made.
	m.installed.mark(known, false)
	if m.Index.Needs(idle.Key) || m.installed.isReserved(idle.Key) {
		return ErrNeeded
	}
	// A role that was being written is stored by now.
	if needed, err := byRole(); err != nil {
		return err
	} else if needed {
		return ErrNeeded
	}
	// As with grants: one that may not write any more must not change a target.
	idle.Made = false
	if err := ledger.PutInstallation(ctx, storage, idle); err != nil {
		return err
	}
	err = m.lane(idle.Target).Do(ctx, circuit.Revoke, func(ctx context.Context) error { return installer.Uninstall(ctx, idle.Handle) })
	if err != nil {
		return fmt.Errorf("removing what was installed on target %q: %w", idle.Target, err)
	}
	return m.Disown(ctx, storage, idle)
}

// Disown forgets an installation, whether or not it is still at its target.
func (m *Manager) Disown(ctx context.Context, storage logical.Storage, idle ledger.Installation) error {
	if err := ledger.DeleteInstallation(ctx, storage, idle.Key); err != nil {
		return err
	}
	m.installed.drop(idle.Key)
	return nil
}

// loadInstallations reads what storage knows. It tries again until life ends.
func (m *Manager) loadInstallations(storage logical.Storage) {
	for m.life.Err() == nil {
		stored, damaged, err := ledger.Installations(m.life, storage)
		if err == nil {
			if len(damaged) > 0 {
				m.Log.Error("what has been installed at targets is not all known: records can't be read", "installations", damaged)
			}
			m.installed.mu.Lock()
			defer m.installed.mu.Unlock()
			for _, one := range stored {
				if m.installed.byKey[one.Key] == nil {
					m.installed.add(one)
				}
			}
			m.installed.loaded = true
			return
		}
		m.Log.Warn("what has been installed at targets can't be read; it is tried again", "error", err)
		select {
		case <-m.life.Done():
		case <-time.After(askPause):
		}
	}
}
