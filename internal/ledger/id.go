package ledger

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// idPath is where the ledger keeps its own id.
const idPath = OwnPrefix + "id"

// ID returns the ledger's own id, and draws it where there is none yet. It is
// another in each cluster, since it is in local storage, so that marks at a
// target tell whose they are. Only one caller at a time, on the node that writes.
func ID(ctx context.Context, storage logical.Storage) (string, error) {
	entry, err := storage.Get(ctx, idPath)
	if err != nil {
		return "", fmt.Errorf("ledger: reading its id: %w", err)
	}
	if entry != nil && len(entry.Value) > 0 {
		return string(entry.Value), nil
	}
	id := random(15)
	if err := storage.Put(ctx, &logical.StorageEntry{Key: idPath, Value: []byte(id)}); err != nil {
		return "", fmt.Errorf("ledger: writing its id: %w", err)
	}
	return id, nil
}

// provenPath is what Prove writes.
const provenPath = OwnPrefix + "proven"

// Prove writes to storage, to find out whether that can still be done.
func Prove(ctx context.Context, storage logical.Storage) error {
	if err := storage.Put(ctx, &logical.StorageEntry{Key: provenPath, Value: []byte(random(5))}); err != nil {
		return fmt.Errorf("ledger: storage takes no write: %w", err)
	}
	return nil
}
