package iampolicy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// fieldConditions is the field that errors of this file are about.
const fieldConditions = "conditions"

// opposites hold exactly where the other one doesn't, for a key that is there.
// Of a pair with a Not, one holds for a missing key; of the others, neither does.
var opposites = map[string]string{
	"StringEquals":             "StringNotEquals",
	"StringEqualsIgnoreCase":   "StringNotEqualsIgnoreCase",
	"StringLike":               "StringNotLike",
	"NumericEquals":            "NumericNotEquals",
	"NumericLessThan":          "NumericGreaterThanEquals",
	"NumericLessThanEquals":    "NumericGreaterThan",
	"NumericGreaterThan":       "NumericLessThanEquals",
	"NumericGreaterThanEquals": "NumericLessThan",
	"DateEquals":               "DateNotEquals",
	"DateLessThan":             "DateGreaterThanEquals",
	"DateLessThanEquals":       "DateGreaterThan",
	"DateGreaterThan":          "DateLessThanEquals",
	"DateGreaterThanEquals":    "DateLessThan",
	"IpAddress":                "NotIpAddress",
	"ArnEquals":                "ArnNotEquals",
	"ArnLike":                  "ArnNotLike",
}

// opposite looks in both directions.
func opposite(base string) (string, bool) {
	if found, ok := opposites[base]; ok {
		return found, true
	}
	for positive, negative := range opposites {
		if negative == base && comparisons[base].negated {
			return positive, true
		}
	}
	return "", false
}

// Negate is the block of conditions that holds exactly where the condition does
// not, be it that the key has another value or that it is missing. What can't be
// negated so is refused: the error is an *invalid.Error for "conditions".
//
// A missing key is the hard half, since most operators don't hold for it and
// neither do their opposites. Of a string, an ARN and an address the Not-operator
// holds for it. Of a number, a date or a truth value the opposite with IfExists
// does, so that no second statement with Null is needed.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
func Negate(name, key string, values ...string) (Conditions, error) {
	refuse := func(problem, remedy string) (Conditions, error) {
		return nil, invalid.Field(fieldConditions, name+" on "+key, problem, remedy)
	}
	op, err := newOperator(name)
	if err != nil {
		return refuse(err.Error(), "name a condition operator of IAM")
	}
	if key == "" || len(values) == 0 {
		return refuse("the condition has no key or no value", "name both")
	}
	if _, err := newCondition(op, key, values, true); err != nil {
		return refuse(err.Error(), "correct the value")
	}
	negated, values, err := op.negate(key, values)
	if err != nil {
		return refuse(err.Error(), "use another operator")
	}
	block := Conditions{negated.String(): {key: shortest(values)}}
	// A Not-operator holds for a missing key, and a condition with IfExists does
	// as well: what has to be there is asked for beside it.
	if op.ifExists && op.set == "" && negated.negated() {
		present, value := null, "false"
		if strings.HasPrefix(negated.base, "String") {
			// Unlike Null this says the same of an empty string as the other one.
			present, value = "StringLike", "*"
		}
		block[present] = map[string]Values{key: value}
	}
	return block, nil
}

// negate is the opposite operator and its values.
func (o operator) negate(key string, values []string) (operator, []string, error) {
	if o.base == null || o.base == "Bool" {
		return o.flip(key, values)
	}
	base, ok := opposite(o.base)
	if !ok {
		return operator{}, nil, errors.New("there is no opposite of this operator")
	}
	negated := operator{base: base}
	if !strings.HasPrefix(o.base, "String") {
		if err := typed(key); err != nil {
			return operator{}, nil, err
		}
	}
	ordered := !comparisons[base].negated && !comparisons[o.base].negated
	if ordered && len(values) > 1 {
		return operator{}, nil, errors.New("of several bounds one is enough")
	}
	switch {
	case o.set == forAny && o.ifExists:
		return operator{}, nil, errors.New("AWS doesn't say whether ForAnyValue or IfExists decides on a missing key")
	case o.set == forAll: // holds for a missing key
		negated.set = forAny
	case o.set == forAny:
		negated.set = forAll
	default:
		negated.ifExists = ordered && !o.ifExists
	}
	return negated, values, nil
}

// flip negates an operator whose opposite is itself with the other value.
func (o operator) flip(key string, values []string) (operator, []string, error) {
	if len(values) > 1 {
		return operator{}, nil, errors.New("it has both values")
	}
	value, err := truth(values[0])
	if err != nil {
		return operator{}, nil, errors.New("the opposite of a variable can't be written")
	}
	negated := operator{base: o.base}
	if o.base != null {
		if err := typed(key); err != nil {
			return operator{}, nil, err
		}
		if o.set != "" {
			return operator{}, nil, errors.New("a truth value comes alone")
		}
		negated.ifExists = !o.ifExists
	}
	return negated, []string{fmt.Sprint(!value)}, nil
}

// typed refuses keys whose values are free text, tags above all: neither an
// order nor its opposite holds for one that is no number, and both values of a
// Bool pass it by. Of the other operators AWS doesn't say.
func typed(key string) error {
	if strings.Contains(key, "/") {
		return errors.New("the key's value is free text, and one that is of another type would pass the condition and its opposite by")
	}
	return nil
}

// DenyUnless are the statements that deny the actions wherever the conditions don't
// hold. They have to stand beside an Allow with the same conditions, since those
// alone bind nobody whom another policy allows the action. All conditions have to
// hold, hence one of them is enough for a Deny: one statement for each operator
// and key. Their order is that of the names.
func DenyUnless(actions []string, conditions Conditions) ([]Statement, error) {
	var statements []Statement
	for _, operator := range slices.Sorted(maps.Keys(conditions)) {
		for _, key := range slices.Sorted(maps.Keys(conditions[operator])) {
			values, err := list(conditions[operator][key])
			if err != nil {
				return nil, invalid.Hidden(fieldConditions, fmt.Sprintf("%s on %s: %v", operator, key, err), "give a string or a list of strings")
			}
			block, err := Negate(operator, key, values...)
			if err != nil {
				return nil, err
			}
			statements = append(statements, Statement{Effect: effectDeny, Action: actions, Resource: "*", Condition: block})
		}
	}
	return statements, nil
}
