package ending

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// Prefix is where the ends are in storage, local to a cluster as the grants are.
const Prefix = "e/"

// maxKept is how many ends that are done are remembered.
const maxKept = 100

// Ends returns the ends that are under way and the latest that are done, the
// latest first, and the ids of those whose records can't be read.
func (r *Runner) Ends(ctx context.Context, storage logical.Storage) (all []End, unreadable []string, err error) {
	all, unreadable, err = r.stored(ctx, storage)
	if err != nil {
		return nil, nil, err
	}
	for i, end := range all {
		r.mu.Lock()
		begun := r.running[end.ID]
		r.mu.Unlock()
		if begun != nil {
			all[i] = r.snapshot(begun)
		}
	}
	slices.SortFunc(all, func(a, b End) int { return strings.Compare(b.ID, a.ID) })
	return all, unreadable, nil
}

// ErrNoEnd is returned for an end that is not, or no longer, written down.
var ErrNoEnd = errors.New("there is no such end")

// Find returns one end. The error is ErrNoEnd where there is none.
func (r *Runner) Find(ctx context.Context, storage logical.Storage, id string) (End, error) {
	r.mu.Lock()
	begun := r.running[id]
	r.mu.Unlock()
	if begun != nil {
		return r.snapshot(begun), nil
	}
	return read(ctx, storage, id)
}

func (r *Runner) stored(ctx context.Context, storage logical.Storage) (all []End, unreadable []string, err error) {
	ids, err := storage.List(ctx, Prefix)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the ends: %w", err)
	}
	for _, id := range ids {
		end, err := read(ctx, storage, id)
		switch {
		case errors.Is(err, ErrNoEnd): // pruned since it was listed
		case stored.Unreadable(err):
			r.Log.Error("an end that was requested can't be read, and does not go on", "end_id", id, "error", err)
			unreadable = append(unreadable, id)
		case err != nil:
			return nil, nil, err
		default:
			all = append(all, end)
		}
	}
	return all, unreadable, nil
}

func read(ctx context.Context, storage logical.Storage, id string) (End, error) {
	var end End
	found, err := stored.Get(ctx, storage, Prefix+id, &end)
	if err == nil && !found {
		err = ErrNoEnd
	}
	return end, err
}

func (r *Runner) write(ctx context.Context, storage logical.Storage, end End) error {
	return stored.Put(ctx, storage, Prefix+end.ID, end)
}

// prune forgets the oldest ends that are done. The grants say by whom and why they
// were ended as long as the ledger keeps them.
func (r *Runner) prune(ctx context.Context, storage logical.Storage, but string) {
	all, _, err := r.Ends(ctx, storage)
	if err != nil || len(all) <= maxKept {
		return
	}
	for _, end := range all[maxKept:] {
		if end.DoneAt.IsZero() || end.ID == but { // a clock that is put back makes it the oldest
			continue
		}
		if err := storage.Delete(ctx, Prefix+end.ID); err != nil {
			r.Log.Warn("an old end could not be forgotten", "end_id", end.ID, "error", err)
		}
	}
}

// newID starts with the time, so that ends are listed in their order.
func newID() string {
	random := make([]byte, 5)
	_, _ = rand.Read(random) // never fails
	return fmt.Sprintf("%012x", time.Now().UnixMilli()) + strings.ToLower(base32.StdEncoding.EncodeToString(random))
}
