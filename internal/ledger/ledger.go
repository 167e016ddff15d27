// Package ledger is the engine's memory: one record for each grant, written
// before anything is minted and kept after everything has ended.
//
// Layout: g/<bucket>/<id>. The bucket is the latest end that the grant can
// have, so that finding what has expired costs what has expired; the id starts
// with its bucket, so that any id is one read. A record is written in place and
// never moved.
package ledger

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Prefix is where the records are in the mount's storage.
const Prefix = "g/"

// bucketSpan is the time that the grants of one bucket end in.
const bucketSpan = 10 * time.Minute

// State of a grant as stored. An active grant is one that is Pending and whose
// ExpiresAt has not passed: a separate state would cost a second write.
type State string

const (
	Pending State = "pending" // recorded, and minted unless something failed
	Ended   State = "ended"   // dead at the target
	Failed  State = "failed"  // minting failed and nothing is left at the target
)

// Grant is one minted credential. It holds no secret.
type Grant struct {
	ID          string          `json:"id"`
	State       State           `json:"state"`
	Target      string          `json:"target"`
	System      string          `json:"system,omitempty"` // a hash that tells which system the target was
	Role        string          `json:"role"`
	Task        string          `json:"task,omitempty"`
	Action      string          `json:"action"`
	Resource    string          `json:"resource"`
	EntityID    string          `json:"entity_id,omitempty"`
	DisplayName string          `json:"display_name,omitempty"` // of the caller's token
	Handle      provider.Handle `json:"handle"`
	IssuedAt    time.Time       `json:"issued_at"`
	ExpiresAt   time.Time       `json:"expires_at"` // when the target ends it by itself
	EndedAt     time.Time       `json:"ended_at,omitzero"`
	Ending      string          `json:"ending,omitempty"` // how it ended
}

// Live says whether the credential may still work at the target.
func (g Grant) Live(now time.Time) bool {
	return g.State == Pending && now.Before(g.ExpiresAt)
}

// ErrNotFound is returned where the ledger has no grant of an id.
var ErrNotFound = errors.New("ledger: no such grant")

const bucketDigits = 8

var idShape = regexp.MustCompile(`\A[0-9a-f]{8}[a-z2-7]{16}\z`)

// NewID draws an id for a grant that ends at expiresAt at the latest: the
// bucket in 8 hexadecimal digits, then 80 random bits.
func NewID(expiresAt time.Time) string {
	random := make([]byte, 10)
	_, _ = rand.Read(random) // never fails: https://pkg.go.dev/crypto/rand#Read
	return bucket(expiresAt) + strings.ToLower(base32.StdEncoding.EncodeToString(random))
}

func bucket(expiresAt time.Time) string {
	return fmt.Sprintf("%0*x", bucketDigits, expiresAt.Unix()/int64(bucketSpan/time.Second))
}

func key(id string) (string, error) {
	if !idShape.MatchString(id) {
		return "", fmt.Errorf("ledger: %q is no grant id", id)
	}
	return Prefix + id[:bucketDigits] + "/" + id, nil
}

// Put writes a grant in place.
func Put(ctx context.Context, storage logical.Storage, grant Grant) error {
	path, err := key(grant.ID)
	if err != nil {
		return err
	}
	entry, err := logical.StorageEntryJSON(path, grant)
	if err != nil {
		return fmt.Errorf("ledger: encoding grant %s: %w", grant.ID, err)
	}
	if err := storage.Put(ctx, entry); err != nil {
		return fmt.Errorf("ledger: writing grant %s: %w", grant.ID, err)
	}
	return nil
}

// Get reads a grant. The error is ErrNotFound where there is none.
func Get(ctx context.Context, storage logical.Storage, id string) (Grant, error) {
	path, err := key(id)
	if err != nil {
		return Grant{}, err
	}
	entry, err := storage.Get(ctx, path)
	if err != nil {
		return Grant{}, fmt.Errorf("ledger: reading grant %s: %w", id, err)
	}
	if entry == nil {
		return Grant{}, ErrNotFound
	}
	var grant Grant
	if err := entry.DecodeJSON(&grant); err != nil {
		return Grant{}, fmt.Errorf("ledger: decoding grant %s: %w", id, err)
	}
	return grant, nil
}

// Live reads the grants that may still work at their targets. It costs what is
// live, and passes over the buckets that have gone by.
func Live(ctx context.Context, storage logical.Storage, now time.Time) ([]Grant, error) {
	buckets, err := storage.List(ctx, Prefix)
	if err != nil {
		return nil, fmt.Errorf("ledger: listing: %w", err)
	}
	var live []Grant
	for _, name := range buckets {
		if strings.TrimSuffix(name, "/") < bucket(now) {
			continue
		}
		ids, err := storage.List(ctx, Prefix+name)
		if err != nil {
			return nil, fmt.Errorf("ledger: listing %s: %w", name, err)
		}
		for _, id := range ids {
			grant, err := Get(ctx, storage, id)
			switch {
			case errors.Is(err, ErrNotFound): // removed since it was listed
			case err != nil:
				return nil, err
			case grant.Live(now):
				live = append(live, grant)
			}
		}
	}
	return live, nil
}
