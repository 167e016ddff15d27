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
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
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

// unreadableFreeze stands for a freeze whose record can't be read: it stays in force.
func unreadableFreeze(subject admission.Subject, err error) admission.Freeze {
	return admission.Freeze{Subject: subject, By: approval.Decision{Reason: "its record can't be read: " + err.Error()}}
}

// freezes are those that are in force: those in storage, from the cache where it can, and those that storage has not
// taken yet.
func (b *backend) freezes(ctx context.Context, storage logical.Storage) (admission.Freezes, error) {
	found, err := b.storedFreezes(ctx, storage)
	if err != nil {
		return nil, err
	}
	return b.held.with(found), nil
}

func (b *backend) storedFreezes(ctx context.Context, storage logical.Storage) (admission.Freezes, error) {
	return b.frozen.get(ctx, frozenNow, func() (admission.Freezes, error) {
		found := admission.Freezes{}
		read := func(subject admission.Subject) error {
			freeze, err := readEntry[admission.Freeze](ctx, storage, freezeKey(subject), errNoFreeze)
			switch {
			case errors.Is(err, errNoFreeze):
				return nil
			case stored.Unreadable(err):
				freeze, err = unreadableFreeze(subject, err), nil
			case err == nil && freeze.Subject != subject:
				freeze = unreadableFreeze(subject, stored.ErrDamaged)
			}
			if err != nil {
				return err
			}
			if subject.Kind == admission.FreezeTarget && freeze.System == "" {
				// Its record does not say, and others that are the same system must be held, too.
				if opened, err := b.openTarget(ctx, storage, subject.Name); err == nil {
					freeze.System = opened.system
				}
			}
			found[subject] = freeze
			return nil
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
	return frozen.Refuse(order.Role, order.Target, order.System)
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
// returns the one that is, which learns of its target's system where it did not know it.
// Where storage does not take it, it is in force in memory, see heldFreezes.
func (b *backend) freeze(ctx context.Context, storage logical.Storage, wanted admission.Freeze) (inForce admission.Freeze, already bool, err error) {
	b.freezing.Lock()
	defer b.freezing.Unlock()
	defer b.thaw() // on an error too: storage may have taken the write
	inForce, already = b.held.get(wanted.Subject)
	if already {
		if inForce.System == "" {
			inForce.System = wanted.System
			b.held.add(inForce)
		}
		return inForce, true, nil
	}
	inForce, err = readEntry[admission.Freeze](ctx, storage, freezeKey(wanted.Subject), errNoFreeze)
	switch {
	case errors.Is(err, stored.ErrNewer):
		return unreadableFreeze(wanted.Subject, err), true, nil
	case err == nil && (inForce.System != "" || wanted.System == ""):
		return inForce, true, nil
	case err == nil:
		already, inForce.System = true, wanted.System
	default:
		inForce = wanted
	}
	if err == nil || errors.Is(err, errNoFreeze) || errors.Is(err, stored.ErrDamaged) {
		err = writeEntry(ctx, storage, freezeKey(wanted.Subject), inForce)
	}
	if err != nil && b.mayHold(err) {
		b.held.add(inForce)
		b.persistHeld(storage)
		b.Logger().Error("a freeze is in force in memory only: storage does not take it; that is tried again", "subject", wanted.Subject.String(), "error", err)
		err = nil
	}
	return inForce, already, err
}

// unfreeze lifts a freeze, and keeps it as a record. The error is errNoFreeze where
// there is none.
func (b *backend) unfreeze(ctx context.Context, storage logical.Storage, subject admission.Subject, by approval.Decision) (admission.Freeze, error) {
	b.freezing.Lock()
	defer b.freezing.Unlock()
	found, err := readEntry[admission.Freeze](ctx, storage, freezeKey(subject), errNoFreeze)
	held, inMemory := b.held.get(subject)
	switch {
	case errors.Is(err, errNoFreeze) && inMemory:
		held.Lifted = &by
		b.held.remove(subject)
		b.thaw()
		if err := writeEntry(ctx, storage, frozenPast+held.ID, held); err != nil {
			b.Logger().Warn("a freeze that was in memory only and is lifted could not be recorded", "subject", subject.String(), "error", err)
		}
		return held, nil
	case errors.Is(err, stored.ErrDamaged): // the record of the lifted one takes its place
		found = unreadableFreeze(subject, err)
		found.ID = newFreezeID(by.At)
	case err != nil:
		return found, err
	}
	found.Lifted = &by
	if err := writeEntry(ctx, storage, frozenPast+found.ID, found); err != nil {
		return found, err
	}
	if err = deleteEntry(ctx, storage, freezeKey(subject)); err == nil {
		b.held.remove(subject)
	}
	b.thaw()
	return found, err
}

// pastFreezes are those that were lifted, the last first, and the ids of those that can't be read.
func (b *backend) pastFreezes(ctx context.Context, storage logical.Storage, most int) (past []admission.Freeze, unreadable []string, err error) {
	ids, err := storage.List(ctx, frozenPast)
	if err != nil {
		return nil, nil, fmt.Errorf("listing past freezes: %w", err)
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	for _, id := range ids[:min(most, len(ids))] {
		freeze, err := readEntry[admission.Freeze](ctx, storage, frozenPast+id, errNoFreeze)
		switch {
		case errors.Is(err, errNoFreeze): // forgotten since it was listed
		case stored.Unreadable(err):
			unreadable = append(unreadable, id)
		case err != nil:
			return nil, nil, err
		default:
			past = append(past, freeze)
		}
	}
	return past, unreadable, nil
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
		switch {
		case errors.Is(err, errNoFreeze), errors.Is(err, stored.ErrNewer):
			continue
		case errors.Is(err, stored.ErrDamaged):
			freeze.Lifted = &approval.Decision{} // its id says that it is old enough
		case err != nil:
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
	if older.Unreadable {
		return "mints are frozen: the record of whether the storage was restored can't be read"
	}
	return fmt.Sprintf("mints are frozen since %s: %s was written by an engine on newer storage than this, or on a copy of it (epoch %d, here %d)",
		stamp(older.At), older.Base, older.Found, older.Own)
}
