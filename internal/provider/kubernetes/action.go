package kubernetes

import (
	"maps"
	"slices"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// action is what a role's action stands for.
type action struct {
	name        string
	verbs       []string // of RBAC
	subresource string   // that they are for; empty for the resource itself
	whole       bool     // whether <namespace>/* can have it
	watches     bool     // whether allow_watch adds watch
}

// named are the actions that stand for what people mean.
var named = map[string]action{
	"apply":       {verbs: []string{"create", "get", "patch"}, whole: true},
	"write":       {verbs: []string{"create", "delete", "get", "patch", "update"}, whole: true},
	"deploy":      {verbs: []string{"create", "delete", "get", "list", "patch", "update"}, whole: true, watches: true},
	"read":        {verbs: []string{"get", "list"}, whole: true, watches: true},
	"scale":       {verbs: []string{"get", "patch", "update"}, subresource: "scale"},
	actionLogs:    {verbs: []string{"get"}, subresource: "log"},
	actionRestart: {verbs: []string{"get", "patch"}},
}

// Named actions that are more than their verbs.
const (
	actionLogs    = "logs"
	actionRestart = "restart"
)

// verbs are those of RBAC that an action can be on its own. The others, such as bind
// and impersonate, are no requests to a resource of a namespace.
// https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
var verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// Actions lists the actions that can be granted: the verbs, and the named ones.
func Actions() []string { return append(slices.Clone(verbs), slices.Sorted(maps.Keys(named))...) }

// parseAction finds an action. The error is an *invalid.Error.
func parseAction(name string) (action, error) {
	if slices.Contains(verbs, name) {
		return action{name: name, verbs: []string{name}}, nil
	}
	found, known := named[name]
	if !known {
		return action{}, invalid.Field("action", name, "neither a verb of RBAC nor one of the named actions", "name "+invalid.OneOf(Actions()))
	}
	found.name = name
	return found, nil
}

// allow says whether the action can be granted on a resource, as far as that follows
// from the two alone. The error is an *invalid.Error.
func (a action) allow(on resource, watch bool) error {
	wrong := func(problem, remedy string) error { return invalid.Field("action", a.name, problem, remedy) }
	switch {
	case on.all && !a.whole:
		return wrong("can't be granted on a whole namespace", "name apply, write, deploy or read, or one resource")
	case on.name != "" && a.name == "create":
		return wrong("can't be narrowed by name: the API server does not know the name of what is created when it decides", "name apply, which creates the one object by its name, or leave the name out")
	case on.name != "" && a.name == "deletecollection":
		return wrong("can't be narrowed by name: it deletes what a selector finds", "name delete, or leave the name out")
	case a.name == "watch" && !watch:
		return wrong("an open watch goes on after the credential has been ended, until whoever watches closes it", "name get or list, or say allow_watch=true")
	case a.name == actionLogs && !watch:
		return wrong("who may read logs may follow them, and goes on reading after the credential has been ended; RBAC can't tell the two apart", "say allow_watch=true if that is meant")
	case a.name == actionLogs && on.kind.String() != "pods":
		return wrong("only pods have logs", "name "+on.namespace+"/pods or one of them")
	case a.name == actionRestart && !slices.Contains(restartable, on.kind.String()):
		return wrong("can't be granted on "+on.kind.String(), "name a resource of "+invalid.OneOf(restartable))
	}
	return nil
}

// restartable are the resources whose pods kubectl rollout restart replaces.
var restartable = []string{"daemonsets.apps", "deployments.apps", "statefulsets.apps"}

// verbsWith are the action's verbs, and watch besides where the action lists and the role
// allows it.
func (a action) verbsWith(watch bool) []string {
	if a.watches && watch {
		return append(slices.Clone(a.verbs), "watch")
	}
	return a.verbs
}
