package kubernetes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// request is what a role asks for, as far as it can be judged without the cluster.
type request struct {
	action  action
	on      resource
	options options
}

// newRequest reads a scope. The errors are *invalid.Error.
func (c *cluster) newRequest(granted scope.Scope, bounds provider.Bounds) (request, error) {
	switch {
	case c.Identity() == "":
		return request{}, invalid.Hidden("target", "which cluster it is is not known, because its connection was never verified", "write its config again with verify_connection=true")
	case len(granted.Conditions()) > 0:
		return request{}, invalid.Hidden("conditions", "RBAC has none", "leave them out")
	case bounds.SourceIP.IsValid():
		return request{}, invalid.Hidden("bound_source_ip", "a service account's token works from everywhere", "leave it out")
	case len(granted.Companions()) > 0:
		return request{}, invalid.Hidden("companion_resources", "every request to Kubernetes is about one resource", "leave them out")
	}
	action, err := parseAction(granted.Action())
	if err != nil {
		return request{}, err
	}
	on, err := parseResource(granted.Resource())
	if err != nil {
		return request{}, err
	}
	if err := on.checkSlots(granted.ResourceText()); err != nil {
		return request{}, err
	}
	if on.namespace == c.namespace {
		return request{}, invalid.Field("resource", on.String(), "the namespace holds the accounts of all grants, and what is granted there could reach them", "name another namespace, or give the target one of its own as namespace")
	}
	made := request{action: action, on: on}
	if made.options, err = parseOptions(bounds.Options); err != nil {
		return request{}, err
	}
	if err := made.options.fit(on); err != nil {
		return request{}, err
	}
	return made, action.allow(on, made.options.watch)
}

// grant is a request that the cluster can grant exactly. newGrant makes one.
type grant struct {
	request
	granted []allowed
	policy  document
}

// newGrant checks a scope against what is known of the cluster. The errors are
// *invalid.Error.
func (c *cluster) newGrant(asked scope.Scope, bounds provider.Bounds) (grant, error) {
	request, err := c.newRequest(asked, bounds)
	if err != nil {
		return grant{}, err
	}
	offered, err := offersIn(bounds.Facts)
	if err != nil {
		return grant{}, err
	}
	made := grant{request: request}
	if made.granted, err = request.allowedOf(offered); err != nil {
		return grant{}, err
	}
	if reasons := c.escalations(made); len(reasons) > 0 && !bounds.AllowEscalation {
		return grant{}, invalid.Field("action", request.action.name, "it hands out further power: "+strings.Join(reasons, "; "), "grant something narrower, or say allow_escalation=true")
	}
	made.policy = document{
		Namespace:       request.on.namespace,
		Rules:           rulesOf(made.granted, request.on.name),
		Audiences:       request.options.audiences,
		TolerateAmbient: request.options.tolerated.texts(),
		Labels:          request.options.labels,
		WaitReady:       request.options.waitReady,
	}
	if request.action.name == actionRestart {
		if bounds.Facts[factRestart] != "true" {
			return grant{}, noRestartPolicy(cmp.Or(bounds.Facts[factRestartProblem], "it was not looked for"))
		}
		made.policy.AdmissionPolicy = restartPolicy
	}
	return made, nil
}

// allowedOf is what of the request the cluster has.
func (r request) allowedOf(offered offers) ([]allowed, error) {
	if len(offered) == 0 {
		return nil, invalid.Hidden("resource", "what the cluster has of it was not asked", "write the role again")
	}
	if !r.on.all {
		return r.named(offered)
	}
	wanted := r.action.verbsWith(r.options.watch)
	var granted []allowed
	for _, offer := range offered.sorted() {
		if !r.contains(offer) {
			continue
		}
		verbs := slices.DeleteFunc(slices.Clone(wanted), func(verb string) bool { return !slices.Contains(offered[offer], verb) })
		if len(verbs) > 0 {
			granted = append(granted, allowed{kind: offer, verbs: verbs})
		}
	}
	if len(granted) == 0 {
		return nil, invalid.Field("resource", r.on.String(), "the cluster has nothing that this action could be granted on", "name a resource")
	}
	for _, group := range r.options.groups {
		if !slices.ContainsFunc(granted, func(one allowed) bool { return one.kind.group == group }) {
			return nil, invalid.Field(fieldIncludeGroups, group, "the cluster has no resource of this group in a namespace that "+r.action.name+" could be granted on", "leave it out")
		}
	}
	return granted, nil
}

// contains says whether <namespace>/* has a kind for the request's action. A kind
// that nobody has judged is in it only where the role names its group, and then
// without its subresources.
func (r request) contains(offer kind) bool {
	if offer == secrets {
		return r.options.secrets
	}
	if known, judged := table()[offer]; judged {
		if r.action.name == "read" {
			return known.read
		}
		return known.write
	}
	return offer.subresource == "" && slices.Contains(r.options.groups, offer.group)
}

// named is what of a named resource is granted.
func (r request) named(offered offers) ([]allowed, error) {
	target := r.on.kind.of(r.action.subresource)
	offer, known := offered[target]
	if !known {
		return nil, invalid.Field("resource", r.on.String(), "the cluster does not have "+target.String()+", or it was not asked", "name another resource, or write the role again")
	}
	wanted := r.action.verbsWith(r.options.watch)
	for _, verb := range wanted {
		if !slices.Contains(offer, verb) {
			return nil, invalid.Field("action", r.action.name, fmt.Sprintf("%s takes no %s", target, verb), "name a verb that it takes: "+invalid.OneOf(offer))
		}
	}
	return []allowed{{kind: target, verbs: wanted}}, nil
}
