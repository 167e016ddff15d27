// Package iampolicy writes and evaluates policies in the JSON policy language
// that AWS IAM defined and MinIO reads too. It is pure: no clock, no network.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
package iampolicy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Versions of the policy language. Only the newer one knows variables, and a
// document that names none is of the older one.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_version.html
const (
	version    = "2012-10-17"
	oldVersion = "2008-10-17"
)

// Effects of a statement.
const (
	effectAllow = "Allow"
	effectDeny  = "Deny"
)

// Values are what an element may hold: one string or a []string. One value is
// written as a plain string, several as a list. Write refuses anything else.
type Values any

// Statement allows or denies. Of Action and NotAction, and of Resource and
// NotResource, exactly one is set.
type Statement struct {
	Effect      string     `json:"Effect"`
	Action      Values     `json:"Action,omitempty"`
	NotAction   Values     `json:"NotAction,omitempty"`
	Resource    Values     `json:"Resource,omitempty"`
	NotResource Values     `json:"NotResource,omitempty"`
	Condition   Conditions `json:"Condition,omitempty"`
}

// Conditions map an operator to condition keys and their values. All of them
// have to hold; of the values of one key, one has to match.
type Conditions map[string]map[string]Values

// Time writes a point in time as date conditions take it.
func Time(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// Write is the document of these statements as compact JSON, the same text for
// the same statements.
func Write(statements ...Statement) (string, error) {
	if len(statements) == 0 {
		return "", fmt.Errorf("writing a policy: no statement")
	}
	written := make([]Statement, len(statements))
	for i, statement := range statements {
		short, err := statement.shortened()
		if err != nil {
			return "", fmt.Errorf("writing a policy: statement %d: %w", i+1, err)
		}
		written[i] = short
	}
	return compact(struct {
		Version   string      `json:"Version"`
		Statement []Statement `json:"Statement"`
	}{version, written})
}

// shortened is the statement in its shortest notation, if it is complete.
func (s Statement) shortened() (Statement, error) {
	if s.Effect != effectAllow && s.Effect != effectDeny {
		return Statement{}, fmt.Errorf("effect %q", s.Effect)
	}
	if (s.Action == nil) == (s.NotAction == nil) {
		return Statement{}, fmt.Errorf("one of Action and NotAction has to be set")
	}
	if (s.Resource == nil) == (s.NotResource == nil) {
		return Statement{}, fmt.Errorf("one of Resource and NotResource has to be set")
	}
	for _, element := range []*Values{&s.Action, &s.NotAction, &s.Resource, &s.NotResource} {
		if *element == nil {
			continue
		}
		values, err := list(*element)
		if err != nil {
			return Statement{}, err
		}
		if slices.Contains(values, "") {
			return Statement{}, fmt.Errorf("an empty action or resource")
		}
		*element = shortest(values)
	}
	conditions := make(Conditions, len(s.Condition))
	for operator, keys := range s.Condition {
		if len(keys) == 0 {
			return Statement{}, fmt.Errorf("condition %s names no key", operator)
		}
		conditions[operator] = make(map[string]Values, len(keys))
		for key, element := range keys {
			values, err := list(element)
			if err != nil {
				return Statement{}, fmt.Errorf("condition %s on %s: %w", operator, key, err)
			}
			conditions[operator][key] = shortest(values)
		}
	}
	s.Condition = conditions
	return s, nil
}

// list is values as a list of at least one.
func list(values Values) ([]string, error) {
	switch values := values.(type) {
	case string:
		return []string{values}, nil
	case []string:
		if len(values) > 0 {
			return values, nil
		}
		return nil, fmt.Errorf("an empty list")
	case []any: // a list that was read from JSON
		texts := make([]string, len(values))
		for i, value := range values {
			text, ok := value.(string)
			if !ok {
				return nil, fmt.Errorf("a value of type %T in a list of strings", value)
			}
			texts[i] = text
		}
		return list(texts)
	default:
		return nil, fmt.Errorf("a value of type %T, neither a string nor a list of them", values)
	}
}

// shortest is the shorter notation of a list.
func shortest(values []string) Values {
	if len(values) == 1 {
		return values[0]
	}
	return values
}

// compact is value as JSON without a superfluous character.
func compact(value any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // "&" in a resource stays one character
	if err := encoder.Encode(value); err != nil {
		return "", fmt.Errorf("writing a policy: %w", err)
	}
	return string(bytes.TrimSpace(text.Bytes())), nil
}
