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
// A named action has several parts, each with actions and resources of its own; what is
// said of the granted action holds for each of them. From the top:
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
	var statements []iampolicy.Statement
	for _, part := range g.parts {
		statements = append(statements, g.allow(part, conditions)...)
	}
	statements = append(statements, g.encryption.allow()...)
	statements = append(statements, g.encryption.fence(prefixOf(g.name), names(g.actions()))...)
	for _, part := range g.parts {
		if len(part.resources) > 0 {
			statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: names(part.actions),
				NotResource: texts(part.resources)})
		}
	}
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

// allow is a part of the grant itself. Whose a resource is says its ARN; of those whose
// ARN doesn't, the account is asked for. Not of the others: some requests, those for
// EBS among them, don't say which account their resource is of, and would never
// be allowed.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-resourceaccount
func (g grant) allow(granted part, conditions iampolicy.Conditions) []iampolicy.Statement {
	conditions = merged(conditions, granted.conditions)
	if len(g.parts) == 1 { // several have no room for it; the last statement denies everything then
		conditions = merged(conditions, iampolicy.Conditions{"DateLessThan": {keyCurrentTime: iampolicy.Time(g.end)}})
	}
	actions := names(granted.actions)
	if len(granted.resources) == 0 {
		return []iampolicy.Statement{{Effect: "Allow", Action: actions, Resource: "*", Condition: conditions}}
	}
	owned, ownerless := granted.byOwner()
	var statements []iampolicy.Statement
	if len(ownerless) > 0 {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: actions, Resource: texts(ownerless),
			Condition: merged(conditions, iampolicy.Conditions{"StringEquals": {keyResourceAccount: g.account}})})
	}
	if len(owned) > 0 {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: actions, Resource: texts(owned),
			Condition: conditions})
	}
	return statements
}

// byOwner parts the resources whose ARN names their account, or AWS, from those
// whose ARN says nothing of it, as a bucket's.
func (p part) byOwner() (owned, ownerless []scope.ARN) {
	for i, arn := range p.resources {
		if arn.Account == "" && !p.amazons[i] {
			ownerless = append(ownerless, arn)
		} else {
			owned = append(owned, arn)
		}
	}
	return owned, ownerless
}

// fenceAccount denies the actions on what has a granted resource's name in another
// account, where the ARN names none. The condition on the Allow is not enough,
// for a resource's own policy would skip it.
func (g grant) fenceAccount() []iampolicy.Statement {
	elsewhere := iampolicy.Conditions{"StringNotEquals": {keyResourceAccount: g.account}}
	var statements []iampolicy.Statement
	var whole []string // actions that are granted on such resources alone
	for _, part := range g.parts {
		owned, ownerless := part.byOwner()
		switch {
		case len(ownerless) == 0:
		case len(owned) == 0:
			whole = append(whole, names(part.actions)...)
		default:
			statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: names(part.actions),
				Resource: texts(ownerless), Condition: elsewhere})
		}
	}
	if len(whole) > 0 { // on "*", which is shorter: the actions are denied on all else
		statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: whole, Resource: "*",
			Condition: elsewhere})
	}
	return statements
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
	resource := g.parts[0].resources[0].String()
	parts := []string{fmt.Sprintf("a shorter resource (%d characters, written twice)", len(resource))}
	if _, isNamed := FindNamed(g.name); isNamed {
		parts = []string{fmt.Sprintf("a shorter resource (%d characters, written %d times)", len(resource), 2*len(g.parts)),
			"one action of " + g.name + " alone"}
	}
	if len(g.parts[0].resources) > 1 {
		parts = append(parts, "shorter companion_resources")
	}
	if len(g.conditions) > 0 {
		parts = append(parts, "fewer or shorter conditions (each is written twice)")
	}
	if g.encryption != nil {
		parts = append(parts, "no kms_key")
	}
	return invalid.Field("resource", resource,
		fmt.Sprintf("the policy would have %d of the %d characters that IAM takes", size, maxPolicy),
		"use "+invalid.OneOf(parts)).Because(scope.ErrTooLarge)
}
