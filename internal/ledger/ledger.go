// Package ledger is the engine's memory: one record for each grant, written
// before anything is minted and kept after everything has ended.
//
// Layout: g/<bucket>/<id>. The bucket is the latest end that the grant can
// have, so that finding what has expired costs what has expired; the id starts
// with its bucket, so that any id is one read. A record is written in place and
// never moved. Once all grants of a bucket that has gone by have ended, they are
// packed into segments, h/<bucket>/<n>.
//
// What is looked for by anything but an id is in the Index, in memory.
package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// Where the ledger is in the mount's storage: its records, its history, and what
// it keeps of itself. All three are local to a cluster.
const (
	Prefix        = "g/"
	HistoryPrefix = "h/"
	OwnPrefix     = "ledger/"
)

// bucketSpan is the time that the grants of one bucket end in.
const bucketSpan = 10 * time.Minute

// State of a grant. Those that are stored come first; the others are what Status
// makes of them, since storing Active and Expired would cost a second write.
type State string

const (
	Pending State = "pending" // recorded, and minted unless something failed
	Ending  State = "ending"  // is to end, and may still work at the target
	Dead    State = "dead"    // dead at the target, where something is left to be tidied up
	Ended   State = "ended"   // dead at the target
	Failed  State = "failed"  // minting failed and nothing is left at the target

	Active  State = "active"
	Expired State = "expired"
	Revoked State = "revoked"
	Lost    State = "lost" // its target was pointed to another system; it lived until its end for all that is known
)

// Cause is how a grant ended, or why it is to.
type Cause string

const (
	LeaseRevoked Cause = "lease revoked"
	LeaseExpired Cause = "lease expired"
	Swept        Cause = "swept"             // outlived its lease, or was left by a crash
	Orphaned     Cause = "orphaned"          // was found at the target, and not in the ledger
	Widened      Cause = "ended with others" // the target's limits left no room to spare it
	// FoundDenied is of a session that its target denied already: storage from before the revocation was restored, or a
	// copy of it has revoked it.
	FoundDenied  Cause = "found denied at its target"
	Requested    Cause = "ended on request"
	TargetMoved  Cause = "its target was pointed to another system"
	Replaced     Cause = "replaced" // gave way to a newer one, at a limit of its role
	MintFailed   Cause = "mint failed"
	CallerHungUp Cause = "the caller hung up"
	Frozen       Cause = "frozen while it was being minted"
	MintTooLate  Cause = "minting took longer than the credential's life"
)

// State is how a grant is stored that has ended for this cause.
func (c Cause) State() State {
	switch c {
	case MintFailed, CallerHungUp, MintTooLate, Frozen:
		return Failed
	default:
		return Ended
	}
}

// Grant is one minted credential. It holds no secret.
type Grant struct {
	ID          string   `json:"id"`
	State       State    `json:"state"`
	Target      string   `json:"target"`
	System      string   `json:"system,omitempty"`    // a hash that tells which system the target was
	Base        string   `json:"base,omitempty"`      // see provider.Committed; empty for most
	Installed   string   `json:"installed,omitempty"` // the Installation that it needs; empty for most
	Role        string   `json:"role"`
	Task        string   `json:"task,omitempty"`
	Action      string   `json:"action"`
	Resource    string   `json:"resource"`
	Companions  []string `json:"companions,omitempty"` // the further resources that the action is authorised on
	Conditions  string   `json:"conditions,omitempty"` // what it depends on besides, as JSON: operator, key, values
	SourceIP    string   `json:"source_ip,omitempty"`  // the one address that it works from; empty for any
	EntityID    string   `json:"entity_id,omitempty"`
	DisplayName string   `json:"display_name,omitempty"`   // of the caller's token
	Accessor    string   `json:"token_accessor,omitempty"` // of the caller's token
	Approval    string   `json:"approval,omitempty"`       // the id of the request that was approved
	RoleVersion string   `json:"role_version,omitempty"`   // a hash of the role that it was minted from
	Options     string   `json:"options,omitempty"`        // the role's options as they were filled in, as JSON
	Filled      string   `json:"filled,omitempty"`         // what the role's references were filled in with, as JSON
	// PolicySHA256 is the hash of the policy, with its times and the reader's address left out.
	PolicySHA256 string          `json:"policy_sha256,omitempty"`
	Handle       provider.Handle `json:"handle"`
	IssuedAt     time.Time       `json:"issued_at"`
	ExpiresAt    time.Time       `json:"expires_at"` // when the target ends it by itself
	EndedAt      time.Time       `json:"ended_at,omitzero"`
	Ending       Cause           `json:"ending,omitempty"`
	EndedBy      string          `json:"ended_by,omitempty"`   // who requested its end
	EndReason    string          `json:"end_reason,omitempty"` // and what for
	LeaseID      string          `json:"lease_id,omitempty"`   // as Vault told it at the revoke; it does so for leases that were renewed
	// Unconfirmed says why the target could not confirm that the credential is dead, see
	// provider.Unconfirmed. It is empty where it did.
	Unconfirmed string `json:"unconfirmed,omitempty"`
	// AtEnd is what the target knew of the credential right before it was ended, see
	// provider.Witness.
	AtEnd map[string]string `json:"at_end,omitempty"`
}

