// Package providertest holds what every provider has to prove, on a real
// target, and a fake provider for faults that no real target can be made to have.
package providertest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Subject is a provider that is to be tested, and its target.
type Subject struct {
	Provider provider.Provider // reaches its target through Faults
	Faults   Network
	Scope    scope.Scope
	Options  provider.Settings // of the role
	// Use does what the scope allows, with a credential's fields. It is nil
	// where the target allowed it, and an error for which Refused is true where
	// the target said no.
	Use     func(ctx context.Context, fields map[string]any) error
	Refused func(error) bool
	// Lag is how long the target may go on honouring what it has said is ended; 0
	// where it does not.
	Lag time.Duration
	// Left lists what a grant has left at the target. Answers that the provider
	// never saw are given as well.
	Left func(ctx context.Context, grantID string, swallowed [][]byte) ([]string, error)
	// Installed lists what of an installation is at the target; only for a
	// provider.Installer whose credentials hang on one.
	Installed func(ctx context.Context, handle provider.Handle) ([]string, error)
	// KeepsTime says that the target itself ends a credential at its end.
	KeepsTime bool
	// Renews says that the credential can be moved to a later end.
	Renews bool
}

// Network is what stands between a provider and its target, and can lose calls. A
// call is what the target executes or doesn't: a request, a message.
type Network interface {
	// LoseFrom loses every call from the given one on, counted from 0: after it was
	// executed, or before it is sent.
	LoseFrom(call int, executed bool)
	// Heal ends that, and returns how many calls there have been since.
	Heal() int
	// Swallowed are the answers that the provider never saw.
	Swallowed() [][]byte
}

// Who the provider mints for.
const (
	testMount  = "11111111-2222-3333-4444-555555555555"
	testLedger = "abcdefghijklmnopqrstuvwx"
)

