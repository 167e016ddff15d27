package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

const (
	// maxEnds is how many grants of one target are being ended at once. Vault
	// revokes up to 200 leases side by side.
	maxEnds = 256
	// endWait is how long one who asks for an end waits for it: Vault gives a
	// revoke no deadline, and one that hangs would hold up a step-down.
	endWait = 20 * time.Second
	// abandonWait is how long the caller of a mint that has failed waits for what
	// it has left to be ended.
	abandonWait = 5 * time.Second
	// endLimit is how long an end goes on after that.
	endLimit = 2 * time.Minute
	// rememberTimeout bounds the writing down of an end that has failed.
	rememberTimeout = 5 * time.Second
	// rounding is how much sooner than its credential a lease ends by itself: it is
	// in whole seconds.
	rounding = time.Second
)

var (
	// ErrStillEnding is returned to one who has waited long enough, while the
	// end goes on.
	ErrStillEnding = errors.New("the target has not ended the grant yet; that goes on")
	// ErrBusy is returned where too many grants of a target are being ended already.
	ErrBusy = errors.New("too many grants of the target are being ended at once")
)

// EndOrder names a grant that is to end, as far as who asks for it knows it.
type EndOrder struct {
	Provider provider.Provider
	ID       string
	Target   string // the target's name
	System   string // see ledger.Grant
	Handle   provider.Handle
	// Role and Task are what the lease knows, for a grant whose record is lost.
	Role, Task string
	// Cause is empty for the end of a lease: the clock says whether it was
	// revoked or has expired. What the ledger knows already counts for more.
	Cause ledger.Cause
	// By and Reason say who has requested the end, and what for, where Cause is
	// ledger.Requested.
	By, Reason string
	// LeaseID is the lease's, where Vault asks for its end and tells it.
	LeaseID string
	// Unasked is for an end that Vault has not just asked for. Storage is made
	// to take a write first: a plugin whose Vault has lost the mount, or is
	// gone, must not act on a target.
	Unasked bool
}

// End ends a grant. It is idempotent, joins an end of the grant that is under
// way, and returns nil only when the credential is dead at the target. It
// returns ErrStillEnding after 20 s while the end goes on behind it.
//
// Where a credential is ended by itself, what kills comes first, then one write
// to storage; see provider.Committed for the others.
func (m *Manager) End(ctx context.Context, storage logical.Storage, order EndOrder) error {
	if grant, known := m.Index.Get(order.ID); known && grant.State == ledger.Dead && !order.Unasked {
		return m.recorded(order.ID) // what is left is the sweeper's, and nobody else waits for it
	}
	return m.act(ctx, order, joins, func(ctx context.Context) error {
		if !order.Unasked {
			m.killing.Add(1)
			defer m.killing.Add(-1)
		}
		return m.end(ctx, storage, order, false)
	})
}

// kind is what an actor does, and so who may join it.
type kind int

const (
	joins    kind = iota // ends, and joins an end that is under way
	begins               // ends, and waits for whatever is under way
	abandons             // likewise, and its caller waits for abandonWait only
	renews               // renews, and waits likewise; an end that comes waits for it
)

// actor is what is under way of one grant: its end, or a renewal.
type actor struct {
	kind kind
	done chan struct{}
	err  error // once done is closed
}

// act has a grant's one actor do the work, and waits for it. Where there is one
// already, it is joined, or else waited for.
func (m *Manager) act(ctx context.Context, order EndOrder, kind kind, work func(context.Context) error) error {
	id, slots := order.ID, m.lane(order.Target).slots
	wait := endWait
	if kind == abandons {
		wait = abandonWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		m.mu.Lock()
		running, known := m.actors[id]
		if !known {
			running = &actor{kind: kind, done: make(chan struct{})}
			m.actors[id] = running
		}
		m.mu.Unlock()
		if !known {
			select {
			case slots <- struct{}{}:
				go func() { _ = m.finish(id, running, m.run(slots, work)) }() // the error is for those who wait
			case <-timer.C:
				return m.finish(id, running, ErrBusy)
			case <-ctx.Done():
				return m.finish(id, running, ErrBusy)
			case <-m.life.Done():
				return m.finish(id, running, ErrClosed)
			}
		}
		select {
		case <-running.done:
			if !known || (kind == joins && running.kind != renews) {
				return running.err
			}
		case <-timer.C:
			return ErrStillEnding
		case <-ctx.Done():
			return ctx.Err()
		case <-m.life.Done():
			return ErrClosed
		}
	}
}

// run does an actor's work on a context that outlives who asked for it, and
// gives its slot back.
func (m *Manager) run(slots <-chan struct{}, work func(context.Context) error) error {
	defer func() { <-slots }()
	ctx, cancel := context.WithTimeout(m.life, endLimit)
	defer cancel()
	return work(ctx)
}

