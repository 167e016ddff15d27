package minio

import (
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// denyAll is the policy of a session that may do nothing.
const denyAll provider.Policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*"}]}`

// compile writes the session policy. An Allow needs no fence on MinIO: a bucket
// policy that lets everybody in adds nothing for a signed-in caller, unlike on
// AWS, and a session can have no more than its policy. But MinIO has ways around
// an Allow that have to be closed:
//
//   - It looks a condition key up among the request's headers first, so a header
//     "CurrentTime" stands for the time. A policy variable is filled in with the
//     server's own time: what the condition sees has to equal that.
//   - It cleans a request's resource before it compares, so that "x/" is taken
//     for "x"; but not a Deny's resource.
func compile(granted scope.Scope, arn scope.ARN, expiresAt time.Time) (provider.Policy, error) {
	statements := []iampolicy.Statement{{Effect: "Allow", Action: granted.Action(), Resource: granted.Resource(), Condition: iampolicy.Conditions{
		"DateLessThan":              {"aws:CurrentTime": iampolicy.Time(expiresAt)},
		"ForAllValues:StringEquals": {"aws:CurrentTime": "${aws:CurrentTime}"},
	}}}
	if _, key, ofObject := strings.Cut(arn.Resource, "/"); ofObject && !strings.HasSuffix(key, "*") {
		statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: granted.Action(), Resource: granted.Resource() + "/"})
	}
	return iampolicy.Policy(statements...)
}
