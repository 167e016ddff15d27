package scope

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// ParameterName is the form of a parameter's name.
var ParameterName = regexp.MustCompile(`\A[a-z][a-z0-9_]{0,63}\z`)

// reserved are names that a read of credentials gives a meaning of their own.
var reserved = []string{"ttl", "role", "task", "list", "help", "read_snapshot_id", "recover_snapshot_id"}

// Limits of a role's parameters.
const (
	maxParameters = 16
	maxExpression = 256
)

// MaxOneOf is how many values an enumeration has at most.
const MaxOneOf = 100

// Parameter is a value that the reader of a credential gives. It has a pattern
// or an enumeration: one without either does not exist.
type Parameter struct {
	Pattern     string   `json:"pattern,omitempty"` // a regular expression in RE2's syntax that the whole value matches
	OneOf       []string `json:"one_of,omitempty"`
	Description string   `json:"description,omitempty"`

	matcher *regexp.Regexp
}

// ParseParameters reads a role's parameters from decoded JSON: an object, or a
// bare string that is a pattern. The errors are *invalid.Error for "parameters".
func ParseParameters(raw map[string]any) (map[string]Parameter, error) {
	if len(raw) > maxParameters {
		return nil, wrongParameter("", fmt.Sprintf("more than %d parameters", maxParameters), "use fewer")
	}
	parsed := map[string]Parameter{}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if !ParameterName.MatchString(name) {
			return nil, wrongParameter(name, "not a name", "use up to 64 small letters, digits and \"_\", a letter first")
		}
		if slices.Contains(reserved, name) {
			return nil, wrongParameter(name, "the name has a meaning of its own", "use any but "+invalid.OneOf(reserved))
		}
		parameter, err := parseParameter(name, raw[name])
		if err != nil {
			return nil, err
		}
		parsed[name] = parameter
	}
	return parsed, nil
}

func parseParameter(name string, raw any) (Parameter, error) {
	const shape = `write {"pattern": "[a-z]+"} or {"one_of": ["a", "b"]}, perhaps with a "description"`
	parameter := Parameter{}
	if text, bare := raw.(string); bare {
		parameter.Pattern = text
	} else {
		// As encoding/json would take any case of a name, and of two the last.
		object, _ := raw.(map[string]any)
		for member := range object {
			if !slices.Contains([]string{"pattern", "one_of", "description"}, member) {
				return Parameter{}, wrongParameter(name, fmt.Sprintf("%q is nothing that it has", invalid.Clip(member)), shape)
			}
		}
		text, err := json.Marshal(raw)
		if err != nil {
			return Parameter{}, wrongParameter(name, "not an object", shape)
		}
		if err := json.Unmarshal(text, &parameter); err != nil {
			return Parameter{}, wrongParameter(name, "not an object of this form", shape)
		}
	}
	if (parameter.Pattern == "") == (len(parameter.OneOf) == 0) {
		return Parameter{}, wrongParameter(name, "it has to have a pattern or an enumeration, and not both", shape)
	}
	if len(parameter.OneOf) > MaxOneOf {
		return Parameter{}, wrongParameter(name, fmt.Sprintf("more than %d values", MaxOneOf), "use a pattern")
	}
	for i, value := range parameter.OneOf {
		if err := CheckValue(Reference(name), value); err != nil {
			return Parameter{}, err
		}
		if slices.Contains(parameter.OneOf[:i], value) {
			return Parameter{}, wrongParameter(name, fmt.Sprintf("%q stands there twice", value), "name each value once")
		}
	}
	return parameter, parameter.compile(name)
}

func wrongParameter(name, problem, remedy string) error {
	return invalid.Field("parameters", name, problem, remedy)
}

// compile makes the matcher of a parameter that was read from storage.
func (p *Parameter) compile(name string) error {
	if p.Pattern == "" {
		return nil
	}
	matcher, err := WholeMatch(p.Pattern)
	if err != nil {
		return wrongParameter(name, "its pattern is "+err.Error(), WriteRE2)
	}
	p.matcher = matcher
	return nil
}

// WriteRE2 is the remedy for a pattern that is none.
const WriteRE2 = "use RE2's syntax, at most 256 characters of it: https://github.com/google/re2/wiki/Syntax"

