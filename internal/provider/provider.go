// Package provider is the contract between the engine and the systems that it
// mints credentials on. Each folder below implements it for one kind of target.
package provider

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Provider mints and ends credentials on one target. It is safe for concurrent
// use, and holds no state that a restart would lose.
type Provider interface {
	// Compile checks that the scope can be expressed exactly on this target
	// within the bounds, and returns the target's own policy for it. It makes
	// no network call. What the caller can mend is an *invalid.Error.
	Compile(scope.Scope, Bounds) (Policy, error)

	// Prepare names what Mint will create, from the grant and what is known of
	// others. The handle is recorded before Mint, so that whatever Mint leaves
	// behind can be found. Nothing is made yet.
	Prepare(context.Context, Grant) (Handle, error)

	// Mint creates the credential. On error it may have created parts of it,
	// which Revoke of the same handle removes; not if the error is a *NotMade.
	Mint(ctx context.Context, handle Handle, policy Policy, expiresAt time.Time) (Credential, error)

	// Revoke ends the credential at the target, what kills it first. It is
	// idempotent: revoking what is gone, half made or never made succeeds. It
	// returns nil only when the credential is dead.
	Revoke(ctx context.Context, handle Handle) error
}

// Verifier is a Provider that can prove that its target's connection works.
type Verifier interface {
	// Verify tries the connection and its credentials. What the operator can
	// mend is an *invalid.Error.
	Verify(ctx context.Context) (Verification, error)
}

// Identified is a Provider that knows which system it speaks to.
type Identified interface {
	// Identity is the same for two providers if each can end what the other has
	// minted; empty where it is not known. It is compared, never shown.
	Identity() string
}

// Verification is what Verify learnt.
type Verification struct {
	Facts    Facts    // kept with the target and given to Type.Open
	Warnings []string // what works but should be otherwise
}

// Facts are what a target said of itself, such as its account number.
type Facts map[string]string

// Bounds limit a credential beyond its scope. A provider that can't keep one of
// them refuses.
type Bounds struct {
	ExpiresAt       time.Time     // when the target itself ends the credential; whole seconds
	TTL             time.Duration // how long it lives until then; 0 where that is not known
	SourceIP        netip.Addr    // the one address that the credential works from; invalid for any
	AllowEscalation bool          // whether the action may hand out further power
	Renewable       bool          // whether its end is to be moved later on; only ever asked of a Renewer
	Options         Settings      // the role's fields for this provider
	Facts           Facts         // what Examine learnt when the role was written; nil in Examine itself
}

// Adviser is a Provider that knows what should be said of a scope beside its
// policy.
type Adviser interface {
	// Advise is asked about what Compile has accepted.
	Advise(scope.Scope, Bounds) Advice
}

// Advice is what people should know of a grant. It is shown as warnings.
type Advice struct {
	Definition []string // to who writes the role
	Mint       []string // to who reads a credential; and to who writes the role
}

// Checker is a Provider that can tell what a policy of its own allows.
type Checker interface {
	// Check judges a request by a policy that Compile has written. The caller's
	// mistakes are *invalid.Error.
	Check(Policy, Question) (Verdict, error)
}

// Question is a request that a credential's holder might make.
type Question struct {
	Action, Resource string
	Time             time.Time
	SourceIP         netip.Addr          // invalid where it is not known
	Context          map[string][]string // further condition keys
	ResourcePolicy   string              // of the resource; empty for none
	Options          Settings            // of the role whose credential is asked about
}

// Verdict says what the target would answer.
type Verdict struct {
	Allowed bool
	Effect  string // in the target's own words, such as ExplicitlyDenied
	Reason  string // a sentence
	Clause  string // the deciding part of a policy, empty where nothing matched
	Of      string // which policy that is part of, empty where nothing matched
}

// Grant is what Prepare may put into names and marks.
type Grant struct {
	ID       string // unguessable and unique: 8 hexadecimal digits, then 16 characters of lower-case base32
	Mount    string // UUID of the mount
	Ledger   string // the ledger's own id
	Role     string
	Task     string // empty where the caller gave none
	EntityID string // empty for a caller without an entity
	// EntityName asks Vault for the entity's name, for a provider that needs it. It
	// may be nil where there is no caller.
	EntityName func() (string, error)
	ExpiresAt  time.Time // when the target is to end it by itself
	Options    Settings  // the role's fields for this provider
	Policy     Policy    // what Compile made of it, for who names by it where the credential will be
}

