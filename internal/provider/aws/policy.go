package aws

import (
	"fmt"
	"unicode/utf8"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// maxPolicy is the number of characters that all inline policies of a user may
// have together, white space not counted; a session's policy may have as many.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const maxPolicy = 2048

// compile writes the policy: the Allow and its fence.
//
// The Allow alone would not be exact: what a resource's own policy gives to
// everybody in the account or the organisation, the holder would have too. The
// fence denies everything else, so that no such policy can add to the grant
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html).
// From the top:
//
//   - the grant, until its end, on resources of this account only (a bucket's
//     ARN names no account, and a name that was given up can be taken over);
//   - the key that the resource is encrypted with, where the role names one;
//   - no other action. KMS is left to the next statements, since a service
//     decrypts on the holder's behalf;
//   - KMS only through the granted action's own service, and only with that key;
//   - the granted action on no other resource, and on none of another account
//     that has the same name;
//   - the granted action under no other condition: a condition on the Allow alone
//     is skipped by a resource's own policy;
//   - nothing at all after the end, whatever else has been added to the holder.
func (g grant) compile() (provider.Policy, error) {
	conditions, fence, err := g.bound()
	if err != nil {
		return "", err
	}
	statements := g.allow(conditions)
	statements = append(statements, g.encryption.allow()...)
	statements = append(statements, g.encryption.fence(g.action.Name)...)
	statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: g.action.Name, NotResource: texts(g.resources)})
	statements = append(statements, g.fenceAccount()...)
	statements = append(statements, fence...)
	statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: "*", Resource: "*", Condition: iampolicy.Conditions{
		"DateGreaterThanEquals": {"aws:CurrentTime": iampolicy.Time(g.end)},
	}})
	policy, err := iampolicy.Policy(statements...)
	if err != nil {
		return "", err
	}
	return policy, g.checkSize(policy)
}

// allow is the grant itself. A resource that AWS owns is in no account of the
// target's, and its ARN says so.
func (g grant) allow(conditions iampolicy.Conditions) []iampolicy.Statement {
	var own, amazons []scope.ARN
	for i, arn := range g.resources {
		if g.amazons[i] {
			amazons = append(amazons, arn)
		} else {
			own = append(own, arn)
		}
	}
	ends := iampolicy.Conditions{"DateLessThan": {"aws:CurrentTime": iampolicy.Time(g.end)}}
	var statements []iampolicy.Statement
	if len(own) > 0 {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: g.action.Name, Resource: texts(own),
			Condition: merged(conditions, ends, iampolicy.Conditions{"StringEquals": {keyResourceAccount: g.account}})})
	}
	if len(amazons) > 0 {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: g.action.Name, Resource: texts(amazons), Condition: merged(conditions, ends)})
	}
	return statements
}

// fenceAccount denies the action on what has a granted resource's name in another
// account, where the ARN names none. The condition on the Allow is not enough,
// for a resource's own policy would skip it.
func (g grant) fenceAccount() []iampolicy.Statement {
	var nameless []scope.ARN
	for i, arn := range g.resources {
		if arn.Account == "" && !g.amazons[i] {
			nameless = append(nameless, arn)
		}
	}
	if len(nameless) == 0 {
		return nil
	}
	var resource iampolicy.Values = "*" // shorter, and the action is denied on all else
	if len(nameless) < len(g.resources) {
		resource = texts(nameless)
	}
	return []iampolicy.Statement{{Effect: "Deny", Action: g.action.Name, Resource: resource,
		Condition: iampolicy.Conditions{"StringNotEquals": {keyResourceAccount: g.account}}}}
}

// merged is all conditions in one block. checkConditions has seen to it that no
// two of them have both operator and key in common.
func merged(blocks ...iampolicy.Conditions) iampolicy.Conditions {
	all := iampolicy.Conditions{}
	for _, block := range blocks {
		for operator, keys := range block {
			for key, values := range keys {
				if all[operator] == nil {
					all[operator] = map[string]iampolicy.Values{}
				}
				all[operator][key] = values
			}
		}
	}
	return all
}

func texts(arns []scope.ARN) []string {
	list := make([]string, len(arns))
	for i, arn := range arns {
		list[i] = arn.String()
	}
	return list
}

// checkSize refuses a policy that IAM would not take, and says what of it could
// be shorter.
func (g grant) checkSize(policy provider.Policy) error {
	size := utf8.RuneCountInString(string(policy)) // all white space in it is part of a name
	if size <= maxPolicy {
		return nil
	}
	parts := []string{fmt.Sprintf("a shorter resource (%d characters, written twice)", len(g.resources[0].String()))}
	if len(g.resources) > 1 {
		parts = append(parts, "shorter companion_resources")
	}
	if len(g.conditions) > 0 {
		parts = append(parts, "fewer or shorter conditions (each is written twice)")
	}
	if g.encryption != nil {
		parts = append(parts, "no kms_key")
	}
	return invalid.Field("resource", g.resources[0].String(), fmt.Sprintf("the policy would have %d of the %d characters that IAM takes", size, maxPolicy),
		"use "+invalid.OneOf(parts)).Because(scope.ErrTooLarge)
}
