package catalog

import (
	"strings"
	"sync"
)

// Encryption says what the caller of an action needs besides, where the resource
// is encrypted with a customer managed key.
type Encryption struct {
	Actions    []string      // KMS actions on the key, "kms:Decrypt"
	ViaService string        // kms:ViaService, "s3.{region}.amazonaws.com"; a * in it stands as it is
	Context    []ContextPair // kms:EncryptionContext that the service sends; empty: none, or not known
	Note       string
	Source     string
}

// ContextPair is one pair of an encryption context.
type ContextPair struct {
	Key string // "aws:s3:arn"
	// Values are alternatives, with placeholders: {resource} is the ARN of the
	// granted resource, {bucket} that of its bucket, {table} the table's name,
	// {account} the account's id. Empty: not known before the call.
	Values []string
}

var encryptions = sync.OnceValue(func() map[string]Encryption {
	result := map[string]Encryption{}
	for _, row := range table("kms.tsv", "action", "kms_actions", "kms_via_service", "encryption_context", "note", "source") {
		encryption := Encryption{Actions: strings.Fields(row[1]), ViaService: row[2], Note: row[4], Source: row[5]}
		for _, pair := range strings.Fields(row[3]) {
			key, values, _ := strings.Cut(pair, "=")
			context := ContextPair{Key: key}
			if values != "" {
				context.Values = strings.Split(values, "|")
			}
			encryption.Context = append(encryption.Context, context)
		}
		result[row[0]] = encryption
	}
	return result
})

// EncryptionOf returns what the caller of an action (canonical spelling) needs on
// an encrypted resource. An action that it does not know needs nothing, because
// the service uses the key for itself, or was not reviewed.
func EncryptionOf(action string) (Encryption, bool) {
	encryption, known := encryptions()[action]
	return encryption, known
}
