package precision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// rolePrefix is where the roles are in storage.
const rolePrefix = "roles/"

// role names one action on one resource of one target.
type role struct {
	Target   string            `json:"target"`
	Action   string            `json:"action"`
	Resource string            `json:"resource"`
	TTL      time.Duration     `json:"ttl,omitempty"`     // 0: the mount's default
	MaxTTL   time.Duration     `json:"max_ttl,omitempty"` // 0: the mount's maximum
	Options  provider.Settings `json:"options,omitempty"` // the fields that the target's type adds
}

// errNoRole is returned for a role that does not exist.
var errNoRole = errors.New("role does not exist")

// readRole reads a role's entry. The error is errNoRole where it has none.
func readRole(ctx context.Context, storage logical.Storage, name string) (role, error) {
	return readEntry[role](ctx, storage, rolePrefix+name, errNoRole)
}

// scope is what the role grants.
func (r role) scope() (scope.Scope, error) { return scope.New(r.Action, r.Resource) }

// validate checks the role against its target: everything that could be wrong
// at mint, and is known now, is refused here.
func (r role) validate(opened openTarget, now time.Time) error {
	if r.TTL != 0 && r.MaxTTL != 0 && r.TTL > r.MaxTTL {
		return invalid.Field("ttl", r.TTL.String(), fmt.Sprintf("longer than max_ttl, %s", r.MaxTTL), "shorten ttl or raise max_ttl")
	}
	granted, err := r.scope()
	if err != nil {
		return err
	}
	_, err = opened.provider.Compile(granted, provider.Bounds{ExpiresAt: now.Add(max(r.TTL, r.MaxTTL, time.Second)), Options: r.Options})
	return err
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
