package minio

import (
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// holder stands for the session. MinIO has no accounts; the language that its
// policies are written in has.
var holder = iampolicy.Principal{ARN: "arn:aws:iam::000000000000:user/session"}

// Check implements provider.Checker.
func (m *minio) Check(policy provider.Policy, question provider.Question) (provider.Verdict, error) {
	switch {
	case question.ResourcePolicy != "":
		return provider.Verdict{}, invalid.Hidden("resource_policy", "on MinIO a bucket's policy adds nothing for a session", "leave it out")
	case len(question.Context) > 0:
		return provider.Verdict{}, invalid.Hidden("context", "a session's policy on MinIO depends on the time alone", "leave it out")
	}
	if _, err := scope.ParseARN(question.Resource); err != nil {
		return provider.Verdict{}, err
	}
	session, err := iampolicy.Parse("policy", string(policy))
	if err != nil {
		return provider.Verdict{}, err
	}
	decision, err := iampolicy.Evaluate(iampolicy.Request{
		Action: question.Action, Resource: question.Resource, Principal: holder,
		Context: map[string][]string{"aws:CurrentTime": {question.Time.UTC().Format(time.RFC3339)}},
	}, iampolicy.Policies{Identity: &session})
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