// Policy is what a credential may do in the target's own notation. An empty
// one is never minted.
type Policy string

// Handle names a credential at its target. It holds no secret: it is stored in
// the ledger and in the lease.
type Handle map[string]string

// Credential is what Mint made.
type Credential struct {
	Fields map[string]any // the answer's fields, secrets included
	Handle Handle         // Mint's handle, with what only the target could name
	// Unforeseen says that Revoke needs what Mint has added to the handle: it is
	// written down before anybody gets the credential.
	Unforeseen bool
	// Observed is what the target said of the role's credentials. It is shown when
	// the role is read, and kept in memory only.
	Observed map[string]any
	Warnings []string // to who reads the credential, and to who reads the role then
}

// Choice lets the reader of a credential choose one of a role field's values by its name:
// the name is a parameter of the role, and the last segment of the scope's resource.
type Choice struct {
	Field     string `json:"field"`     // of names and values
	Parameter string `json:"parameter"` // that takes one of the names
}

// Settings are the values of a Type's fields, as the framework parsed them.
type Settings map[string]any

// Text is the string setting of that name, empty where it is not set.
func (s Settings) Text(name string) string {
	text, _ := s[name].(string)
	return text
}

// Number is the whole number of that name, and whether there is one.
func (s Settings) Number(name string) (int, bool) {
	switch value := s[name].(type) {
	case int:
		return value, true
	case json.Number: // as it is stored
		number, err := value.Int64()
		return int(number), err == nil
	default:
		return 0, false
	}
}

// True says whether the setting of that name is true.
func (s Settings) True(name string) bool {
	value, _ := s[name].(bool)
	return value
}

// ErrUnavailable is wrapped by an error of a target that can't do now what it
// could do in a moment. Nothing is wrong with what was asked; the caller's answer
// has status 503.
var ErrUnavailable = errors.New("the target can't do this at the moment")

// NotMade is an error of Mint, or of RootRotator.NextRoot, after which nothing was
// made for certain, so that there is nothing to end.
type NotMade struct{ Reason error }

func (e *NotMade) Error() string { return e.Reason.Error() }

func (e *NotMade) Unwrap() error { return e.Reason }

// List is the list setting of that name, which has been JSON in between or not.
func (s Settings) List(name string) []string {
	switch list := s[name].(type) {
	case []string:
		return list
	case []any:
		var texts []string
		for _, item := range list {
			if text, ok := item.(string); ok {
				texts = append(texts, text)
			}
		}
		return texts
	default:
		return nil
	}
}

// Pairs is the setting of that name which has names and values, and has been JSON
// in between or not.
func (s Settings) Pairs(name string) map[string]string {
	switch pairs := s[name].(type) {
	case map[string]string:
		return pairs
	case map[string]any:
		texts := map[string]string{}
		for key, value := range pairs {
			if text, ok := value.(string); ok {
				texts[key] = text
			}
		}
		return texts
	default:
		return nil
	}
}

// Type is one kind of target.
type Type struct {
	Name string
	// Config and Role are the fields that this type takes at config/:target
	// and roles/:role, beside those that every target and role has. A field
	// whose display attributes say Sensitive is never read back.
	Config, Role map[string]*framework.FieldSchema
	// Stored are the names of settings that the provider stores at config/:target beside
	// Config, as NextRoot does. Nobody writes them, and they are never read back.
	Stored []string
	// Tagged are the names of those of Role whose values, or whose keys' values, are filled
	// in as a resource is: the provider gets them filled in, in the Settings, and checks
	// them in Compile.
	Tagged []string
	// Choice is a field of Role with names and values, of which each credential is for one.
	// The zero value is none.
	Choice Choice
	// Open makes a provider from checked settings, without a network call.
	// What the operator can mend is an *invalid.Error.
	Open func(Settings, Facts) (Provider, error)
}
