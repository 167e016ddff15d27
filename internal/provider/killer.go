package provider

import "context"

// Killer is a Provider that can kill a credential with fewer calls than Revoke,
// and leave what is dead to be tidied up later.
type Killer interface {
	// Kill ends the credential at the target. It leaves something behind, for Tidy,
	// only where the target is asked too much: then what kills the others goes first.
	// It is idempotent, and returns nil only when the credential is dead.
	Kill(ctx context.Context, handle Handle) (left bool, err error)
	// Tidy removes what Kill has left. It is idempotent.
	Tidy(ctx context.Context, handle Handle) error
}

// CleanupBlocked is an error of Tidy: the credential is disabled, and something that
// does not belong to the engine keeps what is left from being removed.
type CleanupBlocked struct {
	Reason string // what is in the way, and whose it is
	Remedy string // a statement or command that removes it
}

func (e *CleanupBlocked) Error() string { return e.Reason + "; to remove it: " + e.Remedy }

// Unconfirmed is an error of Revoke and Kill: everything that is known of the
// credential was disabled, but the target could not confirm that it is dead. Its
// grant is never called revoked.
type Unconfirmed struct {
	Reason string // what could not be asked, and what would let it be asked
}

func (e *Unconfirmed) Error() string { return "could not be confirmed: " + e.Reason }
