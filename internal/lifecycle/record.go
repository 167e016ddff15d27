package lifecycle

import (
	"context"
	"hash/maphash"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// write puts a grant into storage, and then into the index.
func (m *Manager) write(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	defer m.writing(grant.ID)()
	return m.writeHeld(ctx, storage, grant)
}

// writing holds a grant's record until what it returns is called. An actor may be
// writing it while it is marked as ending with others.
func (m *Manager) writing(id string) (release func()) {
	lock := &m.records[maphash.String(m.seed, id)%uint64(len(m.records))]
	lock.Lock()
	return lock.Unlock
}

// writePending is write of a grant that stays pending. The error is ErrOvertaken where
// it is to end since.
func (m *Manager) writePending(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	defer m.writing(grant.ID)()
	if current, known := m.Index.Get(grant.ID); known && current.State != ledger.Pending {
		return ErrOvertaken
	}
	return m.writeHeld(ctx, storage, grant)
}

func (m *Manager) writeHeld(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	if err := ledger.Put(ctx, storage, grant); err != nil {
		return err
	}
	m.held.remove(grant.ID)
	m.Index.Update(grant, m.Now())
	return nil
}
