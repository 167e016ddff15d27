package kubernetes

import (
	"encoding/json"
	"slices"
	"strings"

	rbac "k8s.io/api/rbac/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Effects of a verdict.
const (
	effectAllowed   = "Allowed"
	effectShown     = "AllowedByAnother" // request, which shows the same
	effectForbidden = "Forbidden"
)

// asked is a request that somebody wants to know of.
type asked struct {
	verb string
	on   resource
}

// parseQuestion reads a question. Its resource may name a subresource behind the
// object's name, as the API's paths do: prod/pods/web-1/exec. The errors are
// *invalid.Error.
func parseQuestion(question provider.Question) (asked, error) {
	if !slices.Contains(verbs, question.Action) && !isImpersonation(question.Action) {
		return asked{}, invalid.Field("action", question.Action, "not a verb of RBAC", "ask about "+invalid.OneOf(verbs)+", or a verb of impersonation")
	}
	text, subresource := question.Resource, ""
	if strings.Count(text, "/") == 3 {
		at := strings.LastIndex(text, "/")
		text, subresource = text[:at], text[at+1:]
		if !isLabel(subresource) {
			return asked{}, invalid.Field("resource", question.Resource, "not the name of a subresource", "write it as prod/pods/web-1/log")
		}
	}
	on, err := parseResource(text)
	if err != nil {
		return asked{}, err
	}
	if on.all {
		return asked{}, invalid.Field("resource", question.Resource, "not one resource", "ask about one, such as "+on.namespace+"/pods")
	}
	on.kind.subresource = subresource
	return asked{verb: question.Action, on: on}, nil
}

// Check implements provider.Checker.
func (c *cluster) Check(policy provider.Policy, question provider.Question) (provider.Verdict, error) {
	switch {
	case question.ResourcePolicy != "":
		return provider.Verdict{}, invalid.Hidden("resource_policy", "Kubernetes has none", "leave it out")
	case len(question.Context) > 0:
		return provider.Verdict{}, invalid.Hidden("context", "RBAC has no conditions", "leave it out")
	}
	one, err := parseQuestion(question)
	if err != nil {
		return provider.Verdict{}, err
	}
	minted, err := parsePolicy(policy)
	if err != nil {
		return provider.Verdict{}, err
	}
	return minted.judge(one)
}

// judge says what the API server would answer.
func (d document) judge(one asked) (provider.Verdict, error) {
	if one.on.namespace != d.Namespace {
		return provider.Verdict{Effect: effectForbidden, Reason: "the grant is for the namespace " + d.Namespace}, nil
	}
	verdict := func(allowed bool, effect, reason string, rule rbac.PolicyRule) (provider.Verdict, error) {
		clause, err := json.Marshal(rule)
		return provider.Verdict{Allowed: allowed, Effect: effect, Reason: reason, Clause: string(clause), Of: "role"}, err
	}
	if impersonates(one.verb) {
		return d.judgeImpersonation(one)
	}
	if rule, found := d.ruleFor(one.verb, one.on); found {
		reason := "a rule of the grant's Role has it"
		if d.AdmissionPolicy != "" && slices.Contains(changing, one.verb) {
			reason += ", and the admission policy " + d.AdmissionPolicy + " lets through what is a restart"
		}
		return verdict(true, effectAllowed, reason, rule)
	}
	if !slices.Contains(reading, one.verb) || one.on.kind.subresource != "" || d.AdmissionPolicy != "" {
		return provider.Verdict{Effect: effectForbidden, Reason: "no rule of the grant's Role has it"}, nil
	}
	for _, verb := range slices.Concat(showing[one.verb], revealing) {
		rule, found := d.ruleFor(verb, one.on)
		if !found {
			continue
		}
		reason := verb + " shows what it would"
		if slices.Contains(revealing, verb) {
			reason = verb + " with dryRun=All changes nothing and shows what it would"
		}
		if one.on.kind == secrets {
			return verdict(true, effectShown, "no rule of the grant's Role has it, but "+reason+", and a secret that is shown is read", rule)
		}
		return verdict(false, effectForbidden, "no rule of the grant's Role has it, but "+reason, rule)
	}
	return provider.Verdict{Effect: effectForbidden, Reason: "no rule of the grant's Role has it"}, nil
}

// judgeImpersonation says whether the holder may act as somebody else: no grant has that,
// but the role may tolerate that everybody may.
func (d document) judgeImpersonation(one asked) (provider.Verdict, error) {
	tolerated, err := parseRights(d.TolerateAmbient)
	if err != nil {
		return provider.Verdict{}, err
	}
	for _, right := range tolerated.within(d.Namespace) {
		if right.allows(one) {
			return provider.Verdict{Allowed: true, Effect: effectAllowed, Reason: "the cluster gives it to every account, and the role tolerates that: " + right.verb + " " + right.of}, nil
		}
	}
	return provider.Verdict{Effect: effectForbidden, Reason: "no grant can have it: it is what others may do"}, nil
}

// showing are the verbs that show what another does.
var showing = map[string][]string{"get": {"list", "watch"}, "list": {"watch"}, "watch": {"list"}}

// ruleFor finds a rule that allows a request, as the API server does.
// https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
func (d document) ruleFor(verb string, on resource) (rbac.PolicyRule, bool) {
	for _, rule := range d.Rules {
		if slices.Contains(rule.Verbs, verb) && slices.Contains(rule.APIGroups, on.kind.group) && slices.Contains(rule.Resources, on.kind.inRule()) &&
			(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, on.name)) {
			return rule, true
		}
	}
	return rbac.PolicyRule{}, false
}
