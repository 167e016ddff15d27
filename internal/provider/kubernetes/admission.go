package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	admission "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/precision-access/vault-plugin-secrets-precision/deploy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Names of the ValidatingAdmissionPolicies, and of their bindings, that the engine looks
// at.
const (
	restartPolicy = "precision-restart" // holds accounts of the action restart to restarting
	revokedPolicy = "precision-revoked" // asks RBAC again when a request's body is there
)

// documented are the policies of the documentation's file by name, read once.
var documented = sync.OnceValue(func() map[string]admission.ValidatingAdmissionPolicySpec {
	policies, err := parsePolicies(deploy.AdmissionPolicy)
	if err != nil {
		panic(err) // a test reads it
	}
	return policies
})

func parsePolicies(text []byte) (map[string]admission.ValidatingAdmissionPolicySpec, error) {
	policies := map[string]admission.ValidatingAdmissionPolicySpec{}
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var read admission.ValidatingAdmissionPolicy
		switch err := decoder.Decode(&read); {
		case errors.Is(err, io.EOF):
			return policies, nil
		case err != nil:
			return nil, fmt.Errorf("kubernetes: the admission policies: %w", err)
		case read.Kind == "ValidatingAdmissionPolicy":
			policies[read.Name] = read.Spec
		}
	}
}

// expected is a documented policy for a namespace of minted accounts.
func expected(name, namespace string) admission.ValidatingAdmissionPolicySpec {
	policy := *documentedCopy(name)
	moved := strings.NewReplacer(
		"'system:serviceaccount:"+defaultNamespace+":", "'system:serviceaccount:"+namespace+":",
		"'system:serviceaccounts:"+defaultNamespace+"'", "'system:serviceaccounts:"+namespace+"'")
	for i := range policy.MatchConditions {
		policy.MatchConditions[i].Expression = moved.Replace(policy.MatchConditions[i].Expression)
	}
	return policy
}

func documentedCopy(name string) *admission.ValidatingAdmissionPolicySpec {
	policy := documented()[name]
	return policy.DeepCopy()
}

func noRestartPolicy(problem string) error {
	return invalid.Field("action", actionRestart,
		"to RBAC it is a patch of anything, and the ValidatingAdmissionPolicy "+restartPolicy+" that narrows it is not in force: "+problem,
		"apply the admission policy of this version's documentation, for the namespace of the target's accounts, "+
			"and let the engine read it, or name patch")
}

// policyProblem says why a documented policy is not in force; it is empty where the
// policy and its binding are there and decide what the documented ones decide. It does not
// say whether the API server asks its policies at all.
func (c *cluster) policyProblem(ctx context.Context, name string) (string, error) {
	const path = "/apis/admissionregistration.k8s.io/v1/validatingadmission"
	policy, binding := admission.ValidatingAdmissionPolicy{}, admission.ValidatingAdmissionPolicyBinding{}
	err := sideBySide(
		func() error {
			return c.client.do(ctx, call{verb: http.MethodGet, path: path + "policies/" + name}, &policy)
		},
		func() error {
			return c.client.do(ctx, call{verb: http.MethodGet, path: path + "policybindings/" + name}, &binding)
		},
	)
	switch {
	case apierrors.IsNotFound(err):
		return "the cluster does not have it, or no binding of that name", nil
	case forbidden(err):
		return "the engine may not read it", nil
	case err != nil:
		return "", wrapped("reading the admission policy", err)
	}
	if problem := policyDifference(expected(name, c.namespace), policy.Spec); problem != "" {
		return problem, nil
	}
	return bindingDifference(name, binding.Spec), nil
}

// policyDifference says in which part a policy lets through more than the documented one;
// empty for none. Further validations only narrow it.
func policyDifference(want, got admission.ValidatingAdmissionPolicySpec) string {
	switch {
	case got.FailurePolicy == nil || *got.FailurePolicy != admission.Fail:
		return "its failurePolicy is not Fail"
	case got.ParamKind != nil:
		return "it has a paramKind"
	case got.MatchConstraints == nil || !sameRequests(want.MatchConstraints, got.MatchConstraints):
		return "its matchConstraints are not the documented ones"
	case !slices.Equal(want.MatchConditions, got.MatchConditions):
		return "its matchConditions are not the documented ones"
	case !slices.Equal(want.Variables, got.Variables):
		return "its variables are not the documented ones"
	}
	for _, validation := range want.Validations {
		if !slices.ContainsFunc(got.Validations, func(one admission.Validation) bool {
			return one.Expression == validation.Expression && one.Reason != nil && *one.Reason == meta.StatusReasonForbidden
		}) {
			return "its validations are not the documented ones"
		}
	}
	return ""
}

// sameRequests says whether constraints match what the documented ones match. The API
// server fills in what the file leaves out.
func sameRequests(want, got *admission.MatchResources) bool {
	return isEmpty(got.NamespaceSelector) && isEmpty(got.ObjectSelector) && len(got.ExcludeResourceRules) == 0 &&
		(got.MatchPolicy == nil || *got.MatchPolicy == admission.Equivalent) &&
		slices.EqualFunc(want.ResourceRules, got.ResourceRules, func(a, b admission.NamedRuleWithOperations) bool {
			return len(b.ResourceNames) == 0 && (b.Scope == nil || *b.Scope == admission.AllScopes) &&
				slices.Equal(a.Operations, b.Operations) && slices.Equal(a.APIGroups, b.APIGroups) &&
				slices.Equal(a.APIVersions, b.APIVersions) && slices.Equal(a.Resources, b.Resources)
		})
}

func isEmpty(selector *meta.LabelSelector) bool {
	return selector == nil || len(selector.MatchLabels)+len(selector.MatchExpressions) == 0
}

// bindingDifference says why a binding does not put a policy into force everywhere; empty
// where it does.
func bindingDifference(policy string, got admission.ValidatingAdmissionPolicyBindingSpec) string {
	switch {
	case got.PolicyName != policy:
		return "its binding is of the policy " + got.PolicyName
	case got.ParamRef != nil:
		return "its binding has a paramRef"
	case !slices.Contains(got.ValidationActions, admission.Deny):
		return "its binding does not deny"
	case got.MatchResources != nil && (len(got.MatchResources.ResourceRules) > 0 || !sameRequests(&admission.MatchResources{}, got.MatchResources)):
		return "its binding leaves requests out"
	}
	return ""
}

// deniedBy says whether an error is the refusal of an admission policy. RBAC's own names
// no cause.
func deniedBy(err error, policy string) bool {
	var status apierrors.APIStatus
	if !forbidden(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(cause meta.StatusCause) bool {
		return strings.HasPrefix(cause.Message, "ValidatingAdmissionPolicy '"+policy+"' ")
	})
}
