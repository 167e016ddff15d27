package precision

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// readEntry reads what writeEntry stored at key. The error is missing where
// there is nothing.
func readEntry[T any](ctx context.Context, storage logical.Storage, key string, missing error) (T, error) {
	var stored T
	entry, err := storage.Get(ctx, key)
	if err != nil {
		return stored, fmt.Errorf("reading %s: %w", key, err)
	}
	if entry == nil {
		return stored, missing
	}
	if err := entry.DecodeJSON(&stored); err != nil {
		return stored, fmt.Errorf("decoding %s: %w", key, err)
	}
	return stored, nil
}

func writeEntry(ctx context.Context, storage logical.Storage, key string, value any) error {
	entry, err := logical.StorageEntryJSON(key, value)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := storage.Put(ctx, entry); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
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
