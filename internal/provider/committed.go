package provider

// Committed is a Provider some of whose credentials can't be ended one by one:
// Revoke commits, to what they hang on, a policy that is computed from all
// grants that are to be dead. The ledger says that such a grant is ending before
// Revoke is called, and keeps it in its index until the credential expires.
type Committed interface {
	// Base names what a credential hangs on, such as the role that a session
	// was assumed from. It is empty for a credential that is ended by itself.
	Base(Handle) string
}
