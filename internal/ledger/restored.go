package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

const (
	// basePrefix is where providers keep something of each base, see provider.Ledger.
	basePrefix = OwnPrefix + "base/"
	// olderPath is where it is kept that the storage is older than what it was.
	olderPath = OwnPrefix + "older"
)

// Older is the finding that this storage is older than what has written at a target: a snapshot was restored, or a copy
// of the storage is in use.
type Older struct {
	At    time.Time `json:"at"`
	Base  string    `json:"base"`  // that was written by newer storage
	Found uint64    `json:"found"` // the epoch that the base bears
	Own   uint64    `json:"own"`   // and that of this storage
	// Unreadable says that there is a finding, and that its record can't be read.
	Unreadable bool `json:"-"`
}

func baseKey(base string) string {
	sum := sha256.Sum256([]byte(base))
	return basePrefix + hex.EncodeToString(sum[:12])
}

// BaseRecord reads what PutBaseRecord wrote; nothing where there is nothing.
func BaseRecord(ctx context.Context, storage logical.Storage, base string) ([]byte, error) {
	var record json.RawMessage
	_, err := stored.Get(ctx, storage, baseKey(base), &record)
	return record, wrap(err, "ledger: the record of "+base)
}

// PutBaseRecord keeps a provider's record of a base.
func PutBaseRecord(ctx context.Context, storage logical.Storage, base string, record []byte) error {
	return wrap(stored.Put(ctx, storage, baseKey(base), json.RawMessage(record)), "ledger: the record of "+base)
}

// GetOlder reads the finding that the storage is older than what it was; nil where there is none.
func GetOlder(ctx context.Context, storage logical.Storage) (*Older, error) {
	var older Older
	found, err := stored.Get(ctx, storage, olderPath, &older)
	switch {
	case stored.Unreadable(err):
		return nil, fmt.Errorf("%w: whether the storage was restored: %w", ErrDamaged, err)
	case err != nil || !found:
		return nil, wrap(err, "ledger: whether the storage was restored")
	}
	return &older, nil
}

// PutOlder persists the finding; nil removes it.
func PutOlder(ctx context.Context, storage logical.Storage, older *Older) error {
	if older == nil {
		return wrap(storage.Delete(ctx, olderPath), "ledger: accepting that the storage was restored")
	}
	return wrap(stored.Put(ctx, storage, olderPath, older), "ledger")
}
