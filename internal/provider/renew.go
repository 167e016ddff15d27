package provider

import (
	"context"
	"time"
)

// Renewer is a Provider that can move the end of a credential. Compile is asked
// first, with Bounds that say so, and refuses where it is of a kind that can't be
// moved.
type Renewer interface {
	// Renew gives a credential a policy that differs from its own in its end only.
	// It is idempotent, and never makes a credential that is not there.
	Renew(ctx context.Context, handle Handle, policy Policy, expiresAt time.Time) error
}
