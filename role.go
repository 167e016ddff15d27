package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// rolePrefix is where the roles are in storage.
const rolePrefix = "roles/"

// role names one action on one resource of one target.
type role struct {
	Target             string            `json:"target"`
	Action             string            `json:"action"`
	Resource           string            `json:"resource"`
	CompanionResources []string          `json:"companion_resources,omitempty"`
	Conditions         map[string]any    `json:"conditions,omitempty"`
	Parameters         map[string]any    `json:"parameters,omitempty"`
	AllowEscalation    bool              `json:"allow_escalation,omitempty"`
	BoundSourceIP      bool              `json:"bound_source_ip,omitempty"`
	Renewable          bool              `json:"renewable,omitempty"`
	TTL                time.Duration     `json:"ttl,omitempty"`     // 0: the mount's default
	MaxTTL             time.Duration     `json:"max_ttl,omitempty"` // 0: the mount's maximum
	Options            provider.Settings `json:"options,omitempty"` // the fields that the target's type adds
	Tagged             []string          `json:"tagged,omitempty"`  // those of Options whose values are filled in when a credential is read
	Choice             provider.Choice   `json:"choice,omitzero"`   // the field of Options whose values a reader chooses one of
	Facts              provider.Facts    `json:"facts,omitempty"`   // what the provider learnt of the target when the role was written
	Approval           approval.Rule     `json:"approval,omitzero"`
	Admission          admission.Texts   `json:"admission,omitzero"`
}

// errNoRole is returned for a role that does not exist.
var errNoRole = errors.New("role does not exist")

// readRole reads a role's entry. The error is errNoRole where it has none.
func readRole(ctx context.Context, storage logical.Storage, name string) (role, error) {
	return readEntry[role](ctx, storage, rolePrefix+name, errNoRole)
}

// openRole is a role that is ready for use.
type openRole struct {
	role
	definition scope.Definition
	rules      admission.Rules
	version    string // see versionOf
}

// openRole returns the role of that name, from the cache where it can. The error
// is errNoRole where there is none.
func (b *backend) openRole(ctx context.Context, storage logical.Storage, name string) (openRole, error) {
	return b.roles.get(ctx, name, func() (openRole, error) {
		stored, err := readRole(ctx, storage, name)
		if err != nil {
			return openRole{}, err
		}
		if err := b.optionsKnown(name, stored.Options); err != nil {
			return openRole{}, err
		}
		definition, err := stored.define()
		if err != nil {
			return openRole{}, damagedRole(name, err)
		}
		rules, err := admission.Parse(stored.Admission)
		if err != nil {
			return openRole{}, damagedRole(name, err)
		}
		version, err := versionOf(stored)
		return openRole{role: stored, definition: definition, rules: rules, version: version}, err
	})
}

// damagedRole is not the caller's mistake, so it does not wrap the error.
func damagedRole(name string, err error) error {
	return fmt.Errorf("%s%s is %w: %v", rolePrefix, name, stored.ErrDamaged, err)
}

// optionsKnown refuses a stored role with an option that no type of target takes: a newer plugin wrote it, and to
// drop the option could drop a restriction.
func (b *backend) optionsKnown(name string, options provider.Settings) error {
	for _, option := range slices.Sorted(maps.Keys(options)) {
		if _, known := b.roleFields[option]; !known {
			return fmt.Errorf("%s%s was %w: it has option %q", rolePrefix, name, stored.ErrNewer, option)
		}
	}
	return nil
}

// define is what the role grants.
func (r role) define() (scope.Definition, error) {
	texts := scope.Texts{
		Action: r.Action, Resource: r.Resource, Companions: r.CompanionResources, Conditions: r.Conditions, Parameters: r.Parameters, Tags: r.tags(),
	}
	names := r.choices()
	if len(names) == 0 {
		return scope.Define(texts)
	}
	if len(names) > scope.MaxOneOf {
		return scope.Definition{}, invalid.Hidden(r.Choice.Field, fmt.Sprintf("it has %d names, and a role can have %d", len(names), scope.MaxOneOf), "leave out those that nobody needs again, or write several roles")
	}
	if _, taken := r.Parameters[r.Choice.Parameter]; taken {
		return scope.Definition{}, invalid.Field("parameters", r.Choice.Parameter, "the name stands for one of "+r.Choice.Field, "choose another name")
	}
	texts.Parameters = maps.Clone(r.Parameters)
	if texts.Parameters == nil {
		texts.Parameters = map[string]any{}
	}
	texts.Resource += "/{{" + r.Choice.Parameter + "}}"
	texts.Parameters[r.Choice.Parameter] = map[string]any{"one_of": names}
	return scope.Define(texts)
}