// WholeMatch makes a pattern match whole texts and nothing less. The error says
// what the pattern is instead.
func WholeMatch(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxExpression {
		return nil, fmt.Errorf("longer than %d characters", maxExpression)
	}
	// On its own first: "a)|(b" would end the group that anchors it.
	if _, err := syntax.Parse(pattern, syntax.Perl); err != nil {
		return nil, fmt.Errorf("no regular expression: %w", err)
	}
	matcher, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("no regular expression: %w", err)
	}
	return matcher, nil
}

// Admit says whether the role admits a value. The error is an *invalid.Error.
func (p Parameter) Admit(name, value string) error {
	if err := CheckValue(Reference(name), value); err != nil {
		return err
	}
	switch {
	case len(p.OneOf) > 0:
		if !slices.Contains(p.OneOf, value) {
			return invalid.Field(name, value, "not a value that the role admits", "give "+invalid.OneOf(p.OneOf))
		}
	case p.matcher == nil || !p.matcher.MatchString(value):
		return invalid.Field(name, value, "not a value that the role admits", "give one that matches "+p.Pattern)
	}
	return nil
}

// samples are values that the role admits, for trying a role before it is
// stored: all of an enumeration; of a pattern, where they can be made, some of
// different lengths, the shortest first.
func (p Parameter) samples(name string) []string {
	if len(p.OneOf) > 0 {
		return p.OneOf
	}
	tree, err := syntax.Parse(p.Pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	var samples []string
	for _, repeats := range []int{0, 1, 3, 8, 16} {
		sample := example(tree, repeats)
		if p.Admit(name, sample) == nil && !slices.Contains(samples, sample) {
			samples = append(samples, sample)
		}
	}
	return samples
}

// longest is the longest value that the role admits, and false where there is
// no telling: the pattern has no end, or the value can't be made.
func (p Parameter) longest(name string) (string, bool) {
	if len(p.OneOf) > 0 {
		return slices.MaxFunc(p.OneOf, func(a, b string) int { return len(a) - len(b) }), true
	}
	tree, err := syntax.Parse(p.Pattern, syntax.Perl)
	if err != nil || unbounded(tree) {
		return "", false
	}
	sample := example(tree, maxValue)
	return sample, p.Admit(name, sample) == nil
}

func unbounded(tree *syntax.Regexp) bool {
	if tree.Op == syntax.OpStar || tree.Op == syntax.OpPlus || (tree.Op == syntax.OpRepeat && tree.Max < 0) {
		return true
	}
	return slices.ContainsFunc(tree.Sub, unbounded)
}

// example writes a text that a pattern matches, with repeats as the number of
// times that an optional part is repeated, within the part's own bounds.
func example(tree *syntax.Regexp, repeats int) string {
	times := func(least, most int) string {
		n := max(least, repeats)
		if most >= 0 {
			n = min(n, most)
		}
		one := example(tree.Sub[0], repeats)
		if len(one)*n > maxValue {
			n = maxValue / max(1, len(one))
		}
		return strings.Repeat(one, max(n, least))
	}
	switch tree.Op {
	case syntax.OpLiteral:
		return string(tree.Rune)
	case syntax.OpCharClass:
		return plainOf(tree.Rune)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "x"
	case syntax.OpCapture:
		return example(tree.Sub[0], repeats)
	case syntax.OpConcat:
		var text strings.Builder
		for _, sub := range tree.Sub {
			text.WriteString(example(sub, repeats))
		}
		return text.String()
	case syntax.OpAlternate:
		options := make([]string, len(tree.Sub))
		for i, sub := range tree.Sub {
			options[i] = example(sub, repeats)
		}
		return slices.MaxFunc(options, func(a, b string) int { return len(a) - len(b) })
	case syntax.OpStar:
		return times(0, -1)
	case syntax.OpPlus:
		return times(1, -1)
	case syntax.OpQuest:
		return times(0, 1)
	case syntax.OpRepeat:
		return times(tree.Min, tree.Max)
	default:
		return "" // anchors and the like
	}
}

// plainOf is a character of a class: a letter or a digit where it has one.
func plainOf(class []rune) string {
	for _, wanted := range []rune{'x', 'a', '1', '0', 'A'} {
		for i := 0; i+1 < len(class); i += 2 {
			if class[i] <= wanted && wanted <= class[i+1] {
				return string(wanted)
			}
		}
	}
	if len(class) == 0 {
		return ""
	}
	return string(class[0])
}
