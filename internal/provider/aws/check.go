package aws

import (
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Check implements provider.Checker. The holder is a user of the target's
// account that has the policy and nothing else, or a session with that policy
// whose base role or user may do everything.
func (a *account) Check(policy provider.Policy, question provider.Question) (provider.Verdict, error) {
	if _, err := FindAction(question.Action); err != nil {
		return provider.Verdict{}, err
	}
	if _, err := scope.ParseARN(question.Resource); question.Resource != "*" && err != nil {
		return provider.Verdict{}, err
	}
	minted, err := iampolicy.Parse("policy", string(policy))
	if err != nil {
		return provider.Verdict{}, err
	}
	kind, err := a.credentials(question.Options.Text(handleType))
	if err != nil {
		return provider.Verdict{}, err
	}
	holder, policies := a.holder(), iampolicy.Policies{Identity: &minted}
	if session, is := kind.(*sessions); is {
		if holder, err = session.holder(question.Options); err != nil {
			return provider.Verdict{}, err
		}
		policies = iampolicy.Policies{Session: &minted}
	}
	if question.ResourcePolicy != "" {
		resource, err := iampolicy.Parse("resource_policy", question.ResourcePolicy)
		if err != nil {
			return provider.Verdict{}, err
		}
		policies.Resource = &resource
	}
	context := map[string][]string{keyCurrentTime: {question.Time.UTC().Format(time.RFC3339)}}
	if question.SourceIP.IsValid() {
		context[keySourceIP] = []string{question.SourceIP.String()}
	}
	for key, values := range question.Context {
		for set, field := range map[string]string{keyCurrentTime: "time", keySourceIP: "source_ip"} {
			if strings.EqualFold(key, set) {
				return provider.Verdict{}, invalid.Field("context", key, "there is a field for it", "use "+field)
			}
		}
		context[key] = values
	}
	decision, err := iampolicy.Evaluate(iampolicy.Request{
		Action: question.Action, Resource: question.Resource, Principal: holder, Context: context,
	}, policies)
	if err != nil {
		return provider.Verdict{}, err
	}
	return provider.Verdict{
		Allowed: decision.Effect == iampolicy.Allowed,
		Effect:  string(decision.Effect),
		Reason:  decision.Reason,
		Clause:  decision.Statement,
		Of:      string(decision.Source),
	}, nil
}

// holder stands for the user that a credential is: no resource's policy can name
// it, since its own name is unguessable.
func (a *account) holder() iampolicy.Principal {
	return iampolicy.Principal{ARN: "arn:" + a.partition + ":iam::" + a.id + ":user/precision/holder"}
}
