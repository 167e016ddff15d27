package aws

import (
	"context"
	"fmt"
	"sync"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	// dateUnit is the resolution of the time that AWS answers, which is rounded down.
	dateUnit = time.Second
	// skewTrip is the longest round trip whose answer still tells the time well enough.
	skewTrip = 10 * time.Second
)

// skew measures by how much the engine's clock is ahead of AWS's.
type skew struct {
	mu    sync.Mutex
	now   func() time.Time // nil: time.Now
	ahead time.Duration
	known bool
}

// skews are those of one mount, by the endpoints that are asked. They outlive the providers, which are opened again
// whenever a target's configuration is written.
type skews struct {
	mu sync.Mutex
	by map[[2]string]*skew
}

func (s *skews) of(settings provider.Settings) *skew {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]string{settings.Text("iam_endpoint"), settings.Text("sts_endpoint")}
	if s.by == nil {
		s.by = map[[2]string]*skew{}
	}
	if s.by[key] == nil {
		s.by[key] = &skew{}
	}
	return s.by[key]
}

// use has the skew of another clock measured from now on: the one that expiries are computed with.
func (s *skew) use(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// wall is the engine's clock.
func (s *skew) wall() time.Time {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	if now == nil {
		now = time.Now
	}
	return now()
}

// hear notes what AWS's clock said in a round trip that began and ended at those times of the engine's clock.
func (s *skew) hear(said, began, ended time.Time) {
	trip := ended.Sub(began)
	if said.IsZero() || trip < 0 || trip > skewTrip {
		return
	}
	middle := began.Round(0).Add(trip / 2) // Round drops the monotonic reading: this is about wall clocks
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead, s.known = middle.Sub(said.Add(dateUnit/2)), true
}

func (s *skew) measured() (ahead time.Duration, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ahead, s.known
}

// measure has each attempt of a client's calls tell AWS's time.
func (s *skew) measure(stack *middleware.Stack) error {
	return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("PrecisionSkew", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		began := s.wall()
		out, metadata, err := next.HandleFinalize(ctx, in)
		said, _ := awsmiddleware.GetServerTime(metadata)
		s.hear(said, began, s.wall())
		return out, metadata, err
	}), middleware.After)
}

// hearSession notes when STS has issued a session of that life, where its answer did not tell the time otherwise.
func (s *skew) hearSession(expires *time.Time, life time.Duration, began time.Time) {
	if _, known := s.measured(); !known && expires != nil {
		s.hear(expires.Add(-life), began, s.wall())
	}
}

// describe says how far apart the clocks are, or nothing where that does no harm.
func describe(ahead time.Duration) string {
	switch {
	case ahead > provider.SkewWarning:
		return fmt.Sprintf("Vault's clock is %s ahead of AWS's: credentials live on at AWS for as long after they expire; above %s none is minted. Set Vault's clock", ahead.Round(time.Second), provider.SkewLimit)
	case ahead < -provider.SkewWarning:
		return fmt.Sprintf("Vault's clock is %s behind AWS's: credentials expire at AWS that much before their leases; above %s none is minted. Set Vault's clock", (-ahead).Round(time.Second), provider.SkewLimit)
	default:
		return ""
	}
}

// skewWarnings are those of a target, or of a credential that was just minted.
func (c *client) skewWarnings() []string {
	ahead, known := c.skew.measured()
	if text := describe(ahead); known && text != "" {
		return []string{text}
	}
	return nil
}

// checkSkew refuses to mint while the clocks are too far apart for an expiry to mean anything.
func (c *client) checkSkew() error {
	if ahead, known := c.skew.measured(); known && ahead.Abs() > provider.SkewLimit {
		return fmt.Errorf("%w: %s", provider.ErrUnavailable, describe(ahead))
	}
	return nil
}

// awaitSkew is checkSkew before a mint: where the last answer told that the clocks are too far apart, AWS is asked again,
// since somebody may have set the clock.
func (c *client) awaitSkew(ctx context.Context) error {
	if c.checkSkew() == nil {
		return nil
	}
	if _, err := c.callerIdentity(ctx); err != nil {
		return err
	}
	return c.checkSkew()
}

// ClockSkew implements provider.ClockSkewed.
func (a *account) ClockSkew() (ahead time.Duration, known bool) { return a.client.skew.measured() }
