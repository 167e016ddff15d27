package scope

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Limits of a role's conditions; a policy has room for far fewer.
const (
	maxConditions      = 20
	maxConditionValues = 20
	maxConditionName   = 128
)

// Condition narrows a scope: it holds where the key compares to one of the
// values as the operator says. What operators and keys there are, the target
// knows.
type Condition struct {
	Operator, Key string
	Values        []string

	texts []Text
}

// Texts are the values with what was filled into them; none of a Condition that
// was not filled in.
func (c Condition) Texts() []Text { return c.texts }

// ConditionTemplate is a Condition before its values are filled in.
type ConditionTemplate struct {
	Operator, Key string
	Values        []Template
}

// ParseConditions reads a condition block from decoded JSON: operator, to key, to
// a value or a list of values. They come in a canonical order. The errors are
// *invalid.Error for "conditions".
func ParseConditions(raw map[string]any) ([]ConditionTemplate, error) {
	const shape = `write {"StringEquals": {"aws:RequestTag/env": "prod"}}`
	wrong := func(name, problem string) error { return invalid.Field("conditions", name, problem, shape) }
	var all []ConditionTemplate
	for _, operator := range slices.Sorted(maps.Keys(raw)) {
		block := raw[operator]
		keys, ok := block.(map[string]any)
		if !ok || len(keys) == 0 {
			return nil, wrong(operator, "an operator has to have an object of keys")
		}
		seen := map[string]bool{}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			value := keys[key]
			if operator == "" || key == "" || len(operator) > maxConditionName || len(key) > maxConditionName {
				return nil, wrong(key, "not the name of a condition key")
			}
			if strings.ContainsAny(key, "${}<>*?") || strings.ContainsFunc(key, notPrintableASCII) {
				return nil, wrong(key, "not the name of a condition key, written out")
			}
			folded := strings.ToLower(key)
			if seen[folded] {
				return nil, wrong(key, "the key stands twice below "+operator+": its case does not count")
			}
			seen[folded] = true
			values, err := parseValues(value)
			if err != nil {
				return nil, wrong(key, err.Error())
			}
			condition := ConditionTemplate{Operator: operator, Key: key}
			for _, text := range values {
				template, err := ParseTemplate("conditions", text)
				if err != nil {
					return nil, err
				}
				condition.Values = append(condition.Values, template)
			}
			all = append(all, condition)
		}
	}
	if len(all) > maxConditions {
		return nil, wrong("", fmt.Sprintf("more than %d conditions", maxConditions))
	}
	return all, nil
}

func parseValues(raw any) ([]string, error) {
	list, isList := raw.([]any)
	if !isList {
		list = []any{raw}
	}
	if len(list) == 0 || len(list) > maxConditionValues {
		return nil, fmt.Errorf("not between 1 and %d values", maxConditionValues)
	}
	var values []string
	for _, entry := range list {
		switch value := entry.(type) {
		case string:
			if value == "" {
				return nil, fmt.Errorf("a value is empty")
			}
			values = append(values, value)
		case bool:
			values = append(values, fmt.Sprint(value))
		case json.Number:
			values = append(values, value.String())
		default:
			return nil, fmt.Errorf("a value is neither a string, nor a number, nor a truth value")
		}
	}
	return values, nil
}

// Fill puts the values in.
func (c ConditionTemplate) Fill(value func(Reference) (string, error)) (Condition, error) {
	filled := Condition{Operator: c.Operator, Key: c.Key}
	for _, template := range c.Values {
		text, err := template.Fill(value)
		if err != nil {
			return Condition{}, err
		}
		if err := checkText("conditions", text.String()); err != nil {
			return Condition{}, err
		}
		filled.Values = append(filled.Values, text.String())
		filled.texts = append(filled.texts, text)
	}
	return filled, nil
}