func (m *Manager) finish(id string, running *actor, err error) error {
	m.mu.Lock()
	delete(m.actors, id)
	m.mu.Unlock()
	running.err = err
	close(running.done)
	return err
}

// find returns a grant from the index, or from storage where the index does not
// know it.
func (m *Manager) find(ctx context.Context, storage logical.Storage, id string) (ledger.Grant, error) {
	if grant, known := m.Index.Get(id); known {
		return grant, nil
	}
	if grant, known := m.Held(id); known {
		return grant, nil
	}
	return ledger.Get(ctx, storage, id)
}

// end is End without its waiting. With again, it kills what is finished, too.
func (m *Manager) end(ctx context.Context, storage logical.Storage, order EndOrder, again bool) error {
	if order.Unasked {
		// Before it is written down that the grant ends, again and again.
		if err := m.lane(order.Target).Refuses(circuit.Revoke); err != nil {
			return unavailable(order.Target, err)
		}
	}
	base := baseOf(order.Provider, order.Handle)
	grant, err := m.find(ctx, storage, order.ID)
	switch {
	case err == nil && grant.Finished() && grant.Ending == ledger.TargetMoved:
		grant = found(grant) // its target is the one again that it was minted on
	case err == nil && grant.State == ledger.Ended && !again,
		err == nil && grant.State == ledger.Dead && !again && !order.Unasked: // what is left is the sweeper's
		return m.recorded(order.ID)
	case err == nil && grant.Finished():
		return m.revoke(ctx, order)
	case err == nil:
	case errors.Is(err, stored.ErrNewer):
		m.Log.Warn("ending a grant whose record a newer plugin wrote, and which stays as it is", "grant_id", order.ID, "target", order.Target, "error", err)
		return m.endUnknown(ctx, order, base)
	case errors.Is(err, ledger.ErrDamaged), base != "" && errors.Is(err, ledger.ErrNotFound):
		// The lease knows enough, and the record is replaced by what it knows. What is committed is computed from
		// the ledger, so it has to know the grant.
		m.Log.Warn("ending a grant that the ledger has lost", "grant_id", order.ID, "target", order.Target, "error", err)
		if grant, err = lost(order); err != nil {
			return errors.Join(err, m.revoke(ctx, order))
		}
		if base != "" && !m.Now().Before(grant.ExpiresAt) {
			return m.revoke(ctx, order)
		}
	case errors.Is(err, ledger.ErrNotFound):
		// The lease knows enough to kill; there is no record to close.
		m.Log.Warn("ending a grant that the ledger does not know", "grant_id", order.ID, "target", order.Target)
		return m.revoke(ctx, order)
	case base != "":
		return err
	default:
		// A record that can't be read must not keep the credential alive.
		return errors.Join(err, m.revoke(ctx, order))
	}

	grant.Handle, grant.Base = order.Handle, base
	grant.LeaseID = cmp.Or(order.LeaseID, grant.LeaseID)
	if grant.State != ledger.Ending && grant.State != ledger.Dead {
		m.blame(order, &grant)
	}
	if order.Unasked || (base != "" && grant.State != ledger.Ending && grant.Live(m.Now().Add(rounding))) {
		if grant.State != ledger.Dead {
			grant.State = ledger.Ending
		}
		if _, err := m.save(ctx, storage, order, grant); err != nil {
			return err
		}
	}
	before := grant
	left, err := m.kill(ctx, order, &grant, again)
	if err = m.judgeUnconfirmed(&grant, err); err != nil {
		m.remember(storage, grant, grant.Unconfirmed != before.Unconfirmed || !maps.Equal(before.AtEnd, grant.AtEnd))
		return err
	}
	if grant.State != ledger.Dead {
		grant.EndedAt = m.Now().UTC()
	}
	grant.State = grant.Ending.State()
	if left {
		grant.State = ledger.Dead
	}
	unrecorded, err := m.save(ctx, storage, order, grant)
	if err != nil {
		return err
	}
	if left && m.Untidy != nil {
		m.Untidy(storage)
	}
	m.Log.Info("grant ended", "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task, "ending", grant.Ending)
	if unrecorded {
		return ErrUnrecorded
	}
	return nil
}

// endUnknown ends a grant whose record must stay as it is. What is committed is computed from the index, so that has
// to know it.
func (m *Manager) endUnknown(ctx context.Context, order EndOrder, base string) error {
	if base == "" {
		err := m.revoke(ctx, order)
		if err == nil {
			m.Index.Release(order.ID)
		}
		return err
	}
	grant, err := lost(order)
	if err != nil || !m.Now().Before(grant.ExpiresAt) {
		return errors.Join(err, m.revoke(ctx, order))
	}
	m.blame(order, &grant)
	grant.State, grant.Base = ledger.Ending, base
	m.Index.Update(grant, m.Now())
	if err := m.revoke(ctx, order); err != nil {
		return err
	}
	grant.State, grant.EndedAt = grant.Ending.State(), m.Now().UTC()
	m.Index.Update(grant, m.Now())
	return nil
}

// blame writes down why a grant ends.
func (m *Manager) blame(order EndOrder, grant *ledger.Grant) {
	grant.Ending, grant.EndedBy, grant.EndReason = m.cause(order, *grant), order.By, order.Reason
}

func (m *Manager) cause(order EndOrder, grant ledger.Grant) ledger.Cause {
	switch {
	case order.Cause != "":
		return order.Cause
	case grant.Live(m.Now().Add(rounding)):
		return ledger.LeaseRevoked
	default:
		return ledger.LeaseExpired
	}
}

// judgeUnconfirmed records in the grant whether the target confirmed that the credential
// is dead. An error that says it could not is nil once the credential has expired: the
// target stops honouring it by itself, and the grant can be closed.
func (m *Manager) judgeUnconfirmed(grant *ledger.Grant, err error) error {
	var unconfirmed *provider.Unconfirmed
	switch {
	case err == nil && grant.State == ledger.Dead: // it was only cleaned up, which confirms nothing
	case err == nil:
		grant.Unconfirmed = ""
	case errors.As(err, &unconfirmed):
		grant.Unconfirmed = unconfirmed.Reason
		if !m.Now().Before(grant.ExpiresAt) {
			return nil
		}
	}
	return err
}

// kill ends a credential, of which the grant is told what the target knew before.
// What is dead is tidied up, unless it may have come to life again; of others it says
// whether something is left that has to be.
func (m *Manager) kill(ctx context.Context, order EndOrder, grant *ledger.Grant, again bool) (left bool, err error) {
	killer, able := order.Provider.(provider.Killer)
	ctx, notes := provider.WithNotes(ctx)
	defer func() { m.note(*grant, notes.All(), &grant.AtEnd) }()
	err = m.ending(ctx, order, func(ctx context.Context, handle provider.Handle) (err error) {
		m.witness(ctx, order, grant)
		switch {
		case !able:
			return order.Provider.Revoke(ctx, handle)
		case grant.State == ledger.Dead && !again:
			return killer.Tidy(ctx, handle)
		}
		left, err = killer.Kill(ctx, handle)
		return err
	})
	return left, err
}

// warningAtEnd is the key of ledger.Grant.AtEnd that has a provider's notes.
const warningAtEnd = "warning"

// note logs a provider's notes about a revocation, and keeps them with the grant.
func (m *Manager) note(grant ledger.Grant, notes []string, kept *map[string]string) {
	if len(notes) == 0 {
		return
	}
	for _, note := range notes {
		m.Log.Warn(note, "grant_id", grant.ID, "target", grant.Target, "role", grant.Role, "task", grant.Task)
	}
	with := maps.Clone(*kept)
	if with == nil {
		with = map[string]string{}
	}
	with[warningAtEnd] = strings.Join(notes, "; ")
	*kept = with
}

func (m *Manager) revoke(ctx context.Context, order EndOrder) error {
	return m.ending(ctx, order, order.Provider.Revoke)
}

// ending has a target end a credential, by one of its provider's ways.
func (m *Manager) ending(ctx context.Context, order EndOrder, way func(context.Context, provider.Handle) error) error {
	kind := circuit.Revoke
	if baseOf(order.Provider, order.Handle) != "" {
		kind = circuit.Commit
	}
	err := m.call(ctx, order.Target, order.Provider, kind, func(ctx context.Context) error { return way(ctx, order.Handle) })
	var unavailable *UnavailableError
	if err == nil || errors.As(err, &unavailable) { // which means something to Vault as it is
		return err
	}
	return fmt.Errorf("ending grant %s on target %q: %w", order.ID, order.Target, err)
}

// remember writes down that a grant is to end, where ending it has failed, so
// that it is tried again even if nobody asks. What is written already is written
// again only where something new is known.
func (m *Manager) remember(storage logical.Storage, grant ledger.Grant, news bool) {
	if (grant.State == ledger.Ending && !news) || grant.State == ledger.Dead || m.life.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.life, rememberTimeout)
	defer cancel()
	grant.State = ledger.Ending
	if err := m.write(ctx, storage, grant); err != nil {
		m.Log.Error("that a grant is to end could not be written down", "grant_id", grant.ID, "target", grant.Target, "error", err)
	}
}
