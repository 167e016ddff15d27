package lifecycle

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// Lose closes the record of a grant that can't be ended any more: its target is
// another system now. One that is being ended is waited for, and stays as that has left
// it if it is finished.
func (m *Manager) Lose(ctx context.Context, storage logical.Storage, id, target string) (lost bool, err error) {
	err = m.act(ctx, EndOrder{ID: id, Target: target}, begins, func(ctx context.Context) error {
		grant, err := m.find(ctx, storage, id)
		if err != nil || grant.Finished() {
			return err
		}
		grant.State, grant.Ending, grant.EndedAt, grant.Base = ledger.Ended, ledger.TargetMoved, m.Now().UTC(), ""
		if err := m.write(ctx, storage, grant); err != nil {
			return err
		}
		lost = true
		m.Log.Warn("grant lost", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "handle", grant.Handle, "expires_at", grant.ExpiresAt)
		return nil
	})
	return lost && err == nil, err
}

// found is a grant that was given up for lost, as it was before.
func found(grant ledger.Grant) ledger.Grant {
	grant.State, grant.Ending, grant.EndedAt = ledger.Pending, "", time.Time{}
	return grant
}

// Lost says whether a grant was closed as lost.
func (m *Manager) Lost(ctx context.Context, storage logical.Storage, id string) (bool, error) {
	grant, err := m.find(ctx, storage, id)
	if errors.Is(err, ledger.ErrNotFound) {
		grant, err = ledger.Find(ctx, storage, id) // it may be history
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return false, nil
	}
	return err == nil && grant.Finished() && grant.Ending == ledger.TargetMoved, err
}

// lost is a grant of which only its lease knows, and that lives, for all that is
// known, as long as its id allows.
func lost(order EndOrder) (ledger.Grant, error) {
	latest, err := ledger.LatestEnd(order.ID)
	if err != nil {
		return ledger.Grant{}, err
	}
	return ledger.Grant{ID: order.ID, State: ledger.Pending, Target: order.Target, System: order.System, Role: order.Role, Task: order.Task, Handle: order.Handle, ExpiresAt: latest}, nil
}
