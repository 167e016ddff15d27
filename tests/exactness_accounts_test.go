package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/roles"
)

// proveAccounts grants resources of another account. Across accounts both have
// to allow a request, so that the grant works where the resource's policy lets
// it in, and a resource of the same name in the credential's own account must
// not do instead.
func proveAccounts(t *testing.T, m *mount) []subject {
	var subjects []subject
	for i, pair := range [][2]string{
		{"s3:PutObject", "arn:aws:s3:::releases/app/*"},
		{"s3:GetObject", "arn:aws:s3:::releases/app/1.tgz"},
		{"s3:ListBucket", "arn:aws:s3:::releases"},
		{"sqs:SendMessage", "arn:aws:sqs:eu-west-1:" + roles.Other + ":jobs"},
		{"route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z123"},
	} {
		action, _ := catalog.Find(pair[0])
		made, refusal, err := m.subject(t.Context(), fmt.Sprintf("account-%d", i), roles.Role{Action: action, Resource: pair[1]}, map[string]any{"resource_account": roles.Other})
		if err != nil || refusal != "" {
			t.Fatal(refusal, err)
		}
		subjects = append(subjects, *made)
	}
	c := newCourt(t)
	c.try(subjects, func(s *subject) []ask {
		all := slices.Concat(otherActions(s), otherResources(s), otherConditions(s))
		if resource := s.instances()[0]; strings.SplitN(resource, ":", 6)[4] == "" {
			own := s.ask("the own account's resource of that name", s.Action.Name, resource)
			own.account = roles.Account
			all = append(all, own.with(own.kind, "aws:ResourceAccount", roles.Account))
		}
		return all
	}, always)
	c.try(subjects, grantAsks, func(set setting) bool { return set.resourcePolicy != "" })
	t.Log(c.line())
	return subjects
}
