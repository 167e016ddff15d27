package lifecycle

import (
	"context"
	"errors"
	"net/http"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// FullError is of a limit that leaves no room for one more.
type FullError struct {
	Of     ledger.Query // whose live grants fill it
	Reason error
}

func (e *FullError) Error() string { return e.Reason.Error() }

func (e *FullError) Unwrap() error { return e.Reason }

// ErrNoRoomYet is returned where the grant that is to give way has not ended yet.
var ErrNoRoomYet error = logical.CodedError(http.StatusServiceUnavailable, "the grant that has to make room has not been ended yet; try again")

// makeRoom issues a grant, and where its limit is reached and the order says so, it
// ends the oldest first, until there is room. Whether there is any is decided each
// time that the grant is put into the index, so that however many ask at once, no
// more live than may.
func (m *Manager) makeRoom(ctx context.Context, storage logical.Storage, order Order) (Issued, error) {
	for tried := false; ; {
		issued, err := m.issue(ctx, storage, order)
		var full *FullError
		if order.Replace == nil || !errors.As(err, &full) {
			return issued, err
		}
		if _, found := m.Index.Oldest(full.Of, m.Now()); !found {
			if tried {
				return issued, err // records that can't be read fill the limit, and can't be revoked
			}
			tried = true // there may be room by now
			continue
		}
		tried = false
		if err := m.endOldest(ctx, order, full.Of); err != nil {
			return Issued{}, err
		}
	}
}

// endOldest ends the oldest live grant of a query. One that is being minted is
// waited for: what has been ended before it was made would come to life after.
func (m *Manager) endOldest(ctx context.Context, order Order, of ledger.Query) error {
	for {
		oldest, any := m.Index.Oldest(of, m.Now())
		if !any {
			return nil // there is room by now
		}
		m.mu.Lock()
		over, underWay := m.mints[oldest.ID]
		m.mu.Unlock()
		if underWay {
			select {
			case <-over:
			case <-ctx.Done():
				return ctx.Err()
			case <-m.life.Done():
				return ErrClosed
			}
			continue
		}
		err := order.Replace(ctx, oldest)
		if errors.Is(err, ErrStillEnding) || errors.Is(err, ErrBusy) {
			return ErrNoRoomYet
		}
		return err
	}
}

// minting notes that a grant is being minted, until the function is called that it
// returns.
func (m *Manager) minting(id string) (over func()) {
	done := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mints[id] = done
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.mints, id)
		close(done)
	}
}

// keepHandle writes down what only the target could name of a grant, and what it takes
// to end it: who ends it without its lease, after the plugin has been started anew, is
// told by nobody else.
func (m *Manager) keepHandle(ctx context.Context, storage logical.Storage, grant ledger.Grant) error {
	return m.act(context.WithoutCancel(ctx), EndOrder{ID: grant.ID, Target: grant.Target}, renews, func(ctx context.Context) error {
		if known, err := m.find(ctx, storage, grant.ID); err != nil || known.State != ledger.Pending {
			return errors.Join(err, ErrOvertaken)
		}
		return m.writePending(ctx, storage, grant)
	})
}
