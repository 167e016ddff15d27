package kubernetes

import (
	"context"
	"net/http"
	"slices"
	"strings"

	discovery "k8s.io/api/apidiscovery/v2"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// inventory is all that a cluster has.
type inventory struct {
	namespaced offers
	wide       map[kind]bool   // kinds that are not in a namespace
	short      map[string]kind // by singular and short names
	silent     map[string]bool // groups whose API server does not answer
}

// aggregated asks for a whole inventory in one answer.
// https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"

// discover reads what the cluster has, of all versions: RBAC knows none.
func (c *client) discover(ctx context.Context) (inventory, error) {
	found := inventory{namespaced: offers{}, wide: map[kind]bool{}, short: map[string]kind{}, silent: map[string]bool{}}
	for _, path := range []string{"/api", "/apis"} {
		groups := discovery.APIGroupDiscoveryList{}
		if err := c.do(ctx, call{verb: http.MethodGet, path: path, accept: aggregated}, &groups); err != nil {
			return inventory{}, wrapped("discovery", err)
		}
		if groups.Kind != "APIGroupDiscoveryList" {
			return inventory{}, invalid.Hidden("target", "its API server can't list what the cluster has in one answer", "use Kubernetes 1.27 or later")
		}
		for _, group := range groups.Items {
			for _, version := range group.Versions {
				found.silent[group.Name] = found.silent[group.Name] || version.Freshness == discovery.DiscoveryFreshnessStale
				for _, one := range version.Resources {
					found.take(group.Name, one)
				}
			}
		}
	}
	return found, nil
}

func (i inventory) take(group string, one discovery.APIResourceDiscovery) {
	main := kind{resource: one.Resource, group: group}
	i.add(main, one.Scope, one.Verbs)
	for _, name := range append(slices.Clone(one.ShortNames), one.SingularResource) {
		if _, taken := i.short[name]; !taken {
			i.short[name] = main
		}
	}
	for _, sub := range one.Subresources {
		i.add(main.of(sub.Subresource), one.Scope, sub.Verbs)
	}
}

func (i inventory) add(one kind, scope discovery.ResourceScope, verbs meta.Verbs) {
	if scope != discovery.ScopeNamespace {
		i.wide[one] = true
		return
	}
	i.namespaced[one] = inOrder(append(slices.Clone(i.namespaced[one]), verbs...))
}

// about is what of the inventory a request's Compile needs.
func (i inventory) about(asked request) offers {
	relevant := offers{}
	for offer, verbs := range i.namespaced {
		_, judged := table()[offer]
		switch {
		case asked.on.all && (judged || slices.Contains(asked.options.groups, offer.group)),
			!asked.on.all && offer == asked.on.kind.of(asked.action.subresource):
			relevant[offer] = verbs
		}
	}
	return relevant
}

// check says why the cluster does not have what a request names. The error is an
// *invalid.Error.
func (i inventory) check(asked request) error {
	if asked.on.all {
		return i.checkGroups(asked.options.groups)
	}
	wanted := asked.on.kind
	wrong := func(problem, remedy string) error {
		return invalid.Field("resource", asked.on.String(), problem, remedy)
	}
	if _, offered := i.namespaced[wanted]; offered {
		if _, has := i.namespaced[wanted.of(asked.action.subresource)]; !has {
			return invalid.Field("action", asked.action.name, wanted.String()+" has no subresource "+asked.action.subresource, "name another resource or another action")
		}
		return nil
	}
	if i.wide[wanted] {
		return wrong(wanted.String()+" is not in a namespace, and a grant is", "name a resource that is")
	}
	if i.silent[wanted.group] {
		return wrong("the API server of the group "+wanted.group+" does not answer", "try again when it does")
	}
	return wrong("the cluster has no resource "+wanted.String()+" in a namespace", "name "+invalid.OneOf(i.nearest(asked.on)))
}

func (i inventory) checkGroups(groups []string) error {
	var all []string
	for offer := range i.namespaced {
		if !builtIn(offer.group) {
			all = append(all, offer.group)
		}
	}
	all = inOrder(all)
	for _, group := range groups {
		if !slices.Contains(all, group) {
			remedy := "leave it out"
			if len(all) > 0 {
				remedy = "name " + invalid.OneOf(scope.Nearest(group, all))
			}
			return invalid.Field(fieldIncludeGroups, group, "the cluster has no resource of this group in a namespace", remedy)
		}
	}
	return nil
}

// nearest are the resources that a wrong one may have meant, as a role would name them:
// what has its name in another group or for short, or else what is spelled alike.
func (i inventory) nearest(wrong resource) []string {
	var kinds []string
	for offer := range i.namespaced {
		if offer.subresource == "" && offer.resource == wrong.kind.resource {
			kinds = append(kinds, offer.String())
		}
	}
	if meant, short := i.short[wrong.kind.resource]; short && len(kinds) == 0 && !i.wide[meant] {
		kinds = append(kinds, meant.String())
	}
	if len(kinds) == 0 {
		for offer := range i.namespaced {
			if offer.subresource == "" {
				kinds = append(kinds, offer.String())
			}
		}
		kinds = scope.Nearest(wrong.kind.String(), kinds)
	}
	slices.Sort(kinds)
	for at, one := range kinds {
		kinds[at] = strings.TrimSuffix(wrong.namespace+"/"+one+"/"+wrong.name, "/")
	}
	return kinds
}
