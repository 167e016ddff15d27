package lifecycle

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// ErrUnrecorded is returned to one who has a grant revoked while storage takes no writes. The credential is dead at its
// target. Vault keeps the lease and tries again, so that a crash does not lose what is in memory only.
var ErrUnrecorded error = logical.CodedError(http.StatusServiceUnavailable, "the credential is revoked at its target; storage does not take the record of that, which is tried again")

// How long persist waits before it tries storage again.
const (
	firstHeldPause = time.Second
	lastHeldPause  = 30 * time.Second
)

// held are the newest records of grants and of bases that storage has not taken. What revokes must work without a
// write.
type held struct {
	mu         sync.Mutex
	byID       map[string]ledger.Grant
	persisting bool

	bases  sync.Mutex // held while the record of a base is written, before mu
	byBase map[string][]byte
	newer  map[string]bool // bases whose records a newer plugin wrote; nothing overwrites them
}

func (h *held) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID, id)
}

// Held returns the record of a grant that storage has not taken yet.
func (m *Manager) Held(id string) (ledger.Grant, bool) {
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	grant, known := m.held.byID[id]
	return grant, known
}

// recorded returns ErrUnrecorded while storage has not taken a grant's record.
func (m *Manager) recorded(id string) error {
	if _, held := m.Held(id); held {
		return ErrUnrecorded
	}
	return nil
}

// HeldBase returns the record of a base that storage has not taken yet; nil where there is none.
func (m *Manager) HeldBase(base string) []byte {
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	return m.held.byBase[base]
}

// HeldBases returns the bases whose records storage has not taken yet.
func (m *Manager) HeldBases() []string {
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	return slices.Sorted(maps.Keys(m.held.byBase))
}

// AllHeld returns all records of grants that storage has not taken yet.
func (m *Manager) AllHeld() []ledger.Grant {
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	return slices.Collect(maps.Values(m.held.byID))
}

// MayHold says whether a record that storage refused may be kept in memory: only where this node is the one that
// writes, and a Vault is there that says so.
func (m *Manager) MayHold(refused error) bool {
	if errors.Is(refused, logical.ErrReadOnly) || m.storage.Load() == nil || m.life.Err() != nil {
		return false
	}
	able, err := m.writes()
	return able && err == nil
}

// hold keeps a record in memory until storage takes it. The grant's record is held by the caller, see writing.
func (m *Manager) hold(storage logical.Storage, grant ledger.Grant, refused error) {
	m.Log.Error("the record of a grant is in memory only: storage does not take it; that is tried again", "grant_id", grant.ID, "target", grant.Target, "state", grant.State, "error", refused)
	m.Index.Update(grant, m.Now())
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	if m.held.byID == nil {
		m.held.byID = map[string]ledger.Grant{}
	}
	m.held.byID[grant.ID] = grant
	m.persistSoon(storage)
}

// holdBase keeps the record of a base in memory until storage takes it. The caller holds held.bases.
func (m *Manager) holdBase(storage logical.Storage, base string, record []byte) {
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	if m.held.byBase == nil {
		m.held.byBase = map[string][]byte{}
	}
	m.held.byBase[base] = record
	m.persistSoon(storage)
}

// writeBase writes the record of a base. One of a newer plugin stays, and only that storage takes a write is found out.
// The caller holds held.bases.
func (m *Manager) writeBase(ctx context.Context, storage logical.Storage, base string, record []byte) error {
	m.held.mu.Lock()
	newer := m.held.newer[base]
	m.held.mu.Unlock()
	var err error
	if newer {
		err = ledger.Prove(ctx, storage)
	} else {
		err = ledger.PutBaseRecord(ctx, storage, base, record)
	}
	if err != nil {
		return err
	}
	m.held.mu.Lock()
	defer m.held.mu.Unlock()
	delete(m.held.byBase, base)
	return nil
}

// persistSoon is called with held.mu held.
func (m *Manager) persistSoon(storage logical.Storage) {
	if !m.held.persisting {
		m.held.persisting = true
		m.Behind(func(ctx context.Context) { m.persist(ctx, storage) })
	}
}

// persist tries to store what is held until nothing is left.
func (m *Manager) persist(ctx context.Context, storage logical.Storage) {
	for pause := firstHeldPause; ; pause = min(2*pause, lastHeldPause) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		for _, grant := range m.AllHeld() {
			if m.persistOne(ctx, storage, grant.ID) != nil {
				break
			}
			pause = firstHeldPause
		}
		for _, base := range m.HeldBases() {
			if m.persistBase(ctx, storage, base) != nil {
				break
			}
		}
		m.held.mu.Lock()
		m.held.persisting = len(m.held.byID)+len(m.held.byBase) > 0
		persisting := m.held.persisting
		m.held.mu.Unlock()
		if !persisting {
			m.Log.Warn("the records of grants that were in memory only are stored")
			return
		}
	}
}

func (m *Manager) persistOne(ctx context.Context, storage logical.Storage, id string) error {
	defer m.writing(id)()
	grant, known := m.Held(id)
	if !known {
		return nil
	}
	return m.writeHeld(ctx, storage, grant)
}

func (m *Manager) persistBase(ctx context.Context, storage logical.Storage, base string) error {
	m.held.bases.Lock()
	defer m.held.bases.Unlock()
	record := m.HeldBase(base)
	if record == nil {
		return nil
	}
	return m.writeBase(ctx, storage, base, record)
}

// save is write for an end. Where somebody waits for that, and storage does not take the record, it is held in memory
// and the end goes on: unrecorded says so.
func (m *Manager) save(ctx context.Context, storage logical.Storage, order EndOrder, grant ledger.Grant) (unrecorded bool, err error) {
	defer m.writing(grant.ID)()
	err = m.writeHeld(ctx, storage, grant)
	if err == nil || order.Unasked || !m.MayHold(err) {
		return false, err
	}
	m.hold(storage, grant, err)
	return true, nil
}
