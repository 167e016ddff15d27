package lifecycle

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// Ledger is what a provider.Keeper may ask of a manager's memory.
func (m *Manager) Ledger() provider.Ledger { return memory{m} }

type memory struct{ *Manager }

// Life implements provider.Ledger.
func (m memory) Life() context.Context { return m.life }

// Now implements provider.Ledger.
func (m memory) Now() time.Time { return m.Manager.Now() }

// errNotStarted is a fault of this program: nothing is asked before Start.
var errNotStarted = errors.New("the ledger was never begun to be read")

// kept is the storage that the ledger is in.
func (m *Manager) kept() (logical.Storage, error) {
	if storage := m.storage.Load(); storage != nil {
		return *storage, nil
	}
	return nil, errNotStarted
}

// Identity implements provider.Ledger.
func (m memory) Identity(ctx context.Context) (mount, id string, err error) {
	storage, err := m.kept()
	if err != nil {
		return "", "", err
	}
	id, err = m.LedgerID(ctx, storage)
	return m.Mount, id, err
}

// OnBase implements provider.Ledger.
func (m memory) OnBase(ctx context.Context, base string) ([]provider.Hanging, error) {
	select {
	case <-m.Index.Ready():
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	grants := m.Index.OnBase(base, m.Manager.Now())
	hanging := make([]provider.Hanging, len(grants))
	for i, grant := range grants {
		hanging[i] = provider.Hanging{Handle: grant.Handle, ExpiresAt: grant.ExpiresAt, Over: over(grant)}
	}
	return hanging, nil
}

// over says whether a grant was ended, or is to end, before it expires.
func over(grant ledger.Grant) bool {
	switch grant.State {
	case ledger.Pending:
		return false
	case ledger.Ended, ledger.Failed:
		return grant.EndedAt.Before(grant.ExpiresAt)
	default:
		return true
	}
}

// EndEarly implements provider.Ledger.
func (m memory) EndEarly(ctx context.Context, base string, early func(provider.Handle) bool) error {
	storage, err := m.kept()
	if err != nil {
		return err
	}
	if err := ledger.Prove(ctx, storage); err != nil && (m.killing.Load() == 0 || !m.MayHold(err)) {
		return err // nobody who is there asks for it
	}
	if early == nil {
		return nil
	}
	return m.beginOn(ctx, storage, base, early, ledger.Widened, "a session is ended early: its base role's policies have no room left to spare it")
}

// FoundDenied implements provider.Ledger.
func (m memory) FoundDenied(ctx context.Context, base string, denied func(provider.Handle) bool) error {
	storage, err := m.kept()
	if err != nil {
		return err
	}
	return m.beginOn(ctx, storage, base, denied, ledger.FoundDenied, "a session is denied at its target though the ledger calls it live: it counts as revoked")
}

// beginOn persists that pending grants on a base are to end, and why.
func (m memory) beginOn(ctx context.Context, storage logical.Storage, base string, chosen func(provider.Handle) bool, why ledger.Cause, message string) error {
	var grants []ledger.Grant
	for _, grant := range m.Index.OnBase(base, m.Manager.Now()) {
		if grant.State == ledger.Pending && chosen(grant.Handle) {
			grants = append(grants, grant)
		}
	}
	return m.begin(ctx, storage, grants, func(grant *ledger.Grant) {
		grant.Ending = why
		m.Log.Warn(message, "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "base", base)
	})
}

// Elapsed implements provider.Ledger.
func (m memory) Elapsed() time.Duration { return m.Manager.Elapsed() }

// Recorded implements provider.Ledger.
func (m memory) Recorded(ctx context.Context, base string) ([]byte, error) {
	storage, err := m.kept()
	if err != nil {
		return nil, err
	}
	if record := m.HeldBase(base); record != nil {
		return record, nil
	}
	record, err := ledger.BaseRecord(ctx, storage, base)
	if stored.Unreadable(err) {
		// Without it, what is denied at the target stays denied for as long as a session lives, and revocations go on.
		m.Log.Error("the record of what is committed for a base can't be read", "base", base, "error", err)
		m.held.mu.Lock()
		defer m.held.mu.Unlock()
		if m.held.newer == nil {
			m.held.newer = map[string]bool{}
		}
		m.held.newer[base] = errors.Is(err, stored.ErrNewer)
		return nil, nil
	}
	return record, err
}

// Record implements provider.Ledger. It is called after Recorded.
func (m memory) Record(ctx context.Context, base string, record []byte) error {
	storage, err := m.kept()
	if err != nil {
		return err
	}
	m.held.bases.Lock()
	defer m.held.bases.Unlock()
	err = m.writeBase(ctx, storage, base, record)
	if err != nil && m.killing.Load() > 0 && m.MayHold(err) {
		// A Deny that storage does not explain is kept, so that nothing revoked works again even if this is lost.
		m.Log.Error("what is committed for a base is recorded in memory only: storage does not take it; that is tried again",
			"base", base, "error", err)
		m.holdBase(storage, base, record)
		return nil
	}
	return err
}

// BeginEnd writes down that open grants are to end, whoever ends them then: all that
// hang on a base, before the first is ended, so that one commit ends them; and what
// could not be ended, so that the sweeper goes on with it.
func (m *Manager) BeginEnd(ctx context.Context, storage logical.Storage, grants []ledger.Grant, order EndOrder) error {
	open := slices.DeleteFunc(slices.Clone(grants), func(grant ledger.Grant) bool { return !grant.Open() })
	return m.begin(ctx, storage, open, func(grant *ledger.Grant) { m.blame(order, grant) })
}

// EndTogether has a target end those of the grants that the ledger says are ending and
// that hang on a base, where it can do so at once. What becomes of each is found out by
// its own End, which is to follow.
func (m *Manager) EndTogether(ctx context.Context, target string, asked provider.Provider, grants []ledger.Grant) error {
	batch, able := asked.(provider.BatchRevoker)
	if !able {
		return nil
	}
	var handles []provider.Handle
	for _, grant := range grants {
		if current, known := m.Index.Get(grant.ID); known && current.State == ledger.Ending && current.Base != "" {
			handles = append(handles, current.Handle)
		}
	}
	if len(handles) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	m.killing.Add(1)
	defer m.killing.Add(-1)
	return m.lane(target).Do(ctx, circuit.Commit, func(ctx context.Context) error { return batch.RevokeBatch(ctx, handles) })
}

// begin writes down of those grants that are still pending that they are to end, and
// why.
func (m *Manager) begin(ctx context.Context, storage logical.Storage, grants []ledger.Grant, why func(*ledger.Grant)) error {
	const writers = 32
	turns := make(chan struct{}, writers)
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for _, grant := range grants {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if err := m.mark(ctx, storage, grant.ID, why); err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return failed
}

// mark writes down that a grant is to end, if it is still pending. It is no actor's
// work: EndEarly is asked within an end that others of these grants may have joined.
func (m *Manager) mark(ctx context.Context, storage logical.Storage, id string, why func(*ledger.Grant)) error {
	defer m.writing(id)()
	grant, known := m.Index.Get(id)
	if !known || grant.State != ledger.Pending {
		return nil // it has been ended meanwhile, or is by now
	}
	why(&grant)
	grant.State = ledger.Ending
	err := m.writeHeld(ctx, storage, grant)
	if err != nil && m.killing.Load() > 0 && m.MayHold(err) {
		m.hold(storage, grant, err)
		err = nil
	}
	return err
}
