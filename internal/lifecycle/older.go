package lifecycle

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// olderStorage is what is known of whether the storage is older than what it was. It is read once: the node that writes
// learns of a change first.
type olderStorage struct {
	mu     sync.Mutex
	loaded bool
	found  *ledger.Older // nil where the storage is what it was, for all that is known
	newer  error         // the record of that is one that a newer plugin wrote, which nothing may overwrite
}

// Older returns the finding that the storage is older than what has written at a target, until AcceptOlder; nil where
// there is none. It reads storage once. One that can't be read is one all the same.
func (m *Manager) Older(ctx context.Context, storage logical.Storage) (*ledger.Older, error) {
	m.older.mu.Lock()
	defer m.older.mu.Unlock()
	if m.older.loaded {
		return m.older.found, nil
	}
	found, err := ledger.GetOlder(ctx, storage)
	switch {
	case errors.Is(err, ledger.ErrDamaged):
		m.Log.Error("the record of whether the storage was restored can't be read: nothing is minted until tidy accept_restore=true",
			"error", err)
		found = &ledger.Older{At: m.Now().UTC(), Unreadable: true}
		if errors.Is(err, stored.ErrNewer) {
			m.older.newer = err
		}
	case err != nil:
		return nil, err
	}
	m.older.found, m.older.loaded = found, true
	return found, nil
}

// loadOlder has KnownOlder know what storage does, before anything is done at a target. It tries until it does.
func (m *Manager) loadOlder(storage logical.Storage) {
	for m.life.Err() == nil {
		_, err := m.Older(m.life, storage)
		if err == nil {
			return
		}
		m.Log.Warn("whether the storage was restored could not be read; it is tried again", "error", err)
		select {
		case <-m.life.Done():
		case <-time.After(askPause):
		}
	}
}

// KnownOlder is Older without a read.
func (m *Manager) KnownOlder() *ledger.Older {
	m.older.mu.Lock()
	defer m.older.mu.Unlock()
	return m.older.found
}

// AcceptOlder mints again although the storage is older than what it was. It is false where that was not known.
func (m *Manager) AcceptOlder(ctx context.Context, storage logical.Storage, by string) (accepted bool, err error) {
	if found, err := m.Older(ctx, storage); err != nil || found == nil {
		return false, err
	}
	m.older.mu.Lock()
	defer m.older.mu.Unlock()
	if m.older.newer != nil {
		return false, m.older.newer
	}
	if err := ledger.PutOlder(ctx, storage, nil); err != nil {
		return false, err
	}
	m.older.found = nil
	m.Log.Warn("storage that is older than what it was is accepted: credentials are minted again", "by", by)
	return true, nil
}

// Passive implements provider.Ledger.
func (m memory) Passive() bool { return m.KnownOlder() != nil }

// Older implements provider.Ledger. In memory the finding counts even where storage does not take it.
func (m memory) Older(ctx context.Context, base string, found, own uint64) error {
	storage, err := m.kept()
	if err != nil {
		return err
	}
	older := &ledger.Older{At: m.Manager.Now().UTC(), Base: base, Found: found, Own: own}
	m.older.mu.Lock()
	defer m.older.mu.Unlock()
	if m.older.found == nil || m.older.found.Unreadable {
		m.older.found, m.older.loaded = older, true
	}
	m.Log.Error("the storage is older than what has written at a target, or a copy of it is in use: nothing is minted until tidy accept_restore=true",
		"base", base, "target_epoch", found, "storage_epoch", own)
	if m.older.newer != nil {
		return nil
	}
	return ledger.PutOlder(ctx, storage, m.older.found)
}
