package vault

import (
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Check implements provider.Checker. What a token is bound to besides, such as its
// number of uses, is not part of the question.
func (v *vault) Check(policy provider.Policy, question provider.Question) (provider.Verdict, error) {
	switch {
	case question.ResourcePolicy != "":
		return provider.Verdict{}, invalid.Hidden("resource_policy", "Vault's paths have no policies of their own", "leave it out")
	case len(question.Context) > 0:
		return provider.Verdict{}, invalid.Hidden("context", "a policy of Vault has no conditions", "leave it out")
	}
	if err := checkCapability(question.Action); err != nil {
		return provider.Verdict{}, err
	}
	asked := question.Resource
	if question.Action == "list" {
		asked = strings.TrimSuffix(asked, "/") // which a list is asked with
	}
	if err := checkPath(question.Resource, asked); err != nil {
		return provider.Verdict{}, err
	}
	written, err := read(policy)
	if err != nil {
		return provider.Verdict{}, err
	}
	path, _ := written.only()
	clause := fmt.Sprintf("path %q { capabilities = %q }", path, written.Path[path].Capabilities)
	prefix, below := strings.CutSuffix(path, "*")
	matches := asked == path || (below && (strings.HasPrefix(asked, prefix) || (question.Action == "list" && asked+"/" == prefix)))
	switch {
	case !matches:
		return provider.Verdict{Effect: "denied", Reason: "no rule of the token's policy is for the path"}, nil
	case !slices.Contains(written.Path[path].Capabilities, question.Action):
		return provider.Verdict{Effect: "denied", Reason: "the rule for the path has another capability", Clause: clause, Of: "the token's policy"}, nil
	default:
		return provider.Verdict{Allowed: true, Effect: "allowed", Reason: "the rule for the path has the capability", Clause: clause, Of: "the token's policy"}, nil
	}
}
