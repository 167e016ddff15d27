package revocation

import "time"

// passed is the time that has passed for certain at AWS, whose clock decides when a session expires. A clock here that
// is ahead, steps ahead, or is another node's must not withdraw a Deny early.
//
// It is what AWS said last, and as much monotonic time as has gone by since. Before AWS has said anything it is the
// earlier of the wall clock and of what the wall clock said at the start with the monotonic time since.
//
// The caller holds mu, as for all of the clock.
func (c *Committer) passed() time.Time {
	if !c.said.IsZero() {
		return c.said.Add(c.elapsed() - c.saidAt)
	}
	wall, steady := c.Now().Round(0), c.started.Add(c.elapsed()-c.startedAt) // Round drops the monotonic reading
	if wall.Before(steady) {
		return wall
	}
	return steady
}

// hear notes what AWS's clock has said.
func (c *Committer) hear(said time.Time) {
	if !said.IsZero() {
		c.said, c.saidAt = said.Round(0), c.elapsed()
	}
}

// elapsed is monotonic time since some moment.
func (c *Committer) elapsed() time.Duration { return c.Elapsed() }

// expires says whether a session's own expiry is so near, or has passed for so long, that a Deny would come too late to
// matter. AWS's clock decides; where that is not known yet, a commit asks first, unless this one would have to be wrong
// by more than a session's longest life.
func (c *Committer) expires(session Session) bool {
	if session.ExpiresAt.IsZero() {
		return false
	}
	if c.said.IsZero() {
		return !c.passed().Before(session.ExpiresAt.Add(c.longest()))
	}
	return session.ExpiresAt.Sub(c.passed()) <= nearEnd
}
