package provider

// Throttler is a Provider whose target may say that it is asked too much. Such
// an answer says nothing against the request, and that the target is there.
type Throttler interface {
	// Throttled says whether an error of Mint or Revoke is such an answer.
	Throttled(error) bool
}
