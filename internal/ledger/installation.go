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
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
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
	return wrap(stored.Put(ctx, storage, InstallPrefix+installation.Key, installation), "ledger")
}

// DeleteInstallation forgets one that is gone from its target.
func DeleteInstallation(ctx context.Context, storage logical.Storage, key string) error {
	return wrap(storage.Delete(ctx, InstallPrefix+key), "ledger: deleting installation "+key)
}

// Installations reads all that are written down. What can't be read is named in
// damaged, and keeps none of the others from being known.
func Installations(ctx context.Context, storage logical.Storage) (all []Installation, damaged []string, err error) {
	keys, err := storage.List(ctx, InstallPrefix)
	if err != nil {
		return nil, nil, fmt.Errorf("ledger: listing installations: %w", err)
	}
	for _, key := range keys {
		installation, err := GetInstallation(ctx, storage, key)
		switch {
		case errors.Is(err, ErrNotFound): // deleted since it was listed
			continue
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, key)
			continue
		case err != nil:
			return nil, nil, err
		}
		all = append(all, installation)
	}
	return all, damaged, nil
}

// GetInstallation reads one. The error is ErrNotFound where it is not written down.
func GetInstallation(ctx context.Context, storage logical.Storage, key string) (Installation, error) {
	var installation Installation
	found, err := stored.Get(ctx, storage, InstallPrefix+key, &installation)
	switch {
	case stored.Unreadable(err):
		return Installation{}, fmt.Errorf("%w: installation %s: %w", ErrDamaged, key, err)
	case err != nil:
		return Installation{}, fmt.Errorf("ledger: %w", err)
	case !found:
		return Installation{}, ErrNotFound
	case installation.Key != key:
		return Installation{}, fmt.Errorf("%w: the record of installation %s is of %q", ErrDamaged, key, installation.Key)
	}
	return installation, nil
}
