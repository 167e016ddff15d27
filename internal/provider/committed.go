package provider

import (
	"context"
	"time"
)

// Committed is a Provider some of whose credentials can't be ended one by one:
// Revoke commits, to what they hang on, a policy that is computed from all
// grants that are to be dead. The ledger says that such a grant is ending before
// Revoke is called, and keeps it in its index until the credential has expired for
// good.
type Committed interface {
	// Base names what a credential hangs on, such as the role that a session
	// was assumed from. It is empty for a credential that is ended by itself.
	Base(Handle) string
}

// Keeper is a Committed provider that keeps up what it has committed.
type Keeper interface {
	Committed
	// Remember gives the provider the mount's ledger, before anything else but
	// Compile is asked of it. It returns at once.
	Remember(Ledger)
	// Keep sees to it that what has been committed to a base is in force, and that
	// what is no longer needed goes. It is called once a minute for each base that
	// grants hang on, and when the ledger has just been read into memory.
	Keep(ctx context.Context, base string) error
	// Forget is told of a handle that nothing is minted with after all.
	Forget(Handle)
}

// Ledger is what a Keeper may ask of the engine's memory.
type Ledger interface {
	// Await waits until the ledger is in memory, but not for long.
	Await(context.Context) error
	// Identity tells this mount's ledger from all others.
	Identity(context.Context) (mount, ledger string, err error)
	// OnBase waits until the ledger is in memory, and returns the grants that hang
	// on a base: those that live, and those that were ended, until an hour after
	// they have expired.
	OnBase(ctx context.Context, base string) ([]Hanging, error)
	// EndEarly writes down that grants on a base are to end that nobody has asked
	// to end: those whose handles early picks. Where early is nil it writes all the
	// same: an engine that may not write to its storage any more, since another has
	// taken its place, must not change a target. On an error nothing may be changed.
	EndEarly(ctx context.Context, base string, early func(Handle) bool) error
	// FoundDenied is EndEarly of grants that a Deny at their target covers already, though the ledger calls them live:
	// they were revoked by an engine on other storage, as before this one was restored from a snapshot.
	FoundDenied(ctx context.Context, base string, denied func(Handle) bool) error
	// Recorded returns what Record wrote last for a base; nothing where it wrote nothing.
	Recorded(ctx context.Context, base string) ([]byte, error)
	// Record keeps something of a base in storage for the provider. It fails where an engine may not write any more, and
	// then nothing may be changed at the target.
	Record(ctx context.Context, base string, record []byte) error
	// Older is told that a base bears the epoch of an engine on newer storage than this, or on a copy of it. No more is
	// minted until a person has accepted that.
	Older(ctx context.Context, base string, found, own uint64) error
	// Passive says whether nothing is changed at targets but for revocations that are asked for, as after Older.
	Passive() bool
	// Elapsed is monotonic time since some moment.
	Elapsed() time.Duration
	// Life ends with the mount. What goes on behind requests hangs on it.
	Life() context.Context
	Now() time.Time
}

// Hanging is a grant that hangs on a base.
type Hanging struct {
	Handle    Handle
	ExpiresAt time.Time
	Over      bool // it was ended, or is to end, before it expires
}
