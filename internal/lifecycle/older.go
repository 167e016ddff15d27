package lifecycle

import (
	"context"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// olderStorage is what is known of whether the storage is older than what it was. It is read once: the node that writes
// learns of a change first.
type olderStorage struct {
	mu     sync.Mutex
	loaded bool
	found  *ledger.Older // nil where the storage is what it was, for all that is known
}

// Older returns the finding that the storage is older than what has written at a target, until AcceptOlder; nil where
// there is none. It reads storage once.
func (m *Manager) Older(ctx context.Context, storage logical.Storage) (*ledger.Older, error) {
	m.older.mu.Lock()
	defer m.older.mu.Unlock()
	if m.older.loaded {
		return m.older.found, nil
	}
	found, err := ledger.GetOlder(ctx, storage)
	if err != nil {
		return nil, err
	}
	m.older.found, m.older.loaded = found, true
	return found, nil
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
	if m.older.found == nil {
		m.older.found, m.older.loaded = older, true
	}
	m.Log.Error("the storage is older than what has written at a target, or a copy of it is in use: nothing is minted until tidy accept_restore=true",
		"base", base, "target_epoch", found, "storage_epoch", own)
	return ledger.PutOlder(ctx, storage, m.older.found)
}
