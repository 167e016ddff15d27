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
)

// Prefix is where the ends are in storage, local to a cluster as the grants are.
const Prefix = "e/"

// maxKept is how many ends that are done are remembered.
const maxKept = 100

// Ends returns the ends that are under way and the latest that are done, the
// latest first.
func (r *Runner) Ends(ctx context.Context, storage logical.Storage) ([]End, error) {
	all, err := r.stored(ctx, storage)
	if err != nil {
		return nil, err
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
	return all, nil
}

// ErrNoEnd is returned for an end that is not, or no longer, written down.
var ErrNoEnd = errors.New("there is no such end")

// errDamaged is returned for what is in an end's place and can't be read.
var errDamaged = errors.New("damaged")

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

func (r *Runner) stored(ctx context.Context, storage logical.Storage) ([]End, error) {
	ids, err := storage.List(ctx, Prefix)
	if err != nil {
		return nil, fmt.Errorf("listing the ends: %w", err)
	}
	var all []End
	for _, id := range ids {
		end, err := read(ctx, storage, id)
		switch {
		case errors.Is(err, ErrNoEnd): // pruned since it was listed
		case errors.Is(err, errDamaged):
			r.Log.Error("an end that was requested can't be read, and does not go on", "end_id", id, "error", err)
		case err != nil:
			return nil, err
		default:
			all = append(all, end)
		}
	}
	return all, nil
}

func read(ctx context.Context, storage logical.Storage, id string) (End, error) {
	entry, err := storage.Get(ctx, Prefix+id)
	if err != nil {
		return End{}, fmt.Errorf("reading end %s: %w", id, err)
	}
	if entry == nil {
		return End{}, ErrNoEnd
	}
	var end End
	if err := entry.DecodeJSON(&end); err != nil {
		return End{}, fmt.Errorf("%w: decoding end %s: %w", errDamaged, id, err)
	}
	return end, nil
}

func (r *Runner) write(ctx context.Context, storage logical.Storage, end End) error {
	entry, err := logical.StorageEntryJSON(Prefix+end.ID, end)
	if err != nil {
		return fmt.Errorf("encoding end %s: %w", end.ID, err)
	}
	if err := storage.Put(ctx, entry); err != nil {
		return fmt.Errorf("writing end %s: %w", end.ID, err)
	}
	return nil
}

// prune forgets the oldest ends that are done. The grants say by whom and why they
// were ended as long as the ledger keeps them.
func (r *Runner) prune(ctx context.Context, storage logical.Storage, but string) {
	all, err := r.Ends(ctx, storage)
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
