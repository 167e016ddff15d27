package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// source is where the engine's own token comes from.
type source interface {
	// login returns a token and how long it lives.
	login(context.Context) (lease, error)
	// again says whether login can be done again, for a new token.
	again() bool
}

// lease is a token of the engine's own.
type lease struct {
	token     string
	ttl       time.Duration // from now; 0 for one without an end
	renewable bool
}

// given is a token that the operator has given.
type given string

func (g given) login(context.Context) (lease, error) { return lease{token: string(g)}, nil }

func (g given) again() bool { return false }

// appRole is a login of the engine's own.
type appRole struct {
	client              *client
	mount, role, secret string
}

func (a *appRole) again() bool { return true }

func (a *appRole) login(ctx context.Context) (lease, error) {
	var answer authAnswer
	body := map[string]string{"role_id": a.role, "secret_id": a.secret}
	err := a.client.send(ctx, "", http.MethodPost, "auth/"+a.mount+"/login", body, &answer)
	switch status := statusOf(err); {
	case status == http.StatusBadRequest || status == http.StatusForbidden:
		return lease{}, &refusedLogin{err}
	case err != nil:
		return lease{}, err
	}
	if answer.Auth.Token == "" {
		return lease{}, errors.New("vault: the answer to the login holds no token")
	}
	return answer.lease(), nil
}

// authAnswer is an answer with a token.
type authAnswer struct {
	Auth struct {
		Token            string   `json:"client_token"`
		Accessor         string   `json:"accessor"`
		Policies         []string `json:"policies"`
		TokenPolicies    []string `json:"token_policies"`
		IdentityPolicies []string `json:"identity_policies"`
		EntityID         string   `json:"entity_id"`
		Type             string   `json:"token_type"`
		Seconds          int64    `json:"lease_duration"`
		Uses             int      `json:"num_uses"`
		Renewable        bool     `json:"renewable"`
		Orphan           bool     `json:"orphan"`
	} `json:"auth"`
}

func (a authAnswer) lease() lease {
	return lease{token: a.Auth.Token, ttl: time.Duration(a.Auth.Seconds) * time.Second, renewable: a.Auth.Renewable}
}

const (
	// A token is renewed after this part of its life: there is time for more tries.
	renewAfter = 2.0 / 3
	// What could not be renewed is tried again after retryAfter, or sooner where
	// less is left.
	retryAfter = 30 * time.Second
	soonest    = 500 * time.Millisecond
	// patience bounds each request about the token: a hanging target must not take all
	// the time that the token has left.
	patience = 10 * time.Second
	// A login that was refused is tried again after firstPause, and after four times as
	// long each time up to lastPause: Vault locks an AppRole after five refusals of which
	// none is older than a quarter of an hour, for everybody who logs in with it.
	// https://developer.hashicorp.com/vault/docs/concepts/user-lockout
	firstPause = time.Minute
	lastPause  = 16 * time.Minute
	// idle is how long a token is left alone that has no end, or that can't be
	// renewed: its operator may have done something about it.
	idle = 10 * time.Minute
)

// session is the engine's own token at a target. It is renewed when it is used, and
// by Tend where nobody uses it.
type session struct {
	client *client
	source source
	now    func() time.Time

	turn chan struct{} // held by who logs in or renews
	mu   sync.Mutex
	held held
}

// held is what is known of the token. The zero value is none.
type held struct {
	lease
	life time.Duration // the longest that it was told to live, when it was new
	ends time.Time     // zero for never
	next time.Time     // when it is to be renewed, or looked at
	why  error         // that it could not be renewed, last

	pause time.Duration // until the next login, after one that was refused; 0 after none
}

// refusedLogin says that the target does not take what the engine logs in with.
type refusedLogin struct{ reason error }

func (e *refusedLogin) Error() string { return "logging in was refused: " + e.reason.Error() }

func (e *refusedLogin) Unwrap() error { return e.reason }

// tokenless says that a request was not sent since there is no token for it. What the
// target has said to that end is no answer to the request.
type tokenless struct{ reason error }

func (e *tokenless) Error() string { return "the engine's own token: " + e.reason.Error() }

func (e *tokenless) Unwrap() error { return e.reason }

func newSession(client *client, source source, now func() time.Time) *session {
	return &session{client: client, source: source, now: now, turn: make(chan struct{}, 1)}
}

func (s *session) current() held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *session) hold(changed held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = changed
}

// usable says whether the token lives, for all that is known.
func (s *session) usable(known held) bool {
	return known.token != "" && (known.ends.IsZero() || s.now().Before(known.ends))
}

