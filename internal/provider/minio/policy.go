package minio

import (
	"fmt"
	"strings"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// denyAll is the policy of a session that may do nothing.
const denyAll provider.Policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*"}]}`

// currentTime is the condition key that a session's times are about.
const currentTime = "aws:CurrentTime"

// maxSessionPolicy is the number of bytes that MinIO takes for a session policy.
const maxSessionPolicy = 2048

// compile writes the session policy. An Allow needs no fence on MinIO: a bucket
// policy that lets everybody in adds nothing for a signed-in caller, unlike on
// AWS, and a session can have no more than its policy. But MinIO has ways around
// an Allow that have to be closed:
//
//   - It looks a condition key up among the request's headers first, so a header
//     "Currenttime" stands for the time. A policy variable is filled in with the
//     server's own time: what the condition sees has to equal that.
//   - It puts the tags that a request carries among the condition keys, under
//     names that a tag "../CurrentTime" leaves: the server's own time is then what
//     the tag says. A request that carries tags is refused, whatever it asks for.
//   - It cleans a request's resource before it compares, so that "x/" is taken
//     for "x"; but not a Deny's resource.
func compile(granted scope.Scope, parts []part, arn scope.ARN, expiresAt time.Time) (provider.Policy, error) {
	var statements []iampolicy.Statement
	for _, part := range parts {
		statements = append(statements, iampolicy.Statement{Effect: "Allow", Action: part.actions, Resource: part.resource,
			Condition: iampolicy.Conditions{
				"DateLessThan":              {currentTime: iampolicy.Time(expiresAt)},
				"ForAllValues:StringEquals": {currentTime: "${aws:CurrentTime}"},
			}})
	}
	statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: "s3:*", Resource: "arn:aws:s3:::*",
		Condition: iampolicy.Conditions{
			"Null": {"s3:RequestObjectTagKeys": "false"},
		}})
	if _, key, ofObject := strings.Cut(arn.Resource, "/"); ofObject && !strings.HasSuffix(key, "*") {
		statements = append(statements, iampolicy.Statement{Effect: "Deny", Action: parts[0].actions,
			Resource: parts[0].resource + "/"})
	}
	policy, err := iampolicy.Policy(statements...)
	if err != nil {
		return "", err
	}
	if len(policy) > maxSessionPolicy {
		return "", invalid.Field("resource", granted.Resource(), fmt.Sprintf("its policy would have %d of the %d bytes that MinIO takes", len(policy), maxSessionPolicy), "name a shorter resource or prefix").Because(scope.ErrTooLarge)
	}
	return policy, nil
}

// checkKey refuses an object key that MinIO would take for another one.
func checkKey(arn scope.ARN) error {
	_, key, _ := strings.Cut(arn.Resource, "/")
	for _, segment := range strings.Split(strings.TrimSuffix(key, "/*"), "/") {
		if (segment == "" && key != "") || strings.HasSuffix(segment, ".") {
			return invalid.Field("resource", arn.String(), "MinIO would take a key with an empty segment, or one that ends in a dot, for another key", "name a plain key or prefix")
		}
	}
	return nil
}
