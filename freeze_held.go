package precision

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
)

// How long persistHeld waits before it tries storage again.
const (
	firstHeldPause = time.Second
	lastHeldPause  = 30 * time.Second
)

// heldFreezes are the freezes that are in force on this node, in memory, since storage did not take them: a full disk
// must not take the emergency stop away. A restart or a step-down loses them.
type heldFreezes struct {
	mu         sync.Mutex
	bySubject  admission.Freezes
	persisting bool
}

func (h *heldFreezes) get(subject admission.Subject) (admission.Freeze, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	freeze, known := h.bySubject[subject]
	return freeze, known
}

func (h *heldFreezes) add(freeze admission.Freeze) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bySubject == nil {
		h.bySubject = admission.Freezes{}
	}
	h.bySubject[freeze.Subject] = freeze
}

func (h *heldFreezes) remove(subject admission.Subject) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bySubject, subject)
}

// with adds those that are held to those that are stored.
func (h *heldFreezes) with(found admission.Freezes) admission.Freezes {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.bySubject) == 0 {
		return found
	}
	all := maps.Clone(found)
	maps.Copy(all, h.bySubject)
	return all
}

// all returns those that are held.
func (h *heldFreezes) all() admission.Freezes {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.bySubject)
}

// mayHold says whether a freeze that storage refused may be in force in memory: not where another node, or another
// cluster, is the one that writes it.
func (b *backend) mayHold(refused error) bool {
	state := b.System().ReplicationState()
	return !errors.Is(refused, logical.ErrReadOnly) && state != consts.ReplicationUnknown &&
		!state.HasState(consts.ReplicationDRSecondary|consts.ReplicationPerformanceStandby|consts.ReplicationPerformanceSecondary)
}

// persistHeld tries, in the background, to store the freezes that are held, until storage has taken them all.
func (b *backend) persistHeld(storage logical.Storage) {
	b.held.mu.Lock()
	defer b.held.mu.Unlock()
	if b.held.persisting {
		return
	}
	b.held.persisting = true
	b.grants.Behind(func(ctx context.Context) {
		for pause := firstHeldPause; ; pause = min(2*pause, lastHeldPause) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if b.storeHeld(ctx, storage) {
				return
			}
		}
	})
}

// storeHeld stores what is held, and says whether nothing is left.
func (b *backend) storeHeld(ctx context.Context, storage logical.Storage) bool {
	b.freezing.Lock()
	defer b.freezing.Unlock()
	for subject, freeze := range b.held.all() {
		if err := writeEntry(ctx, storage, freezeKey(subject), freeze); err != nil {
			return false
		}
		b.thaw() // before it is held no longer, so that it is in force throughout
		b.held.remove(subject)
		b.Logger().Warn("a freeze that was in memory only is stored", "subject", subject.String())
	}
	b.held.mu.Lock()
	defer b.held.mu.Unlock()
	b.held.persisting = len(b.held.bySubject) > 0
	return !b.held.persisting
}
