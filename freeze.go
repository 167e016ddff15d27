package precision

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
)

// Freezes are in the mount's replicated storage, in force where the first are, and
// as a record of those that were lifted where the others are.
//
//	freeze/now/all, freeze/now/role/<name>, freeze/now/target/<name>
//	freeze/past/<id>
const (
	freezePrefix = "freeze/"
	frozenNow    = freezePrefix + "now/"
	frozenPast   = freezePrefix + "past/"
)

var errNoFreeze = errors.New("nothing is frozen there")

func freezeKey(subject admission.Subject) string {
	if subject.Kind == admission.FreezeAll {
		return frozenNow + string(subject.Kind)
	}
	return frozenNow + string(subject.Kind) + "/" + subject.Name
}

// newFreezeID begins with the time, in seconds and hexadecimal, so that the record
// is in the order of time.
func newFreezeID(now time.Time) string {
	drawn := make([]byte, 5)
	_, _ = rand.Read(drawn) // never fails: https://pkg.go.dev/crypto/rand#Read
	return fmt.Sprintf("%08x-%s", now.Unix(), base32Letters.EncodeToString(drawn))
}

// freezes are those that are in force, from the cache where it can.
func (b *backend) freezes(ctx context.Context, storage logical.Storage) (admission.Freezes, error) {
	return b.frozen.get(frozenNow, func() (admission.Freezes, error) {
		found := admission.Freezes{}
		read := func(subject admission.Subject) error {
			freeze, err := readEntry[admission.Freeze](ctx, storage, freezeKey(subject), errNoFreeze)
			if err == nil {
				found[subject] = freeze
			}
			if errors.Is(err, errNoFreeze) {
				return nil
			}
			return err
		}
		if err := read(admission.Subject{Kind: admission.FreezeAll}); err != nil {
			return nil, err
		}
		for _, kind := range []admission.Kind{admission.FreezeRole, admission.FreezeTarget} {
			names, err := storage.List(ctx, frozenNow+string(kind)+"/")
			if err != nil {
				return nil, fmt.Errorf("listing what is frozen: %w", err)
			}
			for _, name := range names {
				if err := read(admission.Subject{Kind: kind, Name: name}); err != nil {
					return nil, err
				}
			}
		}
		return found, nil
	})
}

// checkFrozen refuses what is frozen, and everything while the storage is known to be older than what it was.
func (b *backend) checkFrozen(ctx context.Context, storage logical.Storage, order lifecycle.Order) error {
	older, err := b.grants.Older(ctx, storage)
	if err != nil {
		return err
	}
	if older != nil {
		return invalid.Deny(describeOlder(*older), "follow \"Restoring a snapshot\" in docs/operations.md, then write accept_restore=true to tidy")
	}
	frozen, err := b.freezes(ctx, storage)
	if err != nil {
		return err
	}
	return frozen.Refuse(order.Role, order.Target)
}

// thaw has what is frozen read anew. Once it returns, nothing is admitted that has
// not been checked by what is in storage now: who admits holds definitions from the
// check until the grant is in the ledger's index.
func (b *backend) thaw() {
	b.definitions.Lock()
	defer b.definitions.Unlock()
	b.frozen.drop(frozenNow)
}

// freeze puts a freeze in force, unless its subject is frozen already: then it
// returns the one that is.
func (b *backend) freeze(ctx context.Context, storage logical.Storage, wanted admission.Freeze) (inForce admission.Freeze, already bool, err error) {
	b.freezing.Lock()
	defer b.freezing.Unlock()
	found, err := readEntry[admission.Freeze](ctx, storage, freezeKey(wanted.Subject), errNoFreeze)
	if err == nil {
		b.thaw() // as if it had been written
		return found, true, nil
	}
	if !errors.Is(err, errNoFreeze) {
		return wanted, false, err
	}
	err = writeEntry(ctx, storage, freezeKey(wanted.Subject), wanted)
	b.thaw() // on an error too: storage may have taken the write
	return wanted, false, err
}

// unfreeze lifts a freeze, and keeps it as a record. The error is errNoFreeze where
// there is none.
func (b *backend) unfreeze(ctx context.Context, storage logical.Storage, subject admission.Subject, by approval.Decision) (admission.Freeze, error) {
	b.freezing.Lock()
	defer b.freezing.Unlock()
	found, err := readEntry[admission.Freeze](ctx, storage, freezeKey(subject), errNoFreeze)
	if err != nil {
		return found, err
	}
	found.Lifted = &by
	if err := writeEntry(ctx, storage, frozenPast+found.ID, found); err != nil {
		return found, err
	}
	err = deleteEntry(ctx, storage, freezeKey(subject))
	b.thaw()
	return found, err
}

// pastFreezes are those that were lifted, the last first.
func (b *backend) pastFreezes(ctx context.Context, storage logical.Storage, most int) ([]admission.Freeze, error) {
	ids, err := storage.List(ctx, frozenPast)
	if err != nil {
		return nil, fmt.Errorf("listing past freezes: %w", err)
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	past := []admission.Freeze{}
	for _, id := range ids[:min(most, len(ids))] {
		freeze, err := readEntry[admission.Freeze](ctx, storage, frozenPast+id, errNoFreeze)
		if errors.Is(err, errNoFreeze) {
			continue // forgotten since it was listed
		}
		if err != nil {
			return nil, err
		}
		past = append(past, freeze)
	}
	return past, nil
}

// tidyFreezes forgets the freezes that were lifted before a time.
func (b *backend) tidyFreezes(ctx context.Context, storage logical.Storage, before time.Time) (deleted int, err error) {
	ids, err := storage.List(ctx, frozenPast)
	if err != nil {
		return 0, fmt.Errorf("listing past freezes: %w", err)
	}
	for _, id := range ids {
		digits, _, _ := strings.Cut(id, "-")
		if began, err := strconv.ParseInt(digits, 16, 64); err != nil || !time.Unix(began, 0).Before(before) {
			continue
		}
		freeze, err := readEntry[admission.Freeze](ctx, storage, frozenPast+id, errNoFreeze)
		if errors.Is(err, errNoFreeze) {
			continue
		}
		if err != nil {
			return deleted, err
		}
		if freeze.Lifted == nil || !freeze.Lifted.At.Before(before) {
			continue
		}
		if err := deleteEntry(ctx, storage, frozenPast+id); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}

// describeOlder says for people that the storage is older than what it was.
func describeOlder(older ledger.Older) string {
	return fmt.Sprintf("mints are frozen since %s: %s was written by an engine on newer storage than this, or on a copy of it (epoch %d, here %d)",
		stamp(older.At), older.Base, older.Found, older.Own)
}
