// Package scope holds what a credential may do: one action on one resource.
// It knows the shapes, not the targets: which actions exist and how a policy
// is written is each provider's business. It imports no SDK.
package scope

import (
	"strings"
	"unicode"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Longest values that New takes, in bytes. An IAM policy of a user or a
// session has 2,048 characters in all, so nothing longer could be minted.
const (
	maxAction   = 128
	maxResource = 1600
)

// Scope is one action on one resource, spelled as the target spells them. The
// zero value is no scope; New makes one.
type Scope struct {
	action   string
	resource string
}

// New checks what holds for every target: both parts are there, no wildcard in
// the action, no policy variable and no character that a policy can't hold
// anywhere. The errors are *invalid.Error. A provider's Compile then checks
// what its target knows of them.
func New(action, resource string) (Scope, error) {
	switch {
	case action == "":
		return Scope{}, invalid.Field("action", action, "a role names exactly one action", "name it, such as s3:PutObject")
	case len(action) > maxAction:
		return Scope{}, invalid.Field("action", action, "longer than any action's name", "name one action, such as s3:PutObject")
	case strings.ContainsAny(action, "*?"):
		return Scope{}, invalid.Field("action", action, "an action has no wildcard", "name one action, such as s3:PutObject")
	case strings.ContainsFunc(action, notGraphicASCII):
		return Scope{}, invalid.Field("action", action, "an action has no space, control or non-ASCII character", "name one action, such as s3:PutObject")
	case resource == "":
		return Scope{}, invalid.Field("resource", resource, "a role names exactly one resource", "name it, such as arn:aws:s3:::bucket/prefix/*")
	case len(resource) > maxResource:
		return Scope{}, invalid.Field("resource", resource, "longer than a policy can hold", "name a shorter resource or prefix")
	case strings.Contains(resource, "${"):
		return Scope{}, invalid.Field("resource", resource, "a policy variable would be filled in by the target, not by the role", "write the resource out")
	}
	for _, char := range resource {
		// IAM takes only U+0020 to U+00FF (and tab, LF, CR, which no resource
		// name needs) in a policy document.
		// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
		if unicode.IsControl(char) || char > 0xFF {
			return Scope{}, invalid.Field("resource", resource, "holds a character that a policy can't", "use printable characters from U+0020 to U+00FF")
		}
	}
	return Scope{action: action, resource: resource}, nil
}

// Action is the action's name.
func (s Scope) Action() string { return s.action }

// Resource is the resource's name, an ARN where the target uses ARNs.
func (s Scope) Resource() string { return s.resource }

func notGraphicASCII(char rune) bool { return char <= ' ' || char >= 0x7F }
