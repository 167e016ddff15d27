package kubernetes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	rbac "k8s.io/api/rbac/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// document is a policy: what a credential may do, and what has to hold when it is
// minted. The rules are those of the Role, byte for byte.
type document struct {
	Namespace       string            `json:"namespace"`
	Rules           []rbac.PolicyRule `json:"rules"`
	Audiences       []string          `json:"audiences,omitempty"`
	TolerateAmbient []string          `json:"tolerate_ambient,omitempty"`
	AdmissionPolicy string            `json:"admission_policy,omitempty"` // that has to be in place, or RBAC grants more than is meant
	Labels          map[string]string `json:"labels,omitempty"`           // of account and binding, beside the engine's own
	WaitReady       bool              `json:"wait_ready"`
}

func (d document) policy() (provider.Policy, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("kubernetes: %w", err)
	}
	return provider.Policy(text), nil
}

// parsePolicy reads what Compile has written.
func parsePolicy(policy provider.Policy) (document, error) {
	var read document
	decoder := json.NewDecoder(bytes.NewReader([]byte(policy)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return document{}, fmt.Errorf("kubernetes: not a policy: %w", err)
	}
	if read.Namespace == "" || len(read.Rules) == 0 {
		return document{}, fmt.Errorf("kubernetes: a policy without a namespace or without rules")
	}
	return read, nil
}

// allowed is one kind and what of it is granted.
type allowed struct {
	kind  kind
	verbs []string
}

// rulesOf writes one rule for the kinds of a group that have the same verbs. It is a
// pure function of its arguments: the same grants give the same rules.
func rulesOf(granted []allowed, name string) []rbac.PolicyRule {
	var rules []rbac.PolicyRule
	sorted := slices.SortedFunc(slices.Values(granted), func(a, b allowed) int { return compareKinds(a.kind, b.kind) })
	for _, one := range sorted {
		verbs := slices.Sorted(slices.Values(one.verbs))
		at := slices.IndexFunc(rules, func(rule rbac.PolicyRule) bool {
			return rule.APIGroups[0] == one.kind.group && slices.Equal(rule.Verbs, verbs)
		})
		if at < 0 {
			rule := rbac.PolicyRule{Verbs: verbs, APIGroups: []string{one.kind.group}}
			if name != "" {
				rule.ResourceNames = []string{name}
			}
			rules = append(rules, rule)
			at = len(rules) - 1
		}
		rules[at].Resources = append(rules[at].Resources, one.kind.inRule())
	}
	return rules
}
