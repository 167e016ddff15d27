package provider

import "context"

// BatchRevoker is a Provider that can end many credentials with fewer calls than one
// after the other.
type BatchRevoker interface {
	// RevokeBatch ends credentials that hang on a base, see Committed, all of which the
	// ledger says are ending. Revoke of each costs nothing after it. An error says
	// nothing of any one of them.
	RevokeBatch(ctx context.Context, handles []Handle) error
}
