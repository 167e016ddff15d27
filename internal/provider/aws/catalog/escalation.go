package catalog

import (
	"slices"
	"strings"
	"sync"
)

// Verdicts on an escalation.
const (
	Refuse = "refuse" // not without the role's explicit consent
	Warn   = "warn"   // mint, and say so
)

// Classes of the escalations that are found by rule. The others are in the table.
const (
	classPolicy   = "policy"
	classIdentity = "identity"
	classTag      = "tag"
)

// Access levels that the rules ask for.
const (
	permissionsManagement = "Permissions management"
	read                  = "Read"
	list                  = "List"
	tagging               = "Tagging"
)

const (
	reference   = "Service Authorization Reference"
	levelSource = reference + ", access level"
)

// Escalation says why an action hands out more than the grant itself.
type Escalation struct {
	Action  string
	Class   string // identity, policy, credential, code, exec, pass, fas-proxy, guard, runs, secret, traffic, copy, tag
	Verdict string // Refuse or Warn
	Reason  string
	// Look is what the reader of a warning can look at or narrow. {resource} stands
	// for the granted ARN, {name} for the resource's own name, {bucket} for what comes
	// before its first "/". Empty where the verdict is Refuse.
	Look   string
	Source string
}

var escalations = sync.OnceValue(func() map[string]Escalation {
	result := map[string]Escalation{}
	for _, row := range table("escalation.tsv", "action", "class", "verdict", "access_level", "resource_level", "fas_route", "why", "look", "sources") {
		result[row[0]] = Escalation{Action: row[0], Class: row[1], Verdict: row[2], Reason: row[6], Look: row[7], Source: row[8]}
	}
	return result
})

// exceptions are actions that the rule on access levels would refuse, although a
// review found that they hand out nothing.
var exceptions = sync.OnceValue(func() map[string]bool {
	result := map[string]bool{}
	for _, row := range table("exceptions.tsv", "action", "reason", "source") {
		result[row[0]] = true
	}
	return result
})

// EscalationOf says whether an action hands out more than the grant itself. The
// reviewed actions are in a table. For those that aren't, newer ones among them,
// three rules hold: an action of level Permissions management is refused, and so is
// whatever may write in a service that says who is who. An action that writes tags
// is warned of, since policies may decide by them.
func EscalationOf(action Action) (Escalation, bool) {
	if escalation, listed := escalations()[action.Name]; listed {
		return escalation, true
	}
	prefix, _, _ := strings.Cut(action.Name, ":")
	switch {
	case identityPlane(prefix) && !readsOnly(action.AccessLevels):
		return Escalation{Action: action.Name, Class: classIdentity, Verdict: Refuse, Reason: "writes in a service that says who may do what", Source: levelSource}, true
	case slices.Contains(action.AccessLevels, permissionsManagement) && !exceptions()[action.Name]:
		return Escalation{Action: action.Name, Class: classPolicy, Verdict: Refuse, Reason: "access level Permissions management: changes who may do what", Source: levelSource}, true
	case slices.Contains(action.AccessLevels, tagging):
		return Escalation{
			Action: action.Name, Class: classTag, Verdict: Warn, Reason: "policies may decide by tags who may do what",
			Look:   "see which policies of the account have aws:ResourceTag in a condition on {resource}; a condition on aws:TagKeys holds the grant to harmless tags",
			Source: "IAM User Guide, ABAC; " + levelSource,
		}, true
	default:
		return Escalation{}, false
	}
}

// identityPlane says whether a service is one that keeps principals, their rights
// or accounts.
func identityPlane(prefix string) bool {
	switch prefix {
	case "iam", "sts", "organizations", "ram", "rolesanywhere", "signin", "account":
		return true
	default:
		return strings.HasPrefix(prefix, "sso") || strings.HasPrefix(prefix, "identitystore")
	}
}

// readsOnly says whether access levels are known to change nothing.
func readsOnly(levels []string) bool {
	return len(levels) > 0 && !slices.ContainsFunc(levels, func(level string) bool { return level != read && level != list })
}
