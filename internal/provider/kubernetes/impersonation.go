package kubernetes

import (
	"slices"
	"strings"
)

// impersonates says whether a verb lets its holder act as somebody else. Since Kubernetes
// 1.36 there are two verbs for each of four modes: impersonate:<mode>, on whom, and
// impersonate-on:<mode>:<verb>, on what is done as them.
// https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
func impersonates(verb string) bool {
	return verb == "impersonate" || strings.HasPrefix(verb, "impersonate:") || strings.HasPrefix(verb, "impersonate-on:")
}

// impersonating are those of the rights that let their holder act as somebody else. RBAC
// and the admission policies then see that other account, not the minted one. All verbs on
// whom one can act as are such a right, too.
func (r rights) impersonating() rights {
	var some rights
	for _, one := range r {
		thing, _, _ := strings.Cut(one.of, " ")
		if impersonates(one.verb) || one.verb == "*" && slices.Contains(impersonated, parseKind(thing).resource) {
			some = append(some, one)
		}
	}
	return some
}

// impersonated are the resources that stand for whom one can act as.
var impersonated = []string{"*", "groups", "nodes", "serviceaccounts", "uids", "userextras", "users"}

// impersonationModes are those of constrained impersonation.
var impersonationModes = []string{"arbitrary-node", "associated-node", "serviceaccount", "user-info"}

// isImpersonation says whether a text is a whole verb of impersonation.
func isImpersonation(verb string) bool {
	if verb == "impersonate" {
		return true
	}
	if mode, on := strings.CutPrefix(verb, "impersonate:"); on {
		return slices.Contains(impersonationModes, mode)
	}
	rest, on := strings.CutPrefix(verb, "impersonate-on:")
	mode, act, full := strings.Cut(rest, ":")
	return on && full && slices.Contains(impersonationModes, mode) && slices.Contains(verbs, act)
}

// allows says whether a right, of one namespace, lets through a request.
func (r right) allows(one asked) bool {
	thing, namespace, _ := strings.Cut(r.of, " in ")
	thing, name, named := strings.Cut(thing, " named ")
	of := parseKind(thing)
	return (r.verb == "*" || r.verb == one.verb) && namespace == one.on.namespace && (!named || name == one.on.name) &&
		(of.resource == "*" || of.resource == one.on.kind.resource) && (of.group == "*" || of.group == one.on.kind.group) &&
		(of.subresource == "*" || of.subresource == one.on.kind.subresource)
}
