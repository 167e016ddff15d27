package kubernetes

import (
	"testing"

	admission "k8s.io/api/admissionregistration/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The documented policies are compared with what a cluster has, in each part that decides.
func TestPolicyDifference(t *testing.T) {
	for _, name := range []string{restartPolicy, revokedPolicy} {
		want := expected(name, "accounts")
		if len(want.Validations) == 0 || want.MatchConstraints == nil {
			t.Fatalf("%s is not documented", name)
		}
		if problem := policyDifference(want, filledIn(name)); problem != "" {
			t.Errorf("%s, as an API server fills it in: %s", name, problem)
		}
		if problem := policyDifference(want, expected(name, defaultNamespace)); problem == "" {
			t.Errorf("%s for another namespace is taken for this one's", name)
		}
		for what, change := range tampered() {
			got := filledIn(name)
			change(&got)
			if problem := policyDifference(want, got); problem == "" {
				t.Errorf("%s with %s is taken for the documented one", name, what)
			}
		}
		more := filledIn(name)
		more.Validations = append(more.Validations, admission.Validation{Expression: "false"})
		if problem := policyDifference(want, more); problem != "" {
			t.Errorf("%s with a further validation: %s", name, problem)
		}
	}
}

// filledIn is a policy as an API server answers with it.
func filledIn(name string) admission.ValidatingAdmissionPolicySpec {
	policy, all, equivalent := expected(name, "accounts"), admission.AllScopes, admission.Equivalent
	policy.MatchConstraints.NamespaceSelector, policy.MatchConstraints.ObjectSelector = &meta.LabelSelector{}, &meta.LabelSelector{}
	policy.MatchConstraints.MatchPolicy = &equivalent
	for i := range policy.MatchConstraints.ResourceRules {
		policy.MatchConstraints.ResourceRules[i].Scope = &all
	}
	return policy
}

// tampered are changes after which a policy lets more through.
func tampered() map[string]func(*admission.ValidatingAdmissionPolicySpec) {
	ignore, exact, namespaced := admission.Ignore, admission.Exact, admission.NamespacedScope
	prod := &meta.LabelSelector{MatchExpressions: []meta.LabelSelectorRequirement{{Key: "guarded", Operator: meta.LabelSelectorOpExists}}}
	return map[string]func(*admission.ValidatingAdmissionPolicySpec){
		"faults that are ignored":  func(s *admission.ValidatingAdmissionPolicySpec) { s.FailurePolicy = &ignore },
		"no failure policy":        func(s *admission.ValidatingAdmissionPolicySpec) { s.FailurePolicy = nil },
		"a parameter":              func(s *admission.ValidatingAdmissionPolicySpec) { s.ParamKind = &admission.ParamKind{} },
		"no constraints":           func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConstraints = nil },
		"a selector of namespaces": func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConstraints.NamespaceSelector = prod },
		"a selector of objects":    func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConstraints.ObjectSelector = prod },
		"exact matching":           func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConstraints.MatchPolicy = &exact },
		"fewer operations": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].Operations = []admission.OperationType{admission.Delete}
		},
		"fewer resources": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].Resources = []string{"pods"}
		},
		"fewer groups": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].APIGroups = []string{"batch"}
		},
		"fewer versions": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].APIVersions = []string{"v2"}
		},
		"names": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].ResourceNames = []string{"a"}
		},
		"a scope": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].Scope = &namespaced
		},
		"no rules": func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConstraints.ResourceRules = nil },
		"rules that are left out": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ExcludeResourceRules = s.MatchConstraints.ResourceRules
		},
		"a condition that is false": func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConditions[0].Expression = "false" },
		"a further condition": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.MatchConditions = append(s.MatchConditions, admission.MatchCondition{Name: "never", Expression: "false"})
		},
		"expressions that are true": func(s *admission.ValidatingAdmissionPolicySpec) {
			for i := range s.Validations {
				s.Validations[i].Expression = "true"
			}
		},
		"a validation less":  func(s *admission.ValidatingAdmissionPolicySpec) { s.Validations = s.Validations[1:] },
		"a validation eased": func(s *admission.ValidatingAdmissionPolicySpec) { s.Validations[0].Expression += " || true" },
		"another variable": func(s *admission.ValidatingAdmissionPolicySpec) {
			s.Variables = append(s.Variables, admission.Variable{Name: "more", Expression: "1"})
		},
		"no condition at all": func(s *admission.ValidatingAdmissionPolicySpec) { s.MatchConditions = nil },
	}
}

// A binding puts its policy into force everywhere, or does not.
func TestBindingDifference(t *testing.T) {
	right := func() admission.ValidatingAdmissionPolicyBindingSpec {
		return admission.ValidatingAdmissionPolicyBindingSpec{PolicyName: restartPolicy, ValidationActions: []admission.ValidationAction{admission.Deny}}
	}
	if problem := bindingDifference(restartPolicy, right()); problem != "" {
		t.Error(problem)
	}
	all := right()
	all.MatchResources = &admission.MatchResources{NamespaceSelector: &meta.LabelSelector{}}
	if problem := bindingDifference(restartPolicy, all); problem != "" {
		t.Errorf("with an empty selector: %s", problem)
	}
	for what, change := range map[string]func(*admission.ValidatingAdmissionPolicyBindingSpec){
		"another policy": func(s *admission.ValidatingAdmissionPolicyBindingSpec) { s.PolicyName = "other" },
		"a warning": func(s *admission.ValidatingAdmissionPolicyBindingSpec) {
			s.ValidationActions = []admission.ValidationAction{admission.Warn}
		},
		"a parameter": func(s *admission.ValidatingAdmissionPolicyBindingSpec) { s.ParamRef = &admission.ParamRef{} },
		"some namespaces": func(s *admission.ValidatingAdmissionPolicyBindingSpec) {
			s.MatchResources = &admission.MatchResources{NamespaceSelector: &meta.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}
		},
		"some resources": func(s *admission.ValidatingAdmissionPolicyBindingSpec) {
			s.MatchResources = &admission.MatchResources{ResourceRules: []admission.NamedRuleWithOperations{{}}}
		},
	} {
		got := right()
		change(&got)
		if problem := bindingDifference(restartPolicy, got); problem == "" {
			t.Errorf("a binding with %s is taken for the documented one", what)
		}
	}
}
