package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// InstallPrefix is where what has been installed at targets is recorded. It is
// local to a cluster, as the grants are that need it.
const InstallPrefix = "i/"

// Installation is what a provider.Installer has made at a target once for many
// grants, or may have made: it is recorded before.
type Installation struct {
	Key    string          `json:"key"`
	Target string          `json:"target"` // by which it was installed
	System string          `json:"system"` // see Grant
	Handle provider.Handle `json:"handle"`
	At     time.Time       `json:"at"`
	// Made says that it was installed whole, and not only begun.
	Made bool `json:"made,omitempty"`
}

// NewInstallation names what a handle stands for at a target. Targets that are one
// system share it.
func NewInstallation(target, system string, handle provider.Handle, at time.Time) Installation {
	where := system
	if where == "" {
		where = "target " + target
	}
	text, err := json.Marshal([]any{where, handle})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	sum := sha256.Sum256(text)
	return Installation{Key: hex.EncodeToString(sum[:16]), Target: target, System: system, Handle: handle, At: at.UTC()}
}

// PutInstallation writes an installation down.
func PutInstallation(ctx context.Context, storage logical.Storage, installation Installation) error {
	entry, err := logical.StorageEntryJSON(InstallPrefix+installation.Key, installation)
	if err != nil {
		return fmt.Errorf("ledger: encoding installation %s: %w", installation.Key, err)
	}
	return wrap(storage.Put(ctx, entry), "ledger: writing installation "+installation.Key)
}

// DeleteInstallation forgets one that is gone from its target.
func DeleteInstallation(ctx context.Context, storage logical.Storage, key string) error {
	return wrap(storage.Delete(ctx, InstallPrefix+key), "ledger: deleting installation "+key)
}

// Installations reads all that are written down.
func Installations(ctx context.Context, storage logical.Storage) ([]Installation, error) {
	keys, err := storage.List(ctx, InstallPrefix)
	if err != nil {
		return nil, fmt.Errorf("ledger: listing installations: %w", err)
	}
	var all []Installation
	for _, key := range keys {
		installation, err := GetInstallation(ctx, storage, key)
		if errors.Is(err, ErrNotFound) {
			continue // deleted since it was listed
		}
		if err != nil {
			return nil, err
		}
		all = append(all, installation)
	}
	return all, nil
}

// GetInstallation reads one. The error is ErrNotFound where it is not written down.
func GetInstallation(ctx context.Context, storage logical.Storage, key string) (Installation, error) {
	entry, err := storage.Get(ctx, InstallPrefix+key)
	if err != nil {
		return Installation{}, fmt.Errorf("ledger: reading installation %s: %w", key, err)
	}
	if entry == nil {
		return Installation{}, ErrNotFound
	}
	var installation Installation
	if err := entry.DecodeJSON(&installation); err != nil || installation.Key != key {
		return Installation{}, fmt.Errorf("%w: installation %s", ErrDamaged, key)
	}
	return installation, nil
}
