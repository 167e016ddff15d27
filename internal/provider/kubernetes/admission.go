package kubernetes

import (
	"context"
	"net/http"
	"slices"
	"strings"

	admission "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// restartPolicy is the name of the ValidatingAdmissionPolicy, and of its binding, that
// holds accounts of the action restart to restarting, and restartValidations the number
// of its validations.
const (
	restartPolicy      = "precision-restart"
	restartValidations = 3
)

func noRestartPolicy() error {
	return invalid.Field("action", actionRestart, "to RBAC it is a patch of anything, and the ValidatingAdmissionPolicy "+restartPolicy+" that narrows it is not in place",
		"apply the admission policy of the documentation, for the namespace of the target's accounts, and let the engine read it, or name patch")
}

// restartAdmitted says whether the admission policy for restarts is in place: it is
// there and as it was, it is about the accounts of this target, a fault of it refuses,
// and a binding puts it into force everywhere. Who may change it may do anything.
func (c *cluster) restartAdmitted(ctx context.Context) (bool, error) {
	const path = "/apis/admissionregistration.k8s.io/v1/"
	policy, binding := admission.ValidatingAdmissionPolicy{}, admission.ValidatingAdmissionPolicyBinding{}
	err := sideBySide(
		func() error {
			return c.client.do(ctx, call{verb: http.MethodGet, path: path + "validatingadmissionpolicies/" + restartPolicy}, &policy)
		},
		func() error {
			return c.client.do(ctx, call{verb: http.MethodGet, path: path + "validatingadmissionpolicybindings/" + restartPolicy}, &binding)
		},
	)
	switch {
	case apierrors.IsNotFound(err), forbidden(err):
		return false, nil
	case err != nil:
		return false, wrapped("reading the admission policy", err)
	}
	return policy.Spec.FailurePolicy != nil && *policy.Spec.FailurePolicy == admission.Fail &&
		len(policy.Spec.Validations) >= restartValidations &&
		slices.ContainsFunc(policy.Spec.MatchConditions, func(condition admission.MatchCondition) bool {
			return strings.Contains(condition.Expression, "'system:serviceaccount:"+c.namespace+":"+restartPrefix+"'")
		}) &&
		binding.Spec.PolicyName == restartPolicy && binding.Spec.MatchResources == nil && binding.Spec.ParamRef == nil &&
		slices.Contains(binding.Spec.ValidationActions, admission.Deny), nil
}
