package aws

// Throttled implements provider.Throttler.
func (a *account) Throttled(err error) bool { return throttled(err) }
