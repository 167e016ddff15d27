package kubernetes

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// A role that tolerates that everybody may act as somebody else hands out further power,
// and check says what its credentials may do so.
func TestToleratedImpersonation(t *testing.T) {
	for _, right := range []string{
		"impersonate serviceaccounts in prod",
		"impersonate:serviceaccount serviceaccounts.authentication.k8s.io named admin in prod",
		"impersonate-on:user-info:list pods in *",
		"* serviceaccounts in prod",
		"* *.* in *",
	} {
		every := strings.HasPrefix(right, "* *")
		bounds := provider.Bounds{Facts: offered(t), Options: provider.Settings{provider.TolerateAmbient: []string{right}}}
		if _, err := opened(t).Compile(scoped(t, "read", "prod/pods"), bounds); !errors.As(err, new(*invalid.Error)) || !strings.Contains(err.Error(), "allow_escalation") {
			t.Errorf("%s is tolerated without allow_escalation: %v", right, err)
		}
		bounds.AllowEscalation = true
		policy, err := opened(t).Compile(scoped(t, "read", "prod/pods"), bounds)
		if err != nil {
			t.Fatal(err)
		}
		for _, question := range []struct {
			verb, resource string
			allowed        bool
		}{
			{"impersonate", "prod/serviceaccounts/admin", every || strings.HasSuffix(right, " serviceaccounts in prod")},
			{"impersonate", "staging/serviceaccounts/admin", false},
			{"impersonate:serviceaccount", "prod/serviceaccounts.authentication.k8s.io/admin",
				every || strings.HasPrefix(right, "impersonate:")},
			{"impersonate:serviceaccount", "prod/serviceaccounts.authentication.k8s.io/other", every},
			{"impersonate-on:user-info:list", "prod/pods", every || strings.HasPrefix(right, "impersonate-on:")},
			{"impersonate-on:user-info:get", "prod/pods", every},
		} {
			verdict, err := opened(t).Check(policy, provider.Question{Action: question.verb, Resource: question.resource})
			if err != nil || verdict.Allowed != question.allowed {
				t.Errorf("tolerating %s: %s of %s: %+v, %v", right, question.verb, question.resource, verdict, err)
			}
		}
	}
}
