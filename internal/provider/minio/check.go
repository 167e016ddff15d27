package minio

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// holder stands for the session. MinIO has no accounts; the language that its
// policies are written in has.
var holder = iampolicy.Principal{ARN: "arn:aws:iam::000000000000:user/session"}

// comesWith are the actions that MinIO does not tell from another one, which they
// are allowed by.
var comesWith = map[string]string{
	"s3:DeleteObjectVersionTagging": "s3:DeleteObjectTagging",
	"s3:GetObjectVersion":           "s3:GetObject",
	"s3:GetObjectVersionTagging":    "s3:GetObjectTagging",
	"s3:ListBucketVersions":         "s3:ListBucket",
}

// actionAsked is the action that MinIO would judge by. The name of a request that
// is no action is refused: the answer would be no, and the request might be
// allowed. The error is an *invalid.Error.
func actionAsked(name string) (string, error) {
	if needed, ok := catalog.Operation(name); ok {
		return "", invalid.Field("action", name, "an operation of the API and no action", "ask about "+needed+", which allows it")
	}
	if _, known := catalog.Find(name); !known {
		return "", invalid.Field("action", name, "not an action that is known here", "ask about one such as "+invalid.OneOf(Actions()[:3]))
	}
	if other, comes := comesWith[name]; comes {
		return other, nil
	}
	return name, nil
}

// Check implements provider.Checker.
func (m *minio) Check(policy provider.Policy, question provider.Question) (provider.Verdict, error) {
	switch {
	case question.ResourcePolicy != "":
		return provider.Verdict{}, invalid.Hidden("resource_policy", "on MinIO a bucket's policy adds nothing for a session", "leave it out")
	case len(question.Context) > 0:
		return provider.Verdict{}, invalid.Hidden("context", "a session's policy on MinIO depends on the time alone", "leave it out")
	}
	if task, isNamed := named[question.Action]; isNamed {
		return m.checkNamed(task, policy, question)
	}
	action, err := actionAsked(question.Action)
	if err != nil {
		return provider.Verdict{}, err
	}
	if _, err := scope.ParseARN(question.Resource); err != nil {
		return provider.Verdict{}, err
	}
	session, err := iampolicy.Parse("policy", string(policy))
	if err != nil {
		return provider.Verdict{}, err
	}
	decision, err := iampolicy.Evaluate(iampolicy.Request{
		Action: action, Resource: question.Resource, Principal: holder,
		Context: map[string][]string{"aws:CurrentTime": {question.Time.UTC().Format(time.RFC3339)}},
	}, iampolicy.Policies{Identity: &session})
	if err != nil {
		return provider.Verdict{}, err
	}
	return decision.Verdict(), nil
}

// checkNamed judges each action of a named one on what a role with that resource would
// grant it on. The session may do the task if it may do each.
func (m *minio) checkNamed(task namedAction, policy provider.Policy,
	question provider.Question) (verdict provider.Verdict, err error) {
	asked := question
	actions := task.objects
	if task.lists {
		actions = append(slices.Clone(actions), "s3:ListBucket")
	}
	for _, action := range actions {
		if asked.Action = action; action == "s3:ListBucket" {
			asked.Resource, _, _ = strings.Cut(question.Resource, "/")
		}
		if verdict, err = m.Check(policy, asked); err != nil {
			return provider.Verdict{}, err
		}
		if !verdict.Allowed {
			verdict.Reason = fmt.Sprintf("%s needs %s on %s: %s", question.Action, asked.Action, asked.Resource, verdict.Reason)
			return verdict, nil
		}
	}
	verdict.Reason = fmt.Sprintf("each of the %d actions of %s is allowed", len(actions), question.Action)
	return verdict, nil
}
