package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/telemetry"
)

// lane is what all that is done on one target goes through, so that a target
// that hangs takes room from nobody else.
type lane struct {
	*circuit.Circuit
	slots chan struct{} // one for each end under way
	mute  atomic.Int64  // until when no provider.Witness is asked, in ns since 1970
}

// Opened tells the manager that a target's provider has been opened anew: what
// was known of the one before, such as that it does not answer, is forgotten.
func (m *Manager) Opened(target, kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lanes[target] = m.newLane(target)
	m.Metrics.Know(target, kind)
}

// Forget drops what is known of a target that is configured no more.
func (m *Manager) Forget(target string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.lanes, target)
	m.Metrics.Forget(target)
}

// State says how the calls of a target are doing.
func (m *Manager) State(target string) circuit.State { return m.lane(target).State() }

func (m *Manager) lane(target string) *lane {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.lanes[target]
	if known == nil {
		known = m.newLane(target)
		m.lanes[target] = known
	}
	return known
}

func (m *Manager) newLane(target string) *lane {
	changed := func(down bool, err error) {
		if down {
			m.Log.Warn("a target does not answer", "target", target, "error", err)
		} else {
			m.Log.Info("a target answers again", "target", target)
		}
	}
	return &lane{Circuit: circuit.New(m.Now, verdictOf, changed), slots: make(chan struct{}, maxEnds)}
}

// call has a target do something when it is its turn, and counts it. The error
// is an *UnavailableError where it was not asked.
func (m *Manager) call(ctx context.Context, target string, asked provider.Provider, kind circuit.Kind, work func(context.Context) error) error {
	operation := telemetry.Revoke
	if kind == circuit.Mint {
		operation = telemetry.Mint
	}
	called := false
	err := m.lane(target).Do(ctx, kind, func(ctx context.Context) error {
		called = true
		started := m.Now()
		defer func() { m.Metrics.Took(target, operation, m.Now().Sub(started)) }()
		return work(ctx)
	})
	if err != nil && !called {
		err = unavailable(target, err)
	}
	if kind != circuit.Mint {
		m.Metrics.Count(target, operation, outcomeOf(asked, err))
	}
	return err
}

// UnavailableError is returned where a target was not asked because it does not
// answer, or because too much is asked of it. Vault shows it with status 503.
type UnavailableError struct {
	Target string
	Cause  error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("target %q is not asked now: %v; it is tried again within a minute", e.Target, e.Cause)
}

// Code implements logical.HTTPCodedError.
func (e *UnavailableError) Code() int { return http.StatusServiceUnavailable }

func (e *UnavailableError) Unwrap() error { return e.Cause }

// unavailable leaves the end of a caller's own context as it is.
func unavailable(target string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &UnavailableError{Target: target, Cause: err}
}

// outcomeOf says how an operation on a target came out.
func outcomeOf(asked provider.Provider, err error) telemetry.Outcome {
	var refused *invalid.Error
	var denied *invalid.Denied
	var down *circuit.DownError
	var blocked *provider.CleanupBlocked
	throttler, able := asked.(provider.Throttler)
	switch {
	case err == nil:
		return telemetry.OK
	case errors.As(err, &blocked):
		return telemetry.Blocked
	case errors.As(err, &down):
		return telemetry.Down
	case errors.Is(err, circuit.ErrBusy):
		return telemetry.Busy
	case errors.As(err, &refused), errors.As(err, &denied):
		return telemetry.Refused
	case errors.Is(err, ErrTooLate):
		return telemetry.TooLate
	case errors.Is(err, ErrOvertaken):
		return telemetry.Overtaken
	case timedOut(err):
		return telemetry.Timeout
	case errors.Is(err, context.Canceled):
		return telemetry.HungUp
	case notReached(err):
		return telemetry.Unreachable
	case able && throttler.Throttled(err):
		return telemetry.Throttled
	default:
		return telemetry.Failed
	}
}

// Unanswered says whether an end failed because its target does not answer,
// whatever the grant.
func Unanswered(err error) bool {
	var unavailable *UnavailableError
	return errors.Is(err, ErrStillEnding) || errors.As(err, &unavailable) || verdictOf(err) == circuit.Unanswered
}

// verdictOf says what the outcome of a call says of whether its target answers.
func verdictOf(err error) circuit.Verdict {
	switch {
	case timedOut(err):
		return circuit.Unanswered
	case errors.Is(err, context.Canceled):
		return circuit.Nothing
	case notReached(err):
		return circuit.Unanswered
	default:
		return circuit.Answered
	}
}

func timedOut(err error) bool {
	var fromNetwork net.Error
	return errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &fromNetwork) && fromNetwork.Timeout())
}

// notReached says whether an error is of the connection. What comes from the
// target itself is none.
func notReached(err error) bool {
	var fromNetwork *net.OpError
	var fromHTTP *url.Error // that no answer came
	return errors.As(err, &fromNetwork) || errors.As(err, &fromHTTP) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
