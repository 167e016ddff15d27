package scope

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Reference names a value that is filled in when a credential is read: one of
// the role's parameters, the task, or something that Vault knows of the caller.
type Reference string

// Task is the reference to the caller's task.
const Task Reference = "task"

// identityPrefix starts the references to what Vault knows of the caller.
const identityPrefix = "identity."

// OfIdentity says whether the value comes from Vault's knowledge of the caller.
func (r Reference) OfIdentity() bool { return strings.HasPrefix(string(r), identityPrefix) }

// Parameter is the name of the role's parameter that the reference stands for,
// and false for the task and the caller's identity.
func (r Reference) Parameter() (string, bool) {
	return string(r), r != Task && !r.OfIdentity()
}

// identityShapes are the references to an identity, named as in the templates of
// Vault's policies.
// https://developer.hashicorp.com/vault/docs/concepts/policies#templated-policies
var identityShapes = regexp.MustCompile(`\Aidentity\.(?:` +
	`entity\.(?:id|name|metadata\.[^.{}]+|aliases\.[\w-]+\.(?:id|name|(?:custom_)?metadata\.[^.{}]+))|` +
	`groups\.(?:ids\.[\w-]+\.name|names\.[^.{}]+\.id))\z`)

// Template is a text with references in it, written {{name}}. It is parsed once,
// where a role is written; what is filled in later is never parsed again.
type Template struct {
	field string
	parts []part
}

// part is a literal text or, where reference is set, a place to fill in.
type part struct {
	literal   string
	reference Reference
}

// ParseTemplate reads a template. field is the name of the field it comes from,
// for the errors, which are *invalid.Error.
func ParseTemplate(field, text string) (Template, error) {
	template := Template{field: field}
	if len(text) > maxResource {
		return Template{}, invalid.Field(field, text, "longer than a policy can hold", "shorten it")
	}
	for rest := text; rest != ""; {
		literal, after, found := strings.Cut(rest, "{{")
		if strings.Contains(literal, "}}") {
			return Template{}, invalid.Field(field, text, "\"}}\" closes nothing", "write a reference as {{name}}")
		}
		if literal != "" {
			template.parts = append(template.parts, part{literal: literal})
		}
		if !found {
			break
		}
		name, beyond, closed := strings.Cut(after, "}}")
		if !closed {
			return Template{}, invalid.Field(field, text, "\"{{\" is not closed", "write a reference as {{name}}")
		}
		reference := Reference(strings.TrimSpace(name))
		switch {
		case reference == Task, ParameterName.MatchString(string(reference)):
		case reference.OfIdentity() && identityShapes.MatchString(string(reference)):
		default:
			return Template{}, invalid.Field(field, text, fmt.Sprintf("%q is no reference", invalid.Clip(string(reference))),
				"name a parameter of the role, task, identity.entity.name, identity.entity.metadata.<key>, identity.entity.aliases.<accessor>.metadata.<key> or identity.groups.ids.<id>.name")
		}
		if last := len(template.parts) - 1; last >= 0 && template.parts[last].reference != "" {
			return Template{}, invalid.Field(field, text, fmt.Sprintf("nothing parts {{%s}} from {{%s}}: one could hold a piece of the other", template.parts[last].reference, reference), "put \"/\" between them")
		}
		template.parts = append(template.parts, part{reference: reference})
		rest = beyond
	}
	return template, nil
}

// References lists what the template refers to, in order, each time it does.
func (t Template) References() []Reference {
	var all []Reference
	for _, part := range t.parts {
		if part.reference != "" {
			all = append(all, part.reference)
		}
	}
	return all
}

// blurred lists the pairs of references that stand in one segment, of which one is
// the caller's own choice and the other is not: with "-" between them, a and b-c
// read as a-b and c do.
func (t Template) blurred() [][2]Reference {
	var pairs [][2]Reference
	var before []Reference // in this segment
	for _, part := range t.parts {
		if part.reference == "" {
			if strings.ContainsAny(part.literal, "/:") {
				before = nil
			}
			continue
		}
		_, chosen := part.reference.Parameter()
		for _, other := range before {
			if _, otherChosen := other.Parameter(); chosen != otherChosen {
				pairs = append(pairs, [2]Reference{other, part.reference})
			}
		}
		before = append(before, part.reference)
	}
	return pairs
}

// Text is what a template became. It remembers which parts of it came from
// outside the role, so that a provider can hold each of them to its slot.
type Text struct {
	text   string
	filled []Filled
}

// Filled is a value in a Text: the bytes from Start to End.
type Filled struct {
	Reference  Reference
	Start, End int
}

// String is the whole text.
func (t Text) String() string { return t.text }

// Filled lists the values that were filled in.
func (t Text) Filled() []Filled { return t.filled }

// Fill puts the values in. Each is checked to be plain, see CheckValue; that it
// stays in its slot is for Pattern and the provider to say.
func (t Template) Fill(value func(Reference) (string, error)) (Text, error) {
	var text strings.Builder
	var filled []Filled
	for _, part := range t.parts {
		if part.reference == "" {
			text.WriteString(part.literal)
			continue
		}
		given, err := value(part.reference)
		if err != nil {
			return Text{}, err
		}
		if err := CheckValue(part.reference, given); err != nil {
			return Text{}, err
		}
		start := text.Len()
		text.WriteString(given)
		filled = append(filled, Filled{Reference: part.reference, Start: start, End: text.Len()})
	}
	return Text{text: text.String(), filled: filled}, nil
}

// maxValue is the longest value that is filled in, in bytes: no name of a
// resource is longer.
const maxValue = 1024

// plain are the characters of a value: those that mean nothing in a policy, an
// ARN or a path. Wildcards, quotes, braces, "$", "%", ":" and anything that is
// not ASCII, where look-alikes live, are not among them.
var plain = regexp.MustCompile(`\A[A-Za-z0-9!'()+,./=@_~-]+\z`)

// CheckValue says whether a value can be filled in anywhere. A role may forbid
// more. The error is an *invalid.Error that names the reference.
func CheckValue(reference Reference, value string) error {
	field := string(reference)
	switch {
	case value == "":
		return invalid.Field(field, value, "empty", "give a value")
	case len(value) > maxValue:
		return invalid.Field(field, value, fmt.Sprintf("longer than %d bytes", maxValue), "shorten it")
	case !plain.MatchString(value):
		return invalid.Field(field, value, "it has a character that could mean more than itself", "use letters, digits and !'()+,-./=@_~")
	case strings.Contains(value, "/") && (reference == Task || reference.OfIdentity()):
		return invalid.Field(field, value, "it would stand for several segments of a path", "use a value without \"/\", or a parameter with a pattern")
	}
	for segment := range strings.SplitSeq(value, "/") {
		switch segment {
		case "":
			return invalid.Field(field, value, "it has an empty segment", "start and end with a name, and put one \"/\" between two")
		case ".", "..":
			return invalid.Field(field, value, "a segment \"..\" or \".\" means another place to some programs", "name the place itself")
		}
	}
	return nil
}
