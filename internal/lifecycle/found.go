package lifecycle

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// EndFound ends what was found at a target although its grant is finished, or is
// none that the ledger knows. The grant is written down as ending first: what
// then fails is tried again as any other end is.
func (m *Manager) EndFound(ctx context.Context, storage logical.Storage, target provider.Provider, grant ledger.Grant, found provider.Handle) error {
	order := EndOrder{Provider: target, ID: grant.ID, Target: grant.Target, System: grant.System, Handle: found}
	return m.act(ctx, order, begins, func(ctx context.Context) error {
		grant.State, grant.EndedAt = ledger.Ending, time.Time{}
		if err := m.write(ctx, storage, grant); err != nil {
			return err
		}
		if err := m.revoke(ctx, order); err != nil {
			return err
		}
		grant.State, grant.EndedAt = grant.Ending.State(), m.Now().UTC()
		if err := m.write(ctx, storage, grant); err != nil {
			return err
		}
		m.Log.Warn("ended what was found at a target", "grant_id", grant.ID, "target", grant.Target, "found", found, "ending", grant.Ending)
		return nil
	})
}
