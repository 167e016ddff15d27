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