// choices are the names of what a reader chooses one of, in order.
func (r role) choices() []string {
	return slices.Sorted(maps.Keys(r.Options.Pairs(r.Choice.Field)))
}

// tags are the role's fields whose values are filled in when a credential is read. One
// that is a text has the empty key.
func (r role) tags() scope.Tags {
	tags := scope.Tags{}
	for _, field := range r.Tagged {
		if text := r.Options.Text(field); strings.Contains(text, "{{") {
			tags[field] = map[string]string{"": text}
		} else if pairs := r.Options.Pairs(field); len(pairs) > 0 {
			tags[field] = pairs
		}
	}
	return tags
}

// within is the bounds with the tags that are filled into a scope.
func within(bounds provider.Bounds, granted scope.Scope) provider.Bounds {
	if len(granted.Tags()) == 0 {
		return bounds
	}
	bounds.Options = maps.Clone(bounds.Options)
	for field, tags := range granted.Tags() {
		if _, isText := bounds.Options[field].(string); isText {
			bounds.Options[field] = tags[""]
		} else {
			bounds.Options[field] = tags
		}
	}
	return bounds
}

// bounds are the role's limits for a credential that is read from an address.
func (r role) bounds(caller netip.Addr) provider.Bounds {
	bounds := provider.Bounds{AllowEscalation: r.AllowEscalation, Renewable: r.Renewable, Options: r.Options, Facts: r.Facts}
	if r.BoundSourceIP {
		bounds.SourceIP = caller
	}
	return bounds
}

// longestAddress stands for the caller where a role is tried; no address is
// longer in text.
var longestAddress = netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")

// examineTimeout bounds the looking at a target before a role is stored.
const examineTimeout = 30 * time.Second

// validated is a role that its target has nothing against.
type validated struct {
	role     // with the facts that its target has told
	warnings []string
	// policy is what the target makes of the role; empty where that depends on who
	// reads a credential.
	policy provider.Policy
	// policies are what it makes of each value that the role's parameters can have; nil
	// where nobody can list those.
	policies []provider.Policy
	blank    provider.Policy // the policy with its expiry and the reader's address left out
}

// validate checks the role against its target: everything that could be wrong
// at mint, and is known now, is refused here. The warnings are what its author
// should know.
func (r role) validate(ctx context.Context, opened openTarget, now time.Time, system logical.SystemView) (validated, error) {
	definition, err := r.checked(opened)
	if err != nil {
		return validated{}, err
	}
	valid := validated{role: r}
	valid.Facts = nil
	if examiner, able := opened.provider.(provider.Examiner); able {
		findings, err := r.examine(ctx, examiner, definition, now, system)
		if err != nil {
			return validated{}, err
		}
		valid.Facts, valid.warnings = findings.Facts, findings.Warnings
	}
	bounds := valid.widest(now, system)
	var advice provider.Advice
	widest := bounds
	err = definition.Try(func(granted scope.Scope) error {
		bounds := within(widest, granted)
		policy, err := opened.provider.Compile(granted, bounds)
		if err != nil {
			return err
		}
		if adviser, able := opened.provider.(provider.Adviser); able && len(advice.Definition)+len(advice.Mint) == 0 {
			advice = adviser.Advise(granted, bounds)
		}
		if len(definition.References()) == 0 {
			valid.policy, valid.blank = policy, lifecycle.Blank(policy, bounds.ExpiresAt, bounds.SourceIP)
		}
		return nil
	})
	valid.warnings = slices.Concat(definition.Advice(), valid.warnings, advice.Definition, advice.Mint)
	if _, able := opened.provider.(provider.Installer); err != nil || valid.policy != "" || !able {
		return valid, err
	}
	if err := definition.Every(func(granted scope.Scope) error {
		policy, err := opened.provider.Compile(granted, within(widest, granted))
		valid.policies = append(valid.policies, policy)
		return err
	}); err != nil {
		valid.policies = nil // a pattern, or the reader's own identity
	}
	return valid, nil
}

