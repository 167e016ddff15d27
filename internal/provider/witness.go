package provider

import "context"

// Witness is a Provider that can tell what has become of a credential until now.
type Witness interface {
	// Witness is asked right before each Revoke, and not for long. What
	// it returns is kept with the grant for people to read: what the target's answers
	// prove, and no secret. An end does not depend on it.
	Witness(ctx context.Context, handle Handle) (map[string]string, error)
}
