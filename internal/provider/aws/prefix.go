package aws

import (
	"cmp"
	"regexp"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

const (
	fieldUsernamePrefix = "username_prefix"
	fieldSessionPrefix  = "session_prefix"

	usualUsernamePrefix = "precision"
)

// prefixShape leaves room for the unguessable part, and for what people read, in 64
// characters; of those that names of users and sessions have in common it leaves out
// what separates.
var prefixShape = regexp.MustCompile(`\A[A-Za-z0-9_+=.@]{1,16}\z`)

func prefixFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldUsernamePrefix: {
			Type:         framework.TypeString,
			Description:  "What the names of users start with, before the grant's id. Default: " + usualUsernamePrefix + ".",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Username prefix"},
		},
		fieldSessionPrefix: {
			Type:         framework.TypeString,
			Description:  "What stands in the names of sessions before role and task, and after the code that they are revoked by. Default: nothing.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Session prefix"},
		},
	}
}

// prefixesIn reads the prefixes of users' and sessions' names.
func prefixesIn(settings provider.Settings) (username, session string, err error) {
	for _, field := range []string{fieldUsernamePrefix, fieldSessionPrefix} {
		if text := settings.Text(field); text != "" && !prefixShape.MatchString(text) {
			return "", "", invalid.Field(field, text, "not a prefix of a name", "write 1 to 16 letters, digits and _+=.@")
		}
	}
	return cmp.Or(settings.Text(fieldUsernamePrefix), usualUsernamePrefix), settings.Text(fieldSessionPrefix), nil
}
