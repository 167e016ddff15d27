package provider

import "time"

// ClockSkewed is a Provider that knows how far the clock of its target is from the one that expiries are computed with.
type ClockSkewed interface {
	// ClockSkew returns by how much the engine's clock is ahead of the target's, as the target's last answer told it;
	// negative where it is behind. known is false before the first answer.
	ClockSkew() (ahead time.Duration, known bool)
}

const (
	// SkewWarning is the clock skew, in either direction, above which operators are warned.
	SkewWarning = 5 * time.Second
	// SkewLimit is the clock skew, in either direction, above which nothing is minted.
	SkewLimit = time.Minute
)
