// Package approval is who may say yes to a credential before it is minted, what that
// yes is for, and how long it is one. It asks no clock and no Vault.
package approval

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// State of a request. Void and Lapsed follow from what is stored; the others are
// stored.
type State string

const (
	Waiting   State = "waiting"  // for approvals
	Approved  State = "approved" // and may be used
	Used      State = "used"     // as often as it may be
	Denied    State = "denied"
	Cancelled State = "cancelled"
	Lapsed    State = "lapsed" // its time has passed
	Void      State = "void"   // its role has been written anew or deleted
)

// Binding is what an approval is for, to the letter. Anything else needs another.
type Binding struct {
	Role    string `json:"role"`
	Version string `json:"version"` // of the role: another after each write of it
	Target  string `json:"target"`
	System  string `json:"system,omitempty"` // which system the target is, see ledger.Grant
	Task    string `json:"task"`
	Scope   string `json:"scope"`  // its canonical form, with all parameters filled in
	Filled  string `json:"filled"` // a hash of the parameters, and of the role's options as they are filled in
	Entity  string `json:"entity_id"`
}

// Shown is what who approves is shown of the scope.
type Shown struct {
	Action     string            `json:"action"`
	Resource   string            `json:"resource"`
	Companions []string          `json:"companions,omitempty"`
	Conditions string            `json:"conditions,omitempty"` // as JSON
	SourceIP   bool              `json:"source_ip,omitempty"`  // whether it is bound to the reader's address
	Parameters map[string]string `json:"parameters,omitempty"`
	Options    map[string]any    `json:"options,omitempty"` // the role's, as they are filled in
	// Policy is what the scope is compiled to, with its times and the reader's address left out.
	Policy       string `json:"policy,omitempty"`
	PolicySHA256 string `json:"policy_sha256,omitempty"`
}

// Actor is who does something to a request.
type Actor struct {
	Entity      string // empty for a token that belongs to none
	DisplayName string // of the token
	Groups      []string
}

// Decision is what an actor did.
type Decision struct {
	Entity      string    `json:"entity_id"`
	DisplayName string    `json:"display_name,omitempty"`
	At          time.Time `json:"at"`
	Reason      string    `json:"reason,omitempty"`
}

// Use is one mint that an approval was used for.
type Use struct {
	Grant string    `json:"grant_id"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until"` // the grant's own end
}

// Request asks for a credential that others have to approve. Its methods return
// what it becomes, and leave it as it is.
type Request struct {
	ID          string        `json:"id"`
	Binding     Binding       `json:"binding"`
	Rule        Rule          `json:"rule"` // as the role had it
	Shown       Shown         `json:"shown"`
	Reason      string        `json:"reason"`
	DisplayName string        `json:"display_name,omitempty"` // of who asks
	TTL         time.Duration `json:"ttl"`                    // the longest that a credential of it may live
	OpenedAt    time.Time     `json:"opened_at"`
	ExpiresAt   time.Time     `json:"expires_at"` // when it lapses
	State       State         `json:"state"`
	Approvals   []Decision    `json:"approvals,omitempty"`
	Closed      *Decision     `json:"closed,omitempty"` // the denial or the cancellation
	Uses        []Use         `json:"uses,omitempty"`
	FinishedAt  time.Time     `json:"finished_at,omitzero"`
}

// MaxOpen is how many unfinished requests an entity may have.
const MaxOpen = 16

// maxReason is the longest reason, in bytes.
const maxReason = 512

// CheckReason admits one line that people can read. The error is an *invalid.Error.
func CheckReason(reason string) error {
	const remedy = "say in a line why, such as reason=\"INC-7: restore the index\""
	switch {
	case strings.TrimSpace(reason) == "":
		return invalid.Field("reason", reason, "missing", remedy)
	case len(reason) > maxReason:
		return invalid.Field("reason", reason, fmt.Sprintf("longer than %d bytes", maxReason), "shorten it")
	case strings.ContainsFunc(reason, func(char rune) bool { return !unicode.IsPrint(char) || char == unicode.ReplacementChar }):
		// Line breaks, escapes and marks that turn the direction of what follows
		// would show who approves something else than is there.
		return invalid.Field("reason", reason, "holds a character that can't be printed", remedy)
	}
	return nil
}

