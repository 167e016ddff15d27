package minio

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/iampolicy"
)

// What MinIO takes for a user: names of 20 characters at most, secret keys of 40.
const (
	parentPrefix     = "p-"
	parentNameLength = 20
	parentKeyLength  = 40
)

// lower is base32 in the characters that a user's name has.
func lower(data []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(data))
}

// parentName names the user that the sessions of one scope are of, by 90 bits of a
// hash: of the engine's own user as well, from whose key the parent's comes, since two
// targets may be one store.
func parentName(engine, mount, ledger string, rules provider.Policy) string {
	text, err := json.Marshal([]string{engine, mount, ledger, string(rules)})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	sum := sha256.Sum256(text)
	return parentPrefix + lower(sum[:])[:parentNameLength-len(parentPrefix)]
}

// keyOf is what a user of the engine's signs with. A parent's secret follows from that
// of the engine's user, so it is stored nowhere.
func (c *client) keyOf(user string) aws.Credentials {
	if user == c.accessKey {
		return c.credentials()
	}
	sum := hmac.New(sha256.New, []byte(c.secretKey))
	_, _ = sum.Write([]byte("secret key of the parent " + user)) // a hash takes everything
	return aws.Credentials{AccessKeyID: user, SecretAccessKey: lower(sum.Sum(nil))[:parentKeyLength]}
}

// rulesOf is a session's policy without its times: what a parent may do, which any of
// its sessions can be shown.
func rulesOf(policy provider.Policy) (provider.Policy, error) {
	var document struct{ Statement []iampolicy.Statement }
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return "", fmt.Errorf("minio: reading a session's policy: %w", err)
	}
	for _, statement := range document.Statement {
		for operator, keys := range statement.Condition {
			if delete(keys, currentTime); len(keys) == 0 {
				delete(statement.Condition, operator)
			}
		}
	}
	return iampolicy.Policy(document.Statement...)
}
