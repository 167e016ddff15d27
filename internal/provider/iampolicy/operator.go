package iampolicy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// operator is a condition operator's name, taken apart.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
type operator struct {
	set      string // forAll, forAny, or empty for a key with one value
	base     string // such as StringEquals
	ifExists bool
}

const (
	forAll   = "ForAllValues:"
	forAny   = "ForAnyValue:"
	ifExists = "IfExists"
	null     = "Null"
)

// comparison is what a base operator does with each value of the policy. A
// negated one holds where none of the values does.
type comparison struct {
	negated bool
	compile func(text string, variables bool) (test, error)
}

// test says whether a value of the request is what the policy says.
type test func(e *evaluation, actual string) bool

// comparisons of all operators but Null, which compares nothing.
var comparisons = map[string]comparison{
	"StringEquals":              {false, stringEquals},
	"StringNotEquals":           {true, stringEquals},
	"StringEqualsIgnoreCase":    {false, stringEqualsIgnoreCase},
	"StringNotEqualsIgnoreCase": {true, stringEqualsIgnoreCase},
	"StringLike":                {false, stringLike},
	"StringNotLike":             {true, stringLike},
	"NumericEquals":             {false, numeric(func(order int) bool { return order == 0 })},
	"NumericNotEquals":          {true, numeric(func(order int) bool { return order == 0 })},
	"NumericLessThan":           {false, numeric(func(order int) bool { return order < 0 })},
	"NumericLessThanEquals":     {false, numeric(func(order int) bool { return order <= 0 })},
	"NumericGreaterThan":        {false, numeric(func(order int) bool { return order > 0 })},
	"NumericGreaterThanEquals":  {false, numeric(func(order int) bool { return order >= 0 })},
	"DateEquals":                {false, date(func(order int) bool { return order == 0 })},
	"DateNotEquals":             {true, date(func(order int) bool { return order == 0 })},
	"DateLessThan":              {false, date(func(order int) bool { return order < 0 })},
	"DateLessThanEquals":        {false, date(func(order int) bool { return order <= 0 })},
	"DateGreaterThan":           {false, date(func(order int) bool { return order > 0 })},
	"DateGreaterThanEquals":     {false, date(func(order int) bool { return order >= 0 })},
	"Bool":                      {false, boolean},
	"BinaryEquals":              {false, binaryEquals},
	"IpAddress":                 {false, ipAddress},
	"NotIpAddress":              {true, ipAddress},
	"ArnEquals":                 {false, arnLike},
	"ArnNotEquals":              {true, arnLike},
	"ArnLike":                   {false, arnLike},
	"ArnNotLike":                {true, arnLike},
}

// newOperator takes a name apart. Names are compared with their case: what AWS
// would do with another spelling is written nowhere.
func newOperator(name string) (operator, error) {
	var read operator
	rest := name
	for _, set := range []string{forAll, forAny} {
		if base, found := strings.CutPrefix(name, set); found {
			read.set, rest = set, base
		}
	}
	read.base, read.ifExists = strings.CutSuffix(rest, ifExists)
	if read.base == null {
		if name != null {
			return operator{}, errors.New("the operator Null takes neither IfExists nor a set operator")
		}
		return read, nil
	}
	if _, known := comparisons[read.base]; known {
		return read, nil
	}
	for _, known := range slices.Sorted(maps.Keys(comparisons)) {
		if strings.EqualFold(known, read.base) {
			return operator{}, fmt.Errorf("no such condition operator: the nearest is %s", known)
		}
	}
	return operator{}, errors.New("no such condition operator")
}

// String is the operator's name.
func (o operator) String() string {
	if o.ifExists {
		return o.set + o.base + ifExists
	}
	return o.set + o.base
}

func (o operator) negated() bool { return comparisons[o.base].negated }

// whenMissing is the outcome where the request has no such key: "If the policy
// condition requires that the key is not matched […] and the right key is not
// present, the condition is true". For the set operators see
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
func (o operator) whenMissing() bool {
	switch {
	case o.ifExists:
		return true
	case o.set == forAll:
		return true
	case o.set == forAny:
		return false
	default:
		return o.negated()
	}
}

// condition is one operator on one key.
type condition struct {
	operator operator
	key      string // as written
	tests    []test
	absent   []bool // of Null: whether the key has to be missing
}

// newCondition compiles the values for their operator.
func newCondition(op operator, key string, values []string, variables bool) (condition, error) {
	read := condition{operator: op, key: key}
	for _, value := range values {
		if op.base == null {
			absent, err := truth(value)
			if err != nil {
				return condition{}, err
			}
			read.absent = append(read.absent, absent)
			continue
		}
		compiled, err := comparisons[op.base].compile(value, variables)
		if err != nil {
			return condition{}, err
		}
		read.tests = append(read.tests, compiled)
	}
	return read, nil
}