// Finished says whether nothing remains to be done about the grant.
func (g Grant) Finished() bool { return g.State == Ended || g.State == Failed }

// Live says whether the credential may still work at the target, if now is right.
func (g Grant) Live(now time.Time) bool {
	return g.Open() && now.Before(g.ExpiresAt)
}

// Open says whether the credential may still work at the target for all that is known without a clock: it was not
// revoked, and its expiry was not confirmed. What revokes or protects asks for these, since a clock that is ahead calls
// grants expired that live.
func (g Grant) Open() bool { return !g.Finished() && g.State != Dead }

// Status is the grant's state for people: one that is pending is active or
// expired, and one that has ended has expired, or was revoked before.
func (g Grant) Status(now time.Time) State {
	if g.State == Dead {
		g.State = g.Ending.State()
	}
	switch {
	case g.State == Pending && now.Before(g.ExpiresAt):
		return Active
	case g.State == Pending:
		return Expired
	case g.State == Ended && (g.Ending == LeaseExpired || g.Ending == Swept || g.Unconfirmed != ""):
		return Expired
	case g.State == Ended && g.Ending == TargetMoved:
		return Lost
	case g.State == Ended:
		return Revoked
	default:
		return g.State
	}
}

var (
	// ErrNotFound is returned where the ledger has no grant of an id.
	ErrNotFound = errors.New("ledger: no such grant")
	// ErrDamaged is returned for what is in the ledger's place and can't be read. It is stored.ErrNewer as well where
	// a newer plugin wrote that: nothing may overwrite or delete it.
	ErrDamaged = errors.New("ledger: unreadable")
)

const bucketDigits = 8

var (
	idShape     = regexp.MustCompile(`\A[0-9a-f]{8}[a-z2-7]{16}\z`)
	bucketShape = regexp.MustCompile(`\A[0-9a-f]{8}\z`)
)

// NewID draws an id for a grant that ends at expiresAt at the latest: the
// bucket in 8 hexadecimal digits, then 80 random bits.
func NewID(expiresAt time.Time) string { return bucket(expiresAt) + random(10) }

// DerivedID is an id for what bears none: the same each time that it is met.
func DerivedID(expiresAt time.Time, of string) string {
	sum := sha256.Sum256([]byte(of))
	return bucket(expiresAt) + lower32(sum[:10])
}

// random draws bytes and writes them in lower-case base32.
func random(bytes int) string {
	drawn := make([]byte, bytes)
	_, _ = rand.Read(drawn) // never fails: https://pkg.go.dev/crypto/rand#Read
	return lower32(drawn)
}

func lower32(bytes []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bytes))
}

func bucket(expiresAt time.Time) string {
	return fmt.Sprintf("%0*x", bucketDigits, expiresAt.Unix()/int64(bucketSpan/time.Second))
}

// IsID says whether a text has the form of a grant's id.
func IsID(text string) bool { return idShape.MatchString(text) }

// LatestEnd is the time by which a grant of that id, or of that bucket, has
// ended at its target. The error is ErrDamaged for what is neither.
func LatestEnd(id string) (time.Time, error) {
	if !idShape.MatchString(id) && !bucketShape.MatchString(id) {
		return time.Time{}, fmt.Errorf("%w: %q is no grant id", ErrDamaged, id)
	}
	number, err := strconv.ParseInt(id[:bucketDigits], 16, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %q is no grant id", ErrDamaged, id)
	}
	return time.Unix((number+1)*int64(bucketSpan/time.Second), 0).UTC(), nil
}

func key(id string) (string, error) {
	if !idShape.MatchString(id) {
		return "", fmt.Errorf("%w: %q is no grant id", ErrDamaged, id)
	}
	return Prefix + id[:bucketDigits] + "/" + id, nil
}

// Put writes a grant in place.
func Put(ctx context.Context, storage logical.Storage, grant Grant) error {
	path, err := key(grant.ID)
	if err != nil {
		return err
	}
	return wrap(stored.Put(ctx, storage, path, grant), "ledger")
}

// Get reads a grant. The error is ErrNotFound where there is none, and
// ErrDamaged where there is something that this version can't read.
func Get(ctx context.Context, storage logical.Storage, id string) (Grant, error) {
	path, err := key(id)
	if err != nil {
		return Grant{}, err
	}
	var grant Grant
	found, err := stored.Get(ctx, storage, path, &grant)
	switch {
	case stored.Unreadable(err):
		return Grant{}, fmt.Errorf("%w: grant %s: %w", ErrDamaged, id, err)
	case err != nil:
		return Grant{}, fmt.Errorf("ledger: %w", err)
	case !found:
		return Grant{}, ErrNotFound
	}
	if grant.ID != id {
		return Grant{}, fmt.Errorf("%w: the record of grant %s is of %q", ErrDamaged, id, grant.ID)
	}
	switch grant.State {
	case Pending, Ending, Dead, Ended, Failed:
		return grant, nil
	default:
		return Grant{}, fmt.Errorf("%w: grant %s has state %q", ErrDamaged, id, grant.State)
	}
}
