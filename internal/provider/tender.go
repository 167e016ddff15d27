package provider

import "context"

// Tender is a Provider whose own access to its target ends where nobody keeps it up.
type Tender interface {
	// Tend keeps it up until ctx ends, or says why it can't. It is called each minute
	// for each target that is configured, with a context that lasts a little longer:
	// so it ends with the target's configuration, and with the mount.
	Tend(ctx context.Context) error
}
