package iampolicy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// samples are values for each kind of operator: of the policy, and of the
// request that match, don't, and are just on the edge.
var samples = map[string]struct{ policy, request []string }{
	"String":  {[]string{"a*"}, []string{"a", "ab", "b", "", "A*", "a*"}},
	"Numeric": {[]string{"5"}, []string{"4", "5", "5.0", "5.1", "-7"}},
	"Date":    {[]string{"2026-01-31T12:00:00Z"}, []string{"2026-01-31T11:59:59Z", "2026-01-31T12:00:00Z", "1769860801"}},
	"Bool":    {[]string{"true"}, []string{"true", "false"}},
	"Ip":      {[]string{"10.0.0.0/8"}, []string{"10.0.0.1", "11.0.0.1", "2001:db8::1"}},
	"Arn":     {[]string{"arn:aws:sns:*:*:t"}, []string{"arn:aws:sns:eu:1:t", "arn:aws:sns:eu:1:u"}},
	"Null":    {[]string{"true"}, []string{"a", ""}},
}

func sampleOf(base string) (policy, request []string) {
	for kind, sample := range samples {
		if strings.HasPrefix(strings.TrimPrefix(base, "Not"), kind) {
			return sample.policy, sample.request
		}
	}
	return nil, nil
}

// names of all operators with everything that can stand around them.
func operatorNames() []string {
	var names []string
	for base := range maps.Keys(comparisons) {
		for _, set := range []string{"", forAll, forAny} {
			names = append(names, set+base, set+base+ifExists)
		}
	}
	names = append(names, null)
	slices.Sort(names)
	return names
}

// outcome is what these statements say of a request with these keys.
func outcome(t *testing.T, statements []Statement, context map[string][]string) Effect {
	t.Helper()
	text, err := Write(statements...)
	if err != nil {
		t.Fatal(err)
	}
	decision, err := Evaluate(Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: context}, Policies{Identity: parsed(t, text)})
	if err != nil {
		t.Fatalf("%s\n%v: %v", text, context, err)
	}
	return decision.Effect
}

// contexts are all ways in which a request may have the key.
func contexts(set string, values []string) [][]string {
	all := [][]string{nil}
	for _, one := range values {
		all = append(all, []string{one})
		for _, other := range values {
			if set != "" {
				all = append(all, []string{one, other})
			}
		}
	}
	return all
}

// For every operator and every state of its key: the Deny applies exactly where
// the Allow's condition does not hold. Where there is no such Deny, it is
// refused.
func TestDenyUnlessIsExact(t *testing.T) {
	exact := 0
	for _, name := range operatorNames() {
		op, err := newOperator(name)
		if err != nil {
			t.Fatal(err)
		}
		policyValues, requestValues := sampleOf(op.base)
		refused := op.base == "BinaryEquals" || op.set == forAny && op.ifExists || op.base == "Bool" && op.set != ""
		values := [][]string{policyValues}
		ordered := strings.Contains(op.base, "Than")
		if !refused && !ordered && op.base != "Bool" && op.base != null {
			values = append(values, []string{policyValues[0], requestValues[2%len(requestValues)]})
		}
		if refused {
			_, err := Negate(name, "t:k", "YWI=", "YWI=")
			refusedFor(t, name, err, "conditions")
			continue
		}
		for _, values := range values {
			conditions := Conditions{name: {"t:k": values}}
			allow := Statement{Effect: "Allow", Action: "*", Resource: "*", Condition: conditions}
			denies, err := DenyUnless([]string{"s3:GetObject"}, conditions)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			ambient := Statement{Effect: "Allow", Action: "*", Resource: "*"}
			for _, given := range contexts(op.set, requestValues) {
				context := map[string][]string{"t:k": given}
				held := outcome(t, []Statement{allow}, context) == Allowed
				if denied := outcome(t, append(denies, ambient), context) == ExplicitlyDenied; denied == held {
					t.Errorf("%s %q of %q: holds %v, denied %v\n%v", name, values, given, held, denied, denies)
				}
				exact++
			}
		}
	}
	if exact < 500 {
		t.Errorf("only %d combinations", exact)
	}
}

// Several keys and operators: all have to hold, or one of the Denies applies.
func TestDenyUnlessWithSeveralConditions(t *testing.T) {
	conditions := Conditions{
		"IpAddress":                 {"aws:SourceIp": []string{"10.0.0.0/8", "192.0.2.0/24"}},
		"StringEquals":              {"t:a": "1", "t:b": []string{"1", "2"}},
		"StringLikeIfExists":        {"t:c": "x*"},
		"NumericLessThanEquals":     {"t:n": "5"},
		"Bool":                      {"t:t": "true"},
		"ForAllValues:StringEquals": {"aws:TagKeys": []string{"p", "q"}},
	}
	denies, err := DenyUnless([]string{"s3:GetObject"}, conditions)
	if err != nil || len(denies) != 7 {
		t.Fatalf("%v, %v", denies, err)
	}
	allow := []Statement{{Effect: "Allow", Action: "*", Resource: "*", Condition: conditions}}
	ambient := append(denies, Statement{Effect: "Allow", Action: "*", Resource: "*"})
	keys := []string{"aws:SourceIp", "t:a", "t:b", "t:c", "t:n", "t:t", "aws:TagKeys"}
	values := map[string][][]string{
		"aws:SourceIp": {nil, {"10.1.1.1"}, {"11.0.0.1"}}, "t:a": {nil, {"1"}, {"2"}}, "t:b": {nil, {"2"}, {"3"}}, "t:c": {nil, {"xy"}, {"y"}},
		"t:n": {nil, {"5"}, {"6"}}, "t:t": {nil, {"true"}, {"false"}}, "aws:TagKeys": {nil, {"p", "q"}, {"p", "r"}},
	}
	denyText, allowText := written(t, ambient), written(t, allow)
	held := 0
	for state := range 3 * 3 * 3 * 3 * 3 * 3 * 3 {
		context := map[string][]string{}
		for _, key := range keys {
			context[key] = values[key][state%3]
			state /= 3
		}
		request := Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: context}
		allowed, err := Evaluate(request, Policies{Identity: allowText})
		if err != nil {
			t.Fatal(err)
		}
		denied, err := Evaluate(request, Policies{Identity: denyText})
		if err != nil {
			t.Fatal(err)
		}
		if (allowed.Effect == Allowed) == (denied.Effect == ExplicitlyDenied) {
			t.Errorf("%v: %s and %s", context, allowed.Effect, denied.Effect)
		}
		if allowed.Effect == Allowed {
			held++
		}
	}
	if held != 4 { // t:c and aws:TagKeys may be missing
		t.Errorf("the conditions held %d times", held)
	}
}

