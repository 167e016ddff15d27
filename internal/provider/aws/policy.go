package aws

import (
	"fmt"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// maxUserPolicy is the number of characters that all inline policies of a user
// may have together, white space not counted.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const maxUserPolicy = 2048

// compile writes the user's policy: the Allow and its fence.
//
// The Allow alone would not be exact: what a resource's own policy gives to
// everybody in the account or the organisation, the user would have too. The
// fence denies everything else, so that no such policy can add to the grant
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html).
// From the top:
//
//   - the grant, until its end, on resources of this account only (a bucket's
//     ARN names no account, and a name that was given up can be taken over);
//   - no other action. KMS is left to the next statement, since a service
//     decrypts on the user's behalf;
//   - KMS only through the granted action's own service;
//   - the granted action on no other resource;
//   - nothing at all after the end, whatever else has been added to the user.
func compile(granted scope.Scope, account string, expiresAt time.Time) (provider.Policy, error) {
	action, resource := granted.Action(), granted.Resource()
	service, _, _ := strings.Cut(action, ":")
	end := iampolicy.Time(expiresAt)
	policy, err := iampolicy.Policy(
		iampolicy.Statement{Effect: "Allow", Action: action, Resource: resource, Condition: iampolicy.Conditions{
			"DateLessThan": {"aws:CurrentTime": end},
			"StringEquals": {"aws:ResourceAccount": account},
		}},
		iampolicy.Statement{Effect: "Deny", NotAction: []string{action, "kms:*"}, Resource: "*"},
		iampolicy.Statement{Effect: "Deny", Action: "kms:*", Resource: "*", Condition: iampolicy.Conditions{
			"StringNotLike": {"kms:ViaService": service + ".*"},
		}},
		iampolicy.Statement{Effect: "Deny", Action: action, NotResource: resource},
		iampolicy.Statement{Effect: "Deny", Action: "*", Resource: "*", Condition: iampolicy.Conditions{
			"DateGreaterThanEquals": {"aws:CurrentTime": end},
		}},
	)
	if err != nil {
		return "", err
	}
	if size := len(strings.Join(strings.Fields(string(policy)), "")); size > maxUserPolicy {
		return "", invalid.Field("resource", resource, fmt.Sprintf("its policy would have %d of the %d characters that IAM takes", size, maxUserPolicy), "name a shorter resource or prefix")
	}
	return policy, nil
}
