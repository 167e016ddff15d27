// Package scope holds what a credential may do: one action on one resource.
// It knows the shapes, not the targets: which actions exist and how a policy
// is written is each provider's business. It imports no SDK.
package scope

import (
	"encoding/json"
	"strings"
	"unicode"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Longest values that are taken, in bytes. An IAM policy of a user or a session
// has 2,048 characters in all, so nothing longer could be minted.
const (
	maxAction     = 128
	maxResource   = 1600
	maxCompanions = 8
)

// Scope is one action on one resource, spelled as the role spells them, with
// every parameter filled in. The zero value is no scope; New and
// Definition.Fill make one.
type Scope struct {
	action     string
	resource   Text
	companions []Text
	conditions []Condition
	tags       Tags // which are no part of what may be done
}

// New is the scope of an action on a resource, with nothing to fill in and no
// conditions. The errors are *invalid.Error. A provider's Compile then checks
// what its target knows of them.
func New(action, resource string) (Scope, error) {
	scope := Scope{action: action, resource: Text{text: resource}}
	if err := checkAction(action); err != nil {
		return Scope{}, err
	}
	return scope, checkText("resource", resource)
}

// checkAction checks what holds for every target: it is there, one, and a word.
func checkAction(action string) error {
	const remedy = "name one action, such as s3:PutObject"
	switch {
	case action == "":
		return invalid.Field("action", action, "a role names exactly one action", remedy)
	case len(action) > maxAction:
		return invalid.Field("action", action, "longer than any action's name", remedy)
	case strings.ContainsAny(action, "*?"):
		return invalid.Field("action", action, "an action has no wildcard", remedy)
	case strings.ContainsFunc(action, notGraphicASCII):
		return invalid.Field("action", action, "an action has no space, control or non-ASCII character", remedy)
	}
	return nil
}

// checkText checks what holds for every text in a policy: it is there, a policy
// can hold it, and no part of it is a variable that the target would fill in.
func checkText(field, text string) error {
	switch {
	case text == "":
		return invalid.Field(field, text, "missing", "name it, such as arn:aws:s3:::bucket/prefix/*")
	case len(text) > maxResource:
		return invalid.Field(field, text, "longer than a policy can hold", "shorten it")
	case strings.Contains(text, "${"):
		return invalid.Field(field, text, "a policy variable would be filled in by the target, not by the role", "write it out, or use a parameter: {{name}}")
	}
	for _, char := range text {
		// IAM takes only U+0020 to U+00FF (and tab, LF, CR, which no name needs)
		// in a policy document.
		// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
		if unicode.IsControl(char) || char > 0xFF {
			return invalid.Field(field, text, "holds a character that a policy can't", "use printable characters from U+0020 to U+00FF")
		}
	}
	return nil
}

// Action is the action's name.
func (s Scope) Action() string { return s.action }

// Resource is the resource's name, an ARN where the target uses ARNs.
func (s Scope) Resource() string { return s.resource.text }

// ResourceText is the resource with what was filled into it.
func (s Scope) ResourceText() Text { return s.resource }

// Companions are the further resources that the action is authorised on.
func (s Scope) Companions() []Text { return s.companions }

// Conditions are what the grant depends on besides, in canonical order.
func (s Scope) Conditions() []Condition { return s.conditions }

// Canonical is the scope as one text: the same for equal scopes only.
func (s Scope) Canonical() string {
	companions := make([]string, len(s.companions))
	for i, companion := range s.companions {
		companions[i] = companion.text
	}
	text, err := json.Marshal([]any{s.action, s.resource.text, companions, s.conditions})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	return string(text)
}

func notGraphicASCII(char rune) bool { return char <= ' ' || char >= 0x7F }

func notPrintableASCII(char rune) bool { return char < ' ' || char >= 0x7F }