// Open completes a new request that has its binding, what it shows, reason and TTL.
// others are the unfinished requests of the same entity.
func (r Request) Open(id string, rule Rule, by Actor, others []Request, now time.Time) (Request, error) {
	if rule.Needed == 0 {
		return r, invalid.Field("role", r.Binding.Role, "it needs no approval", "read creds/"+r.Binding.Role+"/"+r.Binding.Task)
	}
	if by.Entity == "" || by.Entity != r.Binding.Entity {
		return r, invalid.Deny("the caller's token belongs to no entity, and an approval is for one", "log in by a method that has entities; root tokens have none")
	}
	if r.Binding.Task == "" {
		return r, invalid.Field("task", "", "missing: an approval is for one task", "give task=…")
	}
	if err := CheckReason(r.Reason); err != nil {
		return r, err
	}
	for _, other := range others {
		if other.Binding == r.Binding {
			return r, invalid.Field("task", r.Binding.Task, fmt.Sprintf("request %s for the same is %s already", other.ID, other.State), "use that one, or cancel it first")
		}
	}
	if len(others) >= MaxOpen {
		return r, invalid.Deny(fmt.Sprintf("the caller has %d requests that wait or stand, and may have no more", len(others)), "cancel those that are not needed, or let them lapse")
	}
	r.ID, r.Rule, r.DisplayName, r.State = id, rule, by.DisplayName, Waiting
	r.OpenedAt, r.ExpiresAt = now.UTC(), now.Add(rule.Lasts()).UTC()
	r.Approvals, r.Closed, r.Uses, r.FinishedAt = nil, nil, nil, time.Time{}
	return r, nil
}

// Status is the request's state at a time when its role has a version; that is
// empty where there is no such role.
func (r Request) Status(now time.Time, version string) State {
	switch {
	case r.State != Waiting && r.State != Approved:
		return r.State
	case version == "" || version != r.Binding.Version:
		return Void
	case !now.Before(r.ExpiresAt):
		return Lapsed
	default:
		return r.State
	}
}

// Unfinished says whether anything can still become of a request in a state.
func (s State) Unfinished() bool { return s == Waiting || s == Approved }

// Settled is the request as it is to be kept: what it has lapsed to is stored.
func (r Request) Settled(now time.Time, version string) Request {
	state := r.Status(now, version)
	if state != r.State {
		r.State, r.FinishedAt = state, now.UTC()
		if state == Lapsed {
			r.FinishedAt = r.ExpiresAt
		}
	}
	return r
}

// KeptFrom is when a finished request has begun to be of the past only: nothing
// that was minted by it lives any more.
func (r Request) KeptFrom() time.Time {
	from := r.FinishedAt
	for _, use := range r.Uses {
		if use.Until.After(from) {
			from = use.Until
		}
	}
	return from
}

// decides refuses who may not decide on the request.
func (r Request) decides(by Actor) error {
	switch {
	case by.Entity == "":
		return invalid.Deny("the caller's token belongs to no entity, so nobody could say who has decided", "log in by a method that has entities; root tokens have none")
	case by.Entity == r.Binding.Entity:
		return invalid.Deny("the caller has made the request, and somebody else has to decide on it", "ask another person; cancel takes the request back")
	case len(r.Rule.Groups) > 0 && !slices.ContainsFunc(r.Rule.Groups, func(id string) bool { return slices.Contains(by.Groups, id) }):
		return invalid.Deny("the caller is in none of the role's approver_group_ids", "ask a member of "+invalid.OneOf(r.Rule.Groups))
	default:
		return nil
	}
}