// examine has the target looked at, with an example filled in where the role has
// parameters.
func (r role) examine(ctx context.Context, examiner provider.Examiner, definition scope.Definition, now time.Time, system logical.SystemView) (findings provider.Findings, err error) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	bounds := r.widest(now, system)
	bounds.Facts = nil
	examined := false
	var fault error // which another example would not mend
	err = definition.Try(func(granted scope.Scope) error {
		if examined || fault != nil {
			return fault
		}
		found, err := examiner.Examine(ctx, granted, within(bounds, granted))
		if err != nil {
			if !errors.As(err, new(*invalid.Error)) {
				fault = err
			}
			return err
		}
		findings, examined = found, true
		return nil
	})
	if err != nil || !findings.Each || len(definition.References()) == 0 {
		return findings, err
	}
	findings.Warnings = nil
	err = definition.Every(func(granted scope.Scope) error {
		found, err := examiner.Examine(ctx, granted, within(bounds, granted))
		for _, warning := range found.Warnings {
			if !slices.Contains(findings.Warnings, warning) {
				findings.Warnings = append(findings.Warnings, warning)
			}
		}
		return err
	})
	return findings, err
}

// widest are the bounds of a credential that takes the most room and time that the
// role allows.
func (r role) widest(now time.Time, system logical.SystemView) provider.Bounds {
	bounds := r.bounds(longestAddress)
	bounds.TTL = r.promised(system)
	bounds.ExpiresAt = now.Add(max(r.TTL, r.MaxTTL, time.Second)).Truncate(time.Second)
	return bounds
}

// checked is what the role grants, if it is sound by itself.
func (r role) checked(opened openTarget) (scope.Definition, error) {
	if r.TTL != 0 && r.MaxTTL != 0 && r.TTL > r.MaxTTL {
		return scope.Definition{}, invalid.Field("ttl", r.TTL.String(), fmt.Sprintf("longer than max_ttl, %s", r.MaxTTL), "shorten ttl or raise max_ttl")
	}
	if _, able := opened.provider.(provider.Renewer); r.Renewable && !able {
		return scope.Definition{}, invalid.Hidden("renewable", "a target of type "+opened.Type+" can't move a credential's end", "leave it out, and let who needs more time read a new credential")
	}
	return r.define()
}

// promised is how long a credential lives that is read as the role says: for its
// max_ttl, or as long as one whose reader asks for no time. It is 0 where Vault
// did not say.
func (r role) promised(system logical.SystemView) time.Duration {
	usual, _, err := r.lifetime(0, system)
	if err != nil {
		return 0
	}
	return max(usual, min(r.MaxTTL, system.MaxLeaseTTL()))
}

// lifetime is how long a credential lives for which the caller asked for
// requested, or 0 for no particular time. A caller who asks for more than the
// role allows is refused; what the mount allows cuts with a warning.
func (r role) lifetime(requested time.Duration, system logical.SystemView) (ttl time.Duration, warnings []string, err error) {
	mountDefault, mountMax := system.DefaultLeaseTTL(), system.MaxLeaseTTL()
	if mountDefault <= 0 || mountMax <= 0 {
		return 0, nil, errors.New("vault did not say how long a lease may be") // it is shutting down
	}
	switch {
	case requested == 0 && r.TTL == 0:
		ttl = min(mountDefault, mountMax)
		if r.MaxTTL != 0 {
			ttl = min(ttl, r.MaxTTL)
		}
		return ttl, nil, nil
	case requested == 0:
		ttl = r.TTL
	case r.MaxTTL != 0 && requested > r.MaxTTL:
		return 0, nil, invalid.Field("ttl", requested.String(), fmt.Sprintf("longer than the role's max_ttl, %s", r.MaxTTL), "ask for less")
	default:
		ttl = requested
	}
	if ttl > mountMax {
		warnings = append(warnings, fmt.Sprintf("ttl of %s was cut to the mount's maximum, %s", ttl, mountMax))
		ttl = mountMax
	}
	return ttl, warnings, nil
}

// longest is how long a credential may live in all.
func (r role) longest(system logical.SystemView) (time.Duration, error) {
	mountMax := system.MaxLeaseTTL()
	if mountMax <= 0 {
		return 0, errors.New("vault did not say how long a lease may be") // it is shutting down
	}
	if r.MaxTTL == 0 {
		return mountMax, nil
	}
	return min(r.MaxTTL, mountMax), nil
}
