package approval

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Rule is who has to approve what a role mints. The zero value is nobody.
type Rule struct {
	Needed int           `json:"needed,omitempty"` // so many entities, none of them the one who asks
	Groups []string      `json:"groups,omitempty"` // ids of identity groups that each of them has to be in one of; empty for any
	TTL    time.Duration `json:"ttl,omitempty"`    // 0: the default, see Lasts
	Uses   int           `json:"uses,omitempty"`   // 0: the default, see Mints
	// Revision is drawn anew when the role is written, so that one that was changed
	// and changed back, or deleted and made again, is another.
	Revision string `json:"revision,omitempty"`
}

// Limits of a rule.
const (
	maxNeeded       = 10
	maxGroups       = 20
	maxUses         = 100
	defaultLasts    = time.Hour
	longestApproval = 7 * 24 * time.Hour
)

// IdentityID is how Vault names entities and groups: a UUID, with the namespace's id
// behind it where that is not the root.
var IdentityID = regexp.MustCompile(`\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\.[A-Za-z0-9]{1,16})?\z`)

// Lasts is how long a request waits for its approvals, and how long it stands once
// it has them.
func (r Rule) Lasts() time.Duration {
	if r.TTL == 0 {
		return defaultLasts
	}
	return r.TTL
}

// Mints is how many credentials an approval is good for.
func (r Rule) Mints() int { return max(r.Uses, 1) }

// Check is the rule's own sense. The error is an *invalid.Error.
func (r Rule) Check() error {
	const alone = "a role without approvals has no use for it"
	switch {
	case r.Needed < 0 || r.Needed > maxNeeded:
		return invalid.Field("approvals", fmt.Sprint(r.Needed), fmt.Sprintf("not between 0 and %d", maxNeeded), "say how many others have to approve")
	case r.Needed == 0 && len(r.Groups) > 0:
		return invalid.Hidden("approver_group_ids", alone, "set approvals, too, or leave it out")
	case r.Needed == 0 && r.TTL != 0:
		return invalid.Hidden("approval_ttl", alone, "set approvals, too, or leave it out")
	case r.Needed == 0 && r.Uses != 0:
		return invalid.Hidden("approval_uses", alone, "set approvals, too, or leave it out")
	case r.TTL > longestApproval:
		return invalid.Field("approval_ttl", r.TTL.String(), "longer than "+longestApproval.String(), "shorten it")
	case r.Uses < 0 || r.Uses > maxUses:
		return invalid.Field("approval_uses", fmt.Sprint(r.Uses), fmt.Sprintf("not between 1 and %d", maxUses), "say how many credentials one approval is good for")
	case len(r.Groups) > maxGroups:
		return invalid.Hidden("approver_group_ids", fmt.Sprintf("more than %d", maxGroups), "put the groups into one group")
	}
	for i, id := range r.Groups {
		if !IdentityID.MatchString(id) {
			return invalid.Field("approver_group_ids", id, "not the id of an identity group", "give ids, as vault read -field=id identity/group/name/<name> answers them")
		}
		if slices.Contains(r.Groups[:i], id) {
			return invalid.Field("approver_group_ids", id, "stands there twice", "name each group once")
		}
	}
	return nil
}
