package precision

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// readEntry reads what writeEntry stored at key. The error is missing where
// there is nothing, and stored.ErrNewer or stored.ErrDamaged for what this plugin can't read.
func readEntry[T any](ctx context.Context, storage logical.Storage, key string, missing error) (T, error) {
	var entry T
	found, err := stored.Get(ctx, storage, key, &entry)
	if err == nil && !found {
		err = missing
	}
	return entry, err
}

// readForWrite is readEntry for a caller that replaces the entry. It treats a damaged entry as a missing one, and
// returns the error of one that a newer plugin wrote.
func readForWrite[T any](ctx context.Context, storage logical.Storage, key string, missing error) (T, error) {
	entry, err := readEntry[T](ctx, storage, key, missing)
	if errors.Is(err, stored.ErrDamaged) {
		err = missing
	}
	return entry, err
}

func writeEntry(ctx context.Context, storage logical.Storage, key string, value any) error {
	return stored.Put(ctx, storage, key, value)
}

func deleteEntry(ctx context.Context, storage logical.Storage, key string) error {
	if err := storage.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

// listEntries answers a list with the names below prefix.
func listEntries(prefix string) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
		names, err := req.Storage.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", prefix, err)
		}
		return logical.ListResponse(names), nil
	}
}

// entryExists says whether there is an entry below prefix of the name that the
// path's field holds. One with a name that can't be does not; the write that
// follows says what is wrong with it.
func entryExists(prefix, field string) framework.ExistenceFunc {
	return func(ctx context.Context, req *logical.Request, data *framework.FieldData) (bool, error) {
		name, err := nameIn(data, field)
		if err != nil {
			return false, nil
		}
		entry, err := req.Storage.Get(ctx, prefix+name)
		return entry != nil, err
	}
}