// Run tests the subject.
func Run(t *testing.T, subject Subject) {
	s := suite{Subject: subject, bounds: provider.Bounds{Options: subject.Options}}
	if examiner, able := subject.Provider.(provider.Examiner); able {
		findings, err := examiner.Examine(t.Context(), subject.Scope, s.boundsUntil(time.Now().Add(time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		s.bounds.Facts = findings.Facts
	}
	if installer, able := subject.Provider.(provider.Installer); able && subject.Installed == nil {
		if handle := installer.Plan(s.compile(t, time.Now().Add(time.Hour)), testMount, testLedger); len(handle) > 0 {
			t.Fatalf("nothing lists what is installed: %v", handle)
		}
	} else if able {
		s.install(t, installer)
		t.Run("installed and removed", func(t *testing.T) { s.installs(t, installer) })
		for _, executed := range []bool{false, true} {
			t.Run(fmt.Sprintf("an installation fails after each call, executed %t", executed), func(t *testing.T) { s.installFails(t, installer, executed) })
		}
		s.install(t, installer)
		t.Cleanup(func() {
			if err := installer.Uninstall(context.Background(), s.planned(t, installer)); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("minted, used, revoked", s.life)
	t.Run("revoked without ever being minted", s.neverMinted)
	t.Run("revoked alone", s.alone)
	t.Run("a handle that names nothing", s.emptyHandle)
	t.Run("many at once", s.many)
	t.Run("a mint that is given up", s.givenUp)
	for _, executed := range []bool{false, true} {
		when := map[bool]string{false: "before it is sent", true: "after it was executed"}[executed]
		t.Run("a mint fails after each call, "+when, func(t *testing.T) { s.mintFails(t, executed) })
		t.Run("a revoke fails after each call, "+when, func(t *testing.T) { s.revokeFails(t, executed) })
	}
	if subject.Renews {
		t.Run("renewed", s.renewed)
	}
	if subject.KeepsTime {
		t.Run("ends by itself", s.endsByItself)
	}
}

type suite struct {
	Subject
	bounds provider.Bounds // of each grant, but for its end
}

func (s suite) boundsUntil(expiresAt time.Time) provider.Bounds {
	bounds := s.bounds
	bounds.ExpiresAt, bounds.TTL = expiresAt, time.Until(expiresAt)
	return bounds
}

func (s suite) compile(t *testing.T, expiresAt time.Time) provider.Policy {
	t.Helper()
	policy, err := s.Provider.Compile(s.Scope, s.boundsUntil(expiresAt))
	if err != nil {
		t.Fatal(err)
	}
	if policy == "" {
		t.Fatal("the policy is empty")
	}
	return policy
}

// grant is one that is about to be minted.
type grant struct {
	id        string
	handle    provider.Handle
	policy    provider.Policy
	expiresAt time.Time
}

func (s suite) prepare(t *testing.T, ttl time.Duration) grant {
	t.Helper()
	expiresAt := time.Now().Add(ttl).Truncate(time.Second).UTC()
	prepared := grant{id: ledger.NewID(expiresAt), expiresAt: expiresAt}
	prepared.policy = s.compile(t, expiresAt)
	var err error
	if prepared.handle, err = s.Provider.Prepare(t.Context(), provider.Grant{ID: prepared.id, Mount: testMount, Ledger: testLedger, Role: "role", Task: "task", ExpiresAt: expiresAt, Options: s.Options, Policy: prepared.policy}); err != nil {
		t.Fatal(err)
	}
	return prepared
}

func (s suite) mint(t *testing.T, ttl time.Duration) (grant, provider.Credential) {
	t.Helper()
	prepared := s.prepare(t, ttl)
	minted, err := s.Provider.Mint(t.Context(), prepared.handle, prepared.policy, prepared.expiresAt)
	if err != nil {
		t.Fatal(err)
	}
	return prepared, minted
}

func (s suite) works(t *testing.T, fields map[string]any) {
	t.Helper()
	if err := s.Use(t.Context(), fields); err != nil {
		t.Errorf("the credential does not work: %v", err)
	}
}

func (s suite) dead(t *testing.T, fields map[string]any) {
	t.Helper()
	for end := time.Now().Add(s.Lag); ; time.Sleep(time.Millisecond) {
		err := s.Use(t.Context(), fields)
		if s.Refused(err) {
			return
		}
		if err != nil || !time.Now().Before(end) {
			t.Errorf("the credential is not refused: %v", err)
			return
		}
	}
}

func (s suite) revoke(t *testing.T, handle provider.Handle) {
	t.Helper()
	if err := s.Provider.Revoke(t.Context(), handle); err != nil {
		t.Errorf("revoking: %v", err)
	}
}

func (s suite) nothingLeft(t *testing.T, id string) {
	t.Helper()
	left, err := s.Left(t.Context(), id, s.Faults.Swallowed())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left at the target: %v", left)
	}
}

func (s suite) life(t *testing.T) {
	prepared, minted := s.mint(t, time.Hour)
	s.works(t, minted.Fields)
	text, err := json.Marshal(minted.Handle)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret_key", "session_token", "password", "token"} {
		if value, ok := minted.Fields[secret].(string); ok && value != "" && strings.Contains(string(text), value) {
			t.Errorf("the handle holds the credential's %s", secret)
		}
	}
	var kept provider.Handle // as ledger and lease keep it
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(kept, minted.Handle) {
		t.Errorf("the handle %v is read back as %v", minted.Handle, kept)
	}
	s.revoke(t, kept)
	s.dead(t, minted.Fields)
	s.nothingLeft(t, prepared.id)
	s.revoke(t, kept)            // what is gone
	s.revoke(t, prepared.handle) // what is gone, by what was known before the mint
}

func (s suite) neverMinted(t *testing.T) {
	s.revoke(t, s.prepare(t, time.Hour).handle)
}

func (s suite) alone(t *testing.T) {
	_, first := s.mint(t, time.Hour)
	prepared, second := s.mint(t, time.Hour)
	s.revoke(t, first.Handle)
	s.dead(t, first.Fields)
	s.works(t, second.Fields)
	s.revoke(t, prepared.handle) // half of what the lease would know
	s.dead(t, second.Fields)
	s.nothingLeft(t, prepared.id)
}

func (s suite) emptyHandle(t *testing.T) {
	_, minted := s.mint(t, time.Hour)
	if err := s.Provider.Revoke(t.Context(), provider.Handle{}); err == nil {
		t.Error("a handle that names nothing was revoked")
	}
	s.works(t, minted.Fields)
	s.revoke(t, minted.Handle)
}

func (s suite) many(t *testing.T) {
	const callers = 16
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			prepared := s.prepare(t, time.Hour)
			minted, err := s.Provider.Mint(t.Context(), prepared.handle, prepared.policy, prepared.expiresAt)
			if err != nil {
				t.Error(err)
				return
			}
			s.works(t, minted.Fields)
			s.revoke(t, minted.Handle)
			s.dead(t, minted.Fields)
		})
	}
	all.Wait()
}

func (s suite) givenUp(t *testing.T) {
	prepared := s.prepare(t, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Provider.Mint(ctx, prepared.handle, prepared.policy, prepared.expiresAt); err == nil {
		t.Error("a mint whose context had ended succeeded")
	}
	s.revoke(t, prepared.handle)
	s.nothingLeft(t, prepared.id)
}

// mintFails loses a mint's calls from each one on in turn; what the mint has
// left by then, a revoke of the handle that was prepared removes.
func (s suite) mintFails(t *testing.T, executed bool) {
	for call := 0; ; call++ {
		prepared := s.prepare(t, time.Hour)
		s.Faults.LoseFrom(call, executed)
		minted, err := s.Provider.Mint(t.Context(), prepared.handle, prepared.policy, prepared.expiresAt)
		made := s.Faults.Heal()
		if err == nil {
			if made > call {
				t.Fatalf("call %d was lost, and the mint says that all is well", call)
			}
			s.revoke(t, minted.Handle)
			if call == 0 {
				t.Fatal("the mint makes no calls")
			}
			return
		}
		s.revoke(t, prepared.handle)
		s.nothingLeft(t, prepared.id)
	}
}

// revokeFails loses a revoke's calls from each one on in turn; it has to say
// so, and the next revoke ends what is left.
func (s suite) revokeFails(t *testing.T, executed bool) {
	for call := 0; ; call++ {
		prepared, minted := s.mint(t, time.Hour)
		s.Faults.LoseFrom(call, executed)
		err := s.Provider.Revoke(t.Context(), minted.Handle)
		made := s.Faults.Heal()
		if err == nil && made > call {
			t.Fatalf("call %d was lost, and the revoke says that the credential is dead", call)
		}
		if err != nil {
			s.revoke(t, minted.Handle)
		}
		s.dead(t, minted.Fields)
		s.nothingLeft(t, prepared.id)
		if err == nil {
			return
		}
	}
}

// renewed moves a credential's end, twice to the same; and what is gone stays so.
func (s suite) renewed(t *testing.T) {
	renewer := s.Provider.(provider.Renewer)
	prepared, minted := s.mint(t, time.Hour)
	later := prepared.expiresAt.Add(time.Hour)
	bounds := s.boundsUntil(later)
	bounds.Renewable = true
	policy, err := s.Provider.Compile(s.Scope, bounds)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := renewer.Renew(t.Context(), minted.Handle, policy, later); err != nil {
			t.Errorf("renewing: %v", err)
		}
		s.works(t, minted.Fields)
	}
	s.revoke(t, minted.Handle)
	for _, handle := range []provider.Handle{minted.Handle, prepared.handle, {}} {
		if err := renewer.Renew(t.Context(), handle, policy, later); err == nil {
			t.Errorf("what is gone was renewed: %v", handle)
		}
	}
	s.dead(t, minted.Fields)
	s.nothingLeft(t, prepared.id)
}

func (s suite) endsByItself(t *testing.T) {
	prepared, minted := s.mint(t, 4*time.Second)
	s.works(t, minted.Fields)
	time.Sleep(time.Until(prepared.expiresAt))
	s.dead(t, minted.Fields)
	s.revoke(t, minted.Handle) // what has ended by itself
	s.nothingLeft(t, prepared.id)
}
