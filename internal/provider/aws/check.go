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
	if found, isNamed := FindNamed(question.Action); isNamed {
		return a.checkNamed(found, policy, question)
	}
	if _, err := FindAction(question.Action); err != nil {
		return provider.Verdict{}, err
	}
	if reason, free := ungoverned[question.Action]; free {
		return provider.Verdict{Allowed: true, Effect: string(iampolicy.Allowed), Reason: reason}, nil
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
	if other := ownedByOther(question, context); other != "" {
		context[keyResourceAccount] = []string{other}
	}
	decision, err := iampolicy.Evaluate(iampolicy.Request{
		Action: question.Action, Resource: question.Resource, Principal: holder, Context: context,
	}, policies)
	if err != nil {
		return provider.Verdict{}, err
	}
	return decision.Verdict(), nil
}

// ungoverned are the actions that no policy forbids, and why.
var ungoverned = map[string]string{
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
	"sts:GetCallerIdentity": "AWS asks for no permission, and no policy forbids it: it says whose the credential is",
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_getsessiontoken.html
	"sts:GetSessionToken": "AWS asks for no permission, and no policy forbids it: a session that a user gets has the user's own policies",
}

// ownedByOther is the account that the role is about, where the ARN in question
// names none and the asker says nothing else; empty for the holder's own.
func ownedByOther(question provider.Question, context map[string][]string) string {
	for key := range context {
		if strings.EqualFold(key, keyResourceAccount) {
			return ""
		}
	}
	if arn, err := scope.ParseARN(question.Resource); err != nil || arn.Account != "" {
		return ""
	}
	return question.Options.Text("resource_account")
}

// holder stands for the user that a credential is: no resource's policy can name
// it, since its own name is unguessable.
func (a *account) holder() iampolicy.Principal {
	return iampolicy.Principal{ARN: "arn:" + a.partition + ":iam::" + a.id + ":user/precision/holder"}
}
