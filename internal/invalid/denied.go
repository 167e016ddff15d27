package invalid

// Denied says that what was asked for is in order, and not allowed to who asks, or
// not now. Handlers answer it with status 403.
type Denied struct {
	Problem string // why it is not allowed, without a full stop
	Remedy  string // when or how it would be, without a full stop; may be empty
}

// Deny reports that something is not allowed, and what would be.
func Deny(problem, remedy string) *Denied { return &Denied{Problem: problem, Remedy: remedy} }

// Error implements error.
func (d *Denied) Error() string {
	if d.Remedy == "" {
		return "not allowed: " + d.Problem
	}
	return "not allowed: " + d.Problem + "; " + d.Remedy
}
