package lifecycle

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// witnessWait bounds the asking what has become of a credential: its end waits.
const witnessWait = 5 * time.Second

// muteFor is how long a target is asked for nothing after one such question took
// witnessWait: those whose ends wait behind it are many.
const muteFor = time.Minute

// witness asks the target what has become of a credential until now, if it can tell.
// An end that is tried again asks again, since the credential may have been used in
// between; what was seen first is kept beside it, since a try whose answer was lost may
// have ended the credential.
func (m *Manager) witness(ctx context.Context, order EndOrder, grant *ledger.Grant) {
	witness, able := order.Provider.(provider.Witness)
	if !able || grant.State == ledger.Dead || grant.Ending.State() == ledger.Failed {
		return
	}
	seen, err := m.ask(ctx, witness, order)
	if err != nil {
		m.Log.Warn("what has become of a credential is not known", "grant_id", order.ID, "target", order.Target, "error", err)
		if seen = nil; grant.AtEnd != nil {
			seen = map[string]string{} // what was seen first is all that is known
		}
	}
	grant.AtEnd = afterwards(grant.AtEnd, seen)
}

var errMute = errors.New("the target did not answer such a question lately")

func (m *Manager) ask(ctx context.Context, witness provider.Witness, order EndOrder) (map[string]string, error) {
	lane := m.lane(order.Target)
	if m.Now().UnixNano() < lane.mute.Load() {
		return nil, errMute
	}
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	seen, err := witness.Witness(ctx, order.Handle)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		lane.mute.Store(m.Now().Add(muteFor).UnixNano())
	}
	return seen, err
}

// firstSeen starts the keys of what was seen before the first try of an end.
const firstSeen = "first_"

// afterwards is what is kept of what was seen before the first try of an end, and
// before the last one.
func afterwards(before, now map[string]string) map[string]string {
	if before == nil || now == nil {
		return now
	}
	kept, first := maps.Clone(now), map[string]string{}
	for key, value := range before {
		if strings.HasPrefix(key, firstSeen) {
			first[key] = value
		}
	}
	if len(first) == 0 && !maps.Equal(before, now) {
		for key, value := range before {
			first[firstSeen+key] = value
		}
	}
	maps.Copy(kept, first)
	return kept
}