// get returns a token that lives, for all that is known. What is due is done first,
// by one caller; others go on with a token that still lives.
func (s *session) get(ctx context.Context) (string, error) {
	known := s.current()
	if s.usable(known) && s.now().Before(known.next) {
		return known.token, nil
	}
	if s.usable(known) {
		select {
		case s.turn <- struct{}{}:
		default:
			return known.token, nil // it is being renewed
		}
	} else {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer func() { <-s.turn }()
	renewed, err := s.refresh(ctx)
	if err != nil && !s.usable(renewed) {
		return "", err
	}
	return renewed.token, nil
}

// refresh does what is due, and says what is held then. Who calls it has the turn.
func (s *session) refresh(ctx context.Context) (held, error) {
	known := s.current()
	switch waits := s.now().Before(known.next); {
	case s.usable(known) && waits:
		return known, nil // by who had the turn before
	case known.pause > 0 && waits && !s.usable(known):
		return known, fmt.Errorf("%w (tried again at %s)", known.why, known.next.UTC().Format(time.RFC3339))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var err error
	switch {
	case !s.usable(known):
		known, err = s.begin(ctx)
	case known.renewable:
		known, err = s.renew(ctx, known)
	case s.source.again():
		known, err = s.begin(ctx)
	default:
		known, err = s.look(ctx, known.token)
	}
	if err != nil {
		known = s.later(s.current(), err)
	}
	s.hold(known)
	return known, err
}

// later is what is held after a try has failed.
func (s *session) later(known held, why error) held {
	pause := retryAfter
	if !known.ends.IsZero() {
		pause = min(pause, known.ends.Sub(s.now())/4)
	}
	if errors.As(why, new(*refusedLogin)) {
		known.pause = min(max(4*known.pause, firstPause), lastPause)
		pause = known.pause
	}
	known.next, known.why = s.now().Add(max(pause, soonest)), why
	return known
}

// begin gets a token. One that was given is looked at: what is left of its life is
// not known.
func (s *session) begin(ctx context.Context) (held, error) {
	fresh, err := s.source.login(ctx)
	if err != nil {
		return held{}, err
	}
	if s.source.again() {
		return s.new(fresh), nil
	}
	known, err := s.look(ctx, fresh.token)
	if err != nil || !known.renewable {
		return known, err
	}
	renewed, err := s.renew(ctx, known)
	if err != nil {
		return s.later(known, err), nil // it lives for now
	}
	return renewed, nil
}

func (s *session) new(fresh lease) held {
	known := held{lease: fresh, life: fresh.ttl, next: s.now().Add(idle)}
	if fresh.ttl > 0 {
		known.ends = s.now().Add(fresh.ttl)
		known.next = s.now().Add(time.Duration(float64(fresh.ttl) * renewAfter))
	}
	return known
}

// look asks what the Vault knows of the token. A token without an end, or that
// can't be renewed, is looked at again now and then.
func (s *session) look(ctx context.Context, token string) (held, error) {
	about, err := s.about(ctx, token)
	if err != nil {
		return held{}, err
	}
	known := held{lease: lease{token: token, ttl: time.Duration(about.Seconds) * time.Second, renewable: about.Renewable && about.Seconds > 0}, next: s.now().Add(idle)}
	if known.ttl > 0 {
		known.ends = s.now().Add(known.ttl)
	}
	return known, nil
}

// renew moves the token's end. Where that has become shorter since it nears the
// longest that it may live, and a new token can be had, there is one.
func (s *session) renew(ctx context.Context, known held) (held, error) {
	var answer authAnswer
	err := s.client.send(ctx, known.token, http.MethodPost, "auth/token/renew-self", struct{}{}, &answer)
	if err != nil && s.source.again() && statusOf(err) != 0 {
		return s.begin(ctx)
	}
	if err != nil {
		return held{}, fmt.Errorf("renewing the engine's own token: %w", err)
	}
	fresh := answer.lease()
	fresh.token = known.token
	renewed := s.new(fresh)
	renewed.life = max(known.life, renewed.life)
	if s.source.again() && renewed.ttl > 0 && renewed.ttl < renewed.life/2 {
		return s.begin(ctx)
	}
	return renewed, nil
}

// about is what the Vault says of a token.
type about struct {
	Policies  []string
	Seconds   int64 `json:"ttl"`
	Period    int64
	Longest   int64 `json:"explicit_max_ttl"`
	Uses      int   `json:"num_uses"`
	Renewable bool
	Type      string
}

func (s *session) about(ctx context.Context, token string) (about, error) {
	var answer struct{ Data about }
	err := s.client.send(ctx, token, http.MethodGet, "auth/token/lookup-self", nil, &answer)
	return answer.Data, err
}

// lost says whether the Vault knows a token no more of which it has refused a
// request, and a new one can be had: that is seen to. A token that may not look at
// itself is taken for lost.
func (s *session) lost(ctx context.Context, token string) bool {
	if !s.source.again() {
		return false
	}
	if known := s.current(); known.token != token {
		return true // another request has seen to it
	}
	if _, err := s.about(ctx, token); statusOf(err) != http.StatusForbidden {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held.token == token {
		s.held = held{next: s.held.next, why: s.held.why, pause: s.held.pause}
	}
	return true
}

// Tend implements provider.Tender.
func (v *vault) Tend(ctx context.Context) error {
	for {
		if _, err := v.own.get(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("the engine's own token: %w", err)
		}
		known := v.own.current()
		wake := known.next
		if !known.ends.IsZero() && known.ends.Before(wake) {
			wake = known.ends // of what could not be renewed: that is to be said
		}
		timer := time.NewTimer(max(wake.Sub(v.own.now()), soonest))
		select {
		case <-ctx.Done():
			timer.Stop()
			return known.why
		case <-timer.C:
		}
	}
}