// closed refuses where nothing can become of the request any more.
func (r Request) closed(now time.Time, version string) error {
	state := r.Status(now, version)
	if state.Unfinished() {
		return nil
	}
	return invalid.Field("id", r.ID, "the request is "+string(state), "a new request has to be opened")
}

// Approve adds an approval. Version is that which the role has now.
func (r Request) Approve(by Actor, now time.Time, version string) (Request, error) {
	if err := r.decides(by); err != nil {
		return r, err
	}
	if err := r.closed(now, version); err != nil {
		return r, err
	}
	if slices.ContainsFunc(r.Approvals, func(given Decision) bool { return given.Entity == by.Entity }) {
		return r, invalid.Deny("the caller has approved the request already, and each approval has to be of somebody else", "ask another person")
	}
	if r.State == Approved {
		return r, invalid.Field("id", r.ID, "the request has all its approvals", "nothing remains to be done")
	}
	r.Approvals = append(slices.Clone(r.Approvals), decision(by, now, ""))
	if len(r.Approvals) >= r.Rule.Needed {
		r.State, r.ExpiresAt = Approved, now.Add(r.Rule.Lasts()).UTC()
	}
	return r, nil
}

// Deny closes the request, whether or not it has been approved.
func (r Request) Deny(by Actor, reason string, now time.Time, version string) (Request, error) {
	if err := r.decides(by); err != nil {
		return r, err
	}
	return r.end(Denied, by, reason, now, version)
}

// Cancel takes the request back.
func (r Request) Cancel(by Actor, now time.Time, version string) (Request, error) {
	if by.Entity == "" || by.Entity != r.Binding.Entity {
		return r, invalid.Deny("only who has made the request can cancel it", "deny it instead")
	}
	return r.end(Cancelled, by, "", now, version)
}

func (r Request) end(state State, by Actor, reason string, now time.Time, version string) (Request, error) {
	if reason != "" {
		if err := CheckReason(reason); err != nil {
			return r, err
		}
	}
	if err := r.closed(now, version); err != nil {
		return r, err
	}
	closed := decision(by, now, reason)
	r.State, r.Closed, r.FinishedAt = state, &closed, now.UTC()
	return r, nil
}

// Admits says why a mint of a binding is not admitted by the request, if it isn't.
func (r Request) Admits(minted Binding, now time.Time) error {
	if r.Binding != minted {
		return invalid.Deny(fmt.Sprintf("request %s is for something else", r.ID), "open a request for this")
	}
	switch state := r.Status(now, minted.Version); state {
	case Approved:
		if len(r.Uses) < r.Rule.Mints() {
			return nil
		}
		return invalid.Deny(fmt.Sprintf("request %s has been used as often as it may be", r.ID), "open another request")
	case Waiting:
		return invalid.Deny(fmt.Sprintf("request %s has %d of %d approvals", r.ID, len(r.Approvals), r.Rule.Needed), "have it approved: vault write <mount>/requests/"+r.ID+"/approve")
	default:
		return invalid.Deny(fmt.Sprintf("request %s is %s", r.ID, state), "open another request")
	}
}

// Use takes one use of the approval for a grant that ends at until.
func (r Request) Use(minted Binding, grant string, until, now time.Time) (Request, error) {
	if err := r.Admits(minted, now); err != nil {
		return r, err
	}
	r.Uses = append(slices.Clone(r.Uses), Use{Grant: grant, At: now.UTC(), Until: until.UTC()})
	if len(r.Uses) >= r.Rule.Mints() {
		r.State, r.FinishedAt = Used, now.UTC()
	}
	return r, nil
}

func decision(by Actor, now time.Time, reason string) Decision {
	return Decision{Entity: by.Entity, DisplayName: by.DisplayName, At: now.UTC(), Reason: reason}
}