// holds evaluates the condition.
func (c condition) holds(e *evaluation) bool {
	values := e.values(c.key)
	if c.operator.base == null {
		return slices.Contains(c.absent, len(values) == 0)
	}
	// For set operators an empty string is an empty set: "if the context key
	// value resolves to a null dataset, such as an empty string".
	if len(values) == 0 || c.operator.set != "" && len(values) == 1 && values[0] == "" {
		return c.operator.whenMissing()
	}
	one := func(actual string) bool {
		found := slices.ContainsFunc(c.tests, func(equals test) bool { return equals(e, actual) })
		return found != c.operator.negated()
	}
	switch c.operator.set {
	case forAll:
		return !slices.ContainsFunc(values, func(actual string) bool { return !one(actual) })
	case forAny:
		return slices.ContainsFunc(values, one)
	default:
		return one(e.single(c.key))
	}
}

func stringEquals(text string, variables bool) (test, error) {
	return comparePattern(text, false, variables)
}
func stringLike(text string, variables bool) (test, error) {
	return comparePattern(text, true, variables)
}

func comparePattern(text string, wildcards, variables bool) (test, error) {
	expected, err := newPattern(text, wildcards, variables)
	if err != nil {
		return nil, err
	}
	return expected.matches, nil
}

func stringEqualsIgnoreCase(text string, variables bool) (test, error) {
	expected, err := newPattern(text, false, variables)
	if err != nil {
		return nil, err
	}
	return expected.equalFold, nil
}

// arnSegments is the number of parts of an ARN; the last one may hold colons.
const arnSegments = 6

func arnLike(text string, variables bool) (test, error) {
	expected, err := newPattern(text, true, variables)
	if err != nil {
		return nil, err
	}
	if len(expected.variables) == 0 && (expected.segments() < arnSegments || !strings.HasPrefix(text, "arn:")) {
		return nil, errors.New("no ARN with all its six parts")
	}
	return expected.matchesARN, nil
}

// number is what AWS calls an integer or decimal value. Exponents are left out,
// and the length is bounded, since a rational number of "1e999999999" fills the
// memory.
var number = regexp.MustCompile(`\A[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?\z`)

func parseNumber(text string) (*big.Rat, error) {
	if !number.MatchString(text) {
		return nil, errors.New("no integer or decimal number")
	}
	read, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, errors.New("no integer or decimal number")
	}
	return read, nil
}

func numeric(holds func(order int) bool) func(string, bool) (test, error) {
	return func(text string, _ bool) (test, error) {
		expected, err := parseNumber(text)
		if err != nil {
			return nil, err
		}
		return func(_ *evaluation, actual string) bool {
			given, err := parseNumber(actual)
			return err == nil && holds(given.Cmp(expected))
		}, nil
	}
}

// epoch is a point in time as seconds since 1970. With four digits or fewer it
// could be a year just as well.
var epoch = regexp.MustCompile(`\A[0-9]{5,12}\z`)

// dateLayouts are the formats of https://www.w3.org/TR/NOTE-datetime. A layout
// with seconds takes fractions of them too.
var dateLayouts = []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01"}

func parseDate(text string) (time.Time, error) {
	if epoch.MatchString(text) {
		var seconds int64
		for _, digit := range text {
			seconds = seconds*10 + int64(digit-'0')
		}
		return time.Unix(seconds, 0), nil
	}
	for _, layout := range dateLayouts {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errors.New("no date such as 2026-01-31T12:00:00Z, and no seconds since 1970")
}

func date(holds func(order int) bool) func(string, bool) (test, error) {
	return func(text string, _ bool) (test, error) {
		expected, err := parseDate(text)
		if err != nil {
			return nil, err
		}
		return func(_ *evaluation, actual string) bool {
			given, err := parseDate(actual)
			return err == nil && holds(given.Compare(expected))
		}, nil
	}
}

func truth(text string) (bool, error) {
	switch {
	case strings.EqualFold(text, "true"):
		return true, nil
	case strings.EqualFold(text, "false"):
		return false, nil
	default:
		return false, errors.New("neither true nor false")
	}
}

// boolean takes a variable too, as AWS says of this operator.
func boolean(text string, variables bool) (test, error) {
	expected, err := newPattern(text, false, variables)
	if err != nil {
		return nil, err
	}
	if _, err := truth(text); err != nil && len(expected.variables) == 0 {
		return nil, err
	}
	return func(e *evaluation, actual string) bool {
		_, err := truth(actual)
		return err == nil && expected.equalFold(e, actual)
	}, nil
}

func binaryEquals(text string, _ bool) (test, error) {
	expected, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("no base64")
	}
	return func(_ *evaluation, actual string) bool {
		given, err := base64.StdEncoding.DecodeString(actual)
		return err == nil && string(given) == string(expected)
	}, nil
}

func ipAddress(text string, _ bool) (test, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" {
			return nil, errors.New("no IP address or range such as 203.0.113.0/24")
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	return func(_ *evaluation, actual string) bool {
		address, err := netip.ParseAddr(actual)
		return err == nil && prefix.Contains(address.Unmap())
	}, nil
}