func written(t *testing.T, statements []Statement) *Document {
	t.Helper()
	text, err := Write(statements...)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, text)
}

// What is written, and how short it is.
func TestNegations(t *testing.T) {
	for _, test := range []struct {
		operator string
		values   []string
		want     string
	}{
		{"StringEquals", []string{"a", "b"}, "map[StringNotEquals:map[t:k:[a b]]]"},
		{"StringNotLike", []string{"a*"}, "map[StringLike:map[t:k:a*]]"},
		{"StringEqualsIfExists", []string{"a"}, "map[StringLike:map[t:k:*] StringNotEquals:map[t:k:a]]"},
		{"StringNotEqualsIfExists", []string{"a"}, "map[StringEquals:map[t:k:a]]"},
		{"IpAddress", []string{"10.0.0.0/8"}, "map[NotIpAddress:map[t:k:10.0.0.0/8]]"},
		{"IpAddressIfExists", []string{"10.0.0.0/8"}, "map[NotIpAddress:map[t:k:10.0.0.0/8] Null:map[t:k:false]]"},
		{"ArnNotEquals", []string{"arn:aws:sns:*:*:t"}, "map[ArnEquals:map[t:k:arn:aws:sns:*:*:t]]"},
		{"NumericLessThan", []string{"5"}, "map[NumericGreaterThanEqualsIfExists:map[t:k:5]]"},
		{"NumericLessThanIfExists", []string{"5"}, "map[NumericGreaterThanEquals:map[t:k:5]]"},
		{"NumericNotEquals", []string{"5"}, "map[NumericEquals:map[t:k:5]]"},
		{"DateGreaterThan", []string{"2026-01-31"}, "map[DateLessThanEqualsIfExists:map[t:k:2026-01-31]]"},
		{"Bool", []string{"true"}, "map[BoolIfExists:map[t:k:false]]"},
		{"BoolIfExists", []string{"FALSE"}, "map[Bool:map[t:k:true]]"},
		{"Null", []string{"false"}, "map[Null:map[t:k:true]]"},
		{"ForAllValues:StringEquals", []string{"a"}, "map[ForAnyValue:StringNotEquals:map[t:k:a]]"},
		{"ForAllValues:StringEqualsIfExists", []string{"a"}, "map[ForAnyValue:StringNotEquals:map[t:k:a]]"},
		{"ForAnyValue:StringLike", []string{"a"}, "map[ForAllValues:StringNotLike:map[t:k:a]]"},
		{"ForAnyValue:NumericLessThan", []string{"5"}, "map[ForAllValues:NumericGreaterThanEquals:map[t:k:5]]"},
	} {
		if got, err := Negate(test.operator, "t:k", test.values...); err != nil || fmt.Sprint(got) != test.want {
			t.Errorf("%s: %v, %v", test.operator, got, err)
		}
	}
	for name, test := range map[string]struct {
		operator, key string
		values        []string
	}{
		"no such operator":             {"StringIs", "t:k", []string{"a"}},
		"no key":                       {"StringEquals", "", []string{"a"}},
		"no value":                     {"StringEquals", "t:k", nil},
		"a value of another type":      {"NumericLessThan", "t:k", []string{"a"}},
		"several bounds":               {"NumericLessThan", "t:k", []string{"5", "10"}},
		"both truth values":            {"Bool", "t:k", []string{"true", "false"}},
		"a variable for a truth value": {"Bool", "t:k", []string{"${t:x}"}},
		"a truth value of many":        {"ForAllValues:Bool", "t:k", []string{"true"}},
		"there or not there":           {"Null", "t:k", []string{"true", "false"}},
		"bytes":                        {"BinaryEquals", "t:k", []string{"YWI="}},
		"any, if there is one":         {"ForAnyValue:StringEqualsIfExists", "t:k", []string{"a"}},
		"a tag as a number":            {"NumericEquals", "aws:PrincipalTag/level", []string{"5"}},
		"a tag as a truth value":       {"Bool", "aws:PrincipalTag/level", []string{"true"}},
		"a tag as an address":          {"IpAddress", "aws:PrincipalTag/level", []string{"10.0.0.0/8"}},
	} {
		_, err := Negate(test.operator, test.key, test.values...)
		refusedFor(t, name, err, "conditions")
	}
	if _, err := Negate("StringEquals", "aws:PrincipalTag/level", "5"); err != nil {
		t.Errorf("a tag as a string: %v", err)
	}
	for _, values := range []Values{nil, 5, []string{}} {
		_, err := DenyUnless([]string{"s3:GetObject"}, Conditions{"StringEquals": {"t:k": values}})
		refusedFor(t, fmt.Sprint(values), err, "conditions")
	}
}
