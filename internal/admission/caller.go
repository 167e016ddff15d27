package admission

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Caller is who reads a credential, as far as Vault says.
type Caller struct {
	Address  netip.Addr // invalid where that is not known
	EntityID string     // empty for a token that belongs to no entity
	// Groups are the ids of the entity's groups. It is called only for an entity, and
	// where a role asks for a group.
	Groups func() ([]string, error)
}

func (r *Rules) parseCaller(texts Texts) error {
	for field, list := range map[string][]string{"bound_cidrs": texts.BoundCIDRs, "bound_entity_ids": texts.BoundEntityIDs, "bound_group_ids": texts.BoundGroupIDs} {
		if len(list) > maxBounds {
			return invalid.Hidden(field, fmt.Sprintf("more than %d", maxBounds), "name fewer: a wider network, or a group")
		}
	}
	for _, text := range texts.BoundCIDRs {
		prefix, err := parsePrefix(text)
		if err != nil {
			return err
		}
		r.cidrs = append(r.cidrs, prefix)
	}
	for field, ids := range map[string]struct {
		texts []string
		read  *[]string
		kind  string
	}{"bound_entity_ids": {texts.BoundEntityIDs, &r.entityIDs, "entity"}, "bound_group_ids": {texts.BoundGroupIDs, &r.groupIDs, "group"}} {
		for _, id := range ids.texts {
			if !approval.IdentityID.MatchString(id) {
				return invalid.Field(field, id, "not the id of an identity", "give the id, not the name: vault read -field=id identity/"+ids.kind+"/name/<name>")
			}
		}
		*ids.read = ids.texts
	}
	return nil
}

// parsePrefix reads a network, or an address.
func parsePrefix(text string) (netip.Prefix, error) {
	wrong := func(problem, remedy string) (netip.Prefix, error) {
		return netip.Prefix{}, invalid.Field("bound_cidrs", text, problem, remedy)
	}
	const form = "write it as 10.1.0.0/16, 2001:db8::/32 or 192.0.2.7"
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" {
			return wrong("not a network or an address", form)
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	switch {
	case prefix.Addr().Is4In6():
		return wrong("an IPv4 network in the form of an IPv6 one", "write it in IPv4's own form")
	case prefix.Masked() != prefix:
		return wrong("an address within the network", "write the network's own, "+prefix.Masked().String())
	}
	return prefix, nil
}

// checkCaller says whether this caller may read credentials. Each bound that is
// set has to hold, and what Vault does not tell holds for nobody.
func (r Rules) checkCaller(caller Caller) error {
	if err := r.checkAddress(caller.Address); err != nil {
		return err
	}
	return r.checkIdentity(caller)
}

func (r Rules) checkAddress(address netip.Addr) error {
	switch {
	case len(r.cidrs) == 0:
		return nil
	case !address.IsValid():
		return invalid.Deny("vault did not say which address the request came from, and the role is bound to some", "")
	}
	address = address.Unmap().WithZone("")
	if !slices.ContainsFunc(r.cidrs, func(network netip.Prefix) bool { return network.Contains(address) }) {
		return invalid.Deny("the role is not for callers from "+address.String(), "ask from an address in its bound_cidrs")
	}
	return nil
}

func (r Rules) checkIdentity(caller Caller) error {
	if len(r.entityIDs) == 0 && len(r.groupIDs) == 0 {
		return nil
	}
	if caller.EntityID == "" {
		return invalid.Deny("the role is bound to some identities, and the caller's token belongs to none", "log in by an auth method")
	}
	if len(r.entityIDs) > 0 && !slices.Contains(r.entityIDs, caller.EntityID) {
		return invalid.Deny("the role is not for the caller's entity, "+caller.EntityID, "ask as one in its bound_entity_ids")
	}
	if len(r.groupIDs) == 0 {
		return nil
	}
	groups, err := caller.Groups()
	if err != nil {
		return err // which says what was asked
	}
	if !slices.ContainsFunc(groups, func(id string) bool { return slices.Contains(r.groupIDs, id) }) {
		return invalid.Deny("the role is not for the caller's groups", "ask as a member of one in its bound_group_ids")
	}
	return nil
}
