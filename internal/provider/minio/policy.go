package minio

import (
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// denyAll is the policy of a session that may do nothing.
const denyAll provider.Policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*"}]}`

// compile writes the session policy. One Allow is exact on MinIO: a bucket
// policy that lets everybody in adds nothing for a signed-in caller, unlike on
// AWS, and a session can have no more than its policy.
func compile(granted scope.Scope, expiresAt time.Time) (provider.Policy, error) {
	return iampolicy.Policy(iampolicy.Statement{
		Effect:    "Allow",
		Action:    granted.Action(),
		Resource:  granted.Resource(),
		Condition: iampolicy.Conditions{"DateLessThan": {"aws:CurrentTime": iampolicy.Time(expiresAt)}},
	})
}
