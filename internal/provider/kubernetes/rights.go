package kubernetes

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	authorization "k8s.io/api/authorization/v1"
	rbac "k8s.io/api/rbac/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// right is one verb on what it is for: "secrets in prod", "deployments.apps named web in
// prod", "nodes in *", or a path of the API server such as "/metrics".
type right struct{ verb, of string }

// everywhere stands for all namespaces, and for what is in none. No namespace has that
// name, so that an API server that is asked about it tells what holds in all.
const everywhere = "*"

// rights is a set of them, written as "get,list secrets in prod".
type rights []right

// texts writes the rights: one text for all verbs on a thing.
func (r rights) texts() []string {
	verbs := map[string][]string{}
	var things []string
	for _, one := range r {
		if verbs[one.of] == nil {
			things = append(things, one.of)
		}
		verbs[one.of] = append(verbs[one.of], one.verb)
	}
	slices.Sort(things)
	var texts []string
	for _, thing := range things {
		texts = append(texts, strings.Join(inOrder(verbs[thing]), ",")+" "+thing)
	}
	return texts
}

// except are the rights that others has not, in order.
func (r rights) except(others rights) rights {
	var rest rights
	for _, one := range r {
		if !slices.Contains(others, one) {
			rest = append(rest, one)
		}
	}
	slices.SortFunc(rest, compareRights)
	return slices.Compact(rest)
}

// both are the rights that others has, too.
func (r rights) both(others rights) rights {
	return r.except(r.except(others))
}

// within are the rights as they hold in one namespace: those that hold everywhere do.
func (r rights) within(namespace string) rights {
	var all rights
	for _, one := range r {
		if thing, wide := strings.CutSuffix(one.of, " in "+everywhere); wide {
			one.of = thing + " in " + namespace
		}
		all = append(all, one)
	}
	return all
}

func compareRights(a, b right) int {
	return cmp.Or(cmp.Compare(a.of, b.of), cmp.Compare(a.verb, b.verb))
}

// rightVerb is a verb as RBAC knows it: "*", a word, or a word of constrained impersonation.
const rightVerb = `(?:\*|[a-z]+(?:-[a-z]+)*(?::[a-z-]+(?::(?:\*|[a-z]+))?)?)`

// rightShape is how texts writes rights: verbs, and a path or a kind in a namespace.
var rightShape = regexp.MustCompile(`\A(` + rightVerb + `(?:,` + rightVerb + `)*) (/\S*|\*|\S+(?: named \S+)? in (?:[a-z0-9-]+|\*))\z`)

// parseRights reads what texts writes. The error is an *invalid.Error.
func parseRights(texts []string) (rights, error) {
	var read rights
	for _, text := range texts {
		parts := rightShape.FindStringSubmatch(text)
		if parts == nil {
			return nil, invalid.Field(provider.TolerateAmbient, text, "not a right as a refusal names it", `write it as "get,list configmaps in prod"`)
		}
		for verb := range strings.SplitSeq(parts[1], ",") {
			read = append(read, right{verb: verb, of: parts[2]})
		}
	}
	return read.except(nil), nil
}

// rightsIn are the rights of rules that hold in a namespace.
func rightsIn(namespace string, rules []rbac.PolicyRule) rights {
	var all rights
	for _, rule := range rules {
		things := slices.Clone(rule.NonResourceURLs)
		for _, group := range rule.APIGroups {
			for _, text := range rule.Resources {
				resource, subresource, _ := strings.Cut(text, "/")
				thing := kind{resource: resource, group: group, subresource: subresource}.String()
				if len(rule.ResourceNames) == 0 {
					things = append(things, thing+" in "+namespace)
				}
				for _, name := range rule.ResourceNames {
					things = append(things, thing+" named "+name+" in "+namespace)
				}
			}
		}
		for _, thing := range things {
			for _, verb := range rule.Verbs {
				all = append(all, right{verb: verb, of: thing})
			}
		}
	}
	return all.except(nil)
}

// rulesIn are the rules that an API server's answer lists.
func rulesIn(status authorization.SubjectRulesReviewStatus) []rbac.PolicyRule {
	var rules []rbac.PolicyRule
	for _, rule := range status.ResourceRules {
		rules = append(rules, rbac.PolicyRule{Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames})
	}
	for _, rule := range status.NonResourceRules {
		rules = append(rules, rbac.PolicyRule{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
	}
	return rules
}

// floor is what every account of a cluster has as it is installed: it may ask what
// itself may do, read what the API server offers, and read the certificates that the
// cluster trusts.
// https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
var floor = map[string][]string{
	"selfsubjectaccessreviews.authorization.k8s.io": {"create"},
	"selfsubjectrulesreviews.authorization.k8s.io":  {"create"},
	"selfsubjectreviews.authentication.k8s.io":      {"create"},

	// Of the ClusterRole system:cluster-trust-bundle-discovery, since Kubernetes 1.37.
	// https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#cluster-trust-bundles
	"clustertrustbundles.certificates.k8s.io": {"get", "list", "watch"},

	"/api": {"get"}, "/api/*": {"get"}, "/apis": {"get"}, "/apis/*": {"get"},
	"/openapi": {"get"}, "/openapi/*": {"get"},
	"/healthz": {"get"}, "/livez": {"get"}, "/readyz": {"get"},
	"/version": {"get"}, "/version/": {"get"},
	// Of the ClusterRole system:service-account-issuer-discovery.
	"/.well-known/openid-configuration": {"get"}, "/.well-known/openid-configuration/": {"get"},
	"/openid/v1/jwks": {"get"}, "/openid/v1/jwks/": {"get"},
}

// beyondFloor are the rights that a cluster need not give to everybody.
func (r rights) beyondFloor() rights {
	var rest rights
	for _, one := range r {
		if !slices.Contains(floor[one.bare().of], one.verb) {
			rest = append(rest, one)
		}
	}
	return rest
}
