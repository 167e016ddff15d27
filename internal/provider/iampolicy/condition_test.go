package iampolicy

import (
	"encoding/json"
	"fmt"
	"testing"
)

const (
	testUser    = "arn:aws:iam::123456789012:user/precision/ann"
	testRole    = "arn:aws:iam::123456789012:role/base/deploy"
	testSession = "arn:aws:sts::123456789012:assumed-role/deploy/pr-1"
	testObject  = "arn:aws:s3:::releases/app/1.tgz"
)

func user() Principal    { return Principal{ARN: testUser} }
func session() Principal { return Principal{ARN: testSession, Issuer: testRole} }

func parsed(t *testing.T, text string) *Document {
	t.Helper()
	document, err := Parse("policy", text)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return &document
}

// policy is a document of the newer version of these statements.
func policy(statements string) string {
	return `{"Version":"2012-10-17","Statement":[` + statements + `]}`
}

// holds says whether the operator holds for a key with these values.
func holds(t *testing.T, operator, key, policyValues string, context map[string][]string) bool {
	t.Helper()
	condition := fmt.Sprintf(`{%q:{%q:%s}}`, operator, key, policyValues)
	decision, err := Evaluate(
		Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: context},
		Policies{Identity: parsed(t, policy(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`))},
	)
	if err != nil {
		t.Fatalf("%s: %v", condition, err)
	}
	return decision.Effect == Allowed
}

// Every operator with what matches, what doesn't, a value of another type, and
// no value. "-" stands for a key that the request doesn't have.
func TestOperators(t *testing.T) {
	const key = "test:key"
	for _, test := range []struct {
		operator, values string // of the policy, as JSON
		yes, no          []string
	}{
		{"StringEquals", `"a"`, []string{"a"}, []string{"A", "ab", "", "-"}},
		{"StringEquals", `["a","b"]`, []string{"a", "b"}, []string{"c", "-"}},
		{"StringEquals", `"a*"`, []string{"a*"}, []string{"ab", "-"}},
		{"StringEquals", `""`, []string{""}, []string{"a", "-"}},
		{"StringEquals", `5`, []string{"5"}, []string{"5.0", "-"}},
		{"StringEquals", `true`, []string{"true"}, []string{"TRUE", "-"}},
		{"StringNotEquals", `"a"`, []string{"A", "ab", "", "-"}, []string{"a"}},
		{"StringNotEquals", `["a","b"]`, []string{"c", "-"}, []string{"a", "b"}},
		{"StringEqualsIgnoreCase", `"Straße*"`, []string{"STRAße*", "straße*"}, []string{"strasse*", "straßen", "-"}},
		{"StringNotEqualsIgnoreCase", `"Ab"`, []string{"ac", "-"}, []string{"aB", "AB"}},
		{"StringLike", `"a?c*"`, []string{"abc", "aéc", "abcd", "a:c:/d"}, []string{"ac", "abd", "Abc", "-"}},
		{"StringLike", `"*"`, []string{"", "x"}, []string{"-"}},
		{"StringLike", `["","home/"]`, []string{"", "home/"}, []string{"home", "-"}},
		{"StringLike", `"*a*b*c"`, []string{"abc", "xaabbxc", "aabcabc"}, []string{"acb", "abcd", "ab", "-"}},
		{"StringNotLike", `"a*"`, []string{"b", "", "-"}, []string{"a", "ab"}},
		{"NumericEquals", `"5"`, []string{"5", "5.0", "05", "+5"}, []string{"5.1", "x", "-"}},
		{"NumericEquals", `5`, []string{"5"}, []string{"-5", "-"}},
		{"NumericEquals", `"9007199254740993"`, []string{"9007199254740993"}, []string{"9007199254740992", "-"}},
		{"NumericNotEquals", `"5"`, []string{"4", "x", "-"}, []string{"5", "5.00"}},
		{"NumericLessThan", `"10"`, []string{"9.99", "-3"}, []string{"10", "11", "x", "-"}},
		{"NumericLessThanEquals", `"10"`, []string{"10", "10.0", "9"}, []string{"10.01", "-"}},
		{"NumericGreaterThan", `"10"`, []string{"10.1", "11"}, []string{"10", "9", "x", "-"}},
		{"NumericGreaterThanEquals", `"-1.5"`, []string{"-1.5", "0"}, []string{"-2", "-"}},
		{"NumericLessThan", `["5","10"]`, []string{"7"}, []string{"10", "-"}},
		{"DateEquals", `"2026-01-31T12:00:00Z"`, []string{"2026-01-31T13:00:00+01:00", "1769860800", "2026-01-31T12:00Z"}, []string{"2026-01-31T12:00:01Z", "x", "-"}},
		{"DateEquals", `"2026-01"`, []string{"2026-01-01", "2026-01-01T00:00:00Z"}, []string{"2026-01-02", "-"}},
		{"DateNotEquals", `"2026-01-31"`, []string{"2026-01-30", "x", "-"}, []string{"2026-01-31T00:00:00Z"}},
		{"DateLessThan", `"2026-01-31T12:00:00Z"`, []string{"2026-01-31T11:59:59.999Z"}, []string{"2026-01-31T12:00:00Z", "x", "-"}},
		{"DateLessThanEquals", `"2026-01-31T12:00:00Z"`, []string{"2026-01-31T12:00:00Z"}, []string{"2026-01-31T12:00:00.001Z", "-"}},
		{"DateGreaterThan", `1769860800`, []string{"2026-01-31T12:00:01Z"}, []string{"2026-01-31T12:00:00Z", "2026", "-"}},
		{"DateGreaterThanEquals", `"1769860800"`, []string{"2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z"}, []string{"2026-01-31T11:59:59Z", "-"}},
		{"Bool", `"true"`, []string{"true", "True"}, []string{"false", "1", "-"}},
		{"Bool", `false`, []string{"false"}, []string{"true", "-"}},
		{"Bool", `["true","false"]`, []string{"true", "false"}, []string{"x", "-"}},
		{"BinaryEquals", `"YWI="`, []string{"YWI="}, []string{"YWM=", "ab", "-"}},
		{"IpAddress", `"203.0.113.0/24"`, []string{"203.0.113.0", "203.0.113.255", "::ffff:203.0.113.7"}, []string{"203.0.114.0", "2001:db8::1", "x", "-"}},
		{"IpAddress", `"203.0.113.7"`, []string{"203.0.113.7"}, []string{"203.0.113.8", "-"}},
		{"IpAddress", `"203.0.113.7/24"`, []string{"203.0.113.9"}, []string{"203.0.112.9", "-"}},
		{"IpAddress", `["203.0.113.0/24","2001:DB8:1234:5678::/64"]`, []string{"203.0.113.1", "2001:db8:1234:5678::9"}, []string{"2001:db8:1234:5679::9", "-"}},
		{"IpAddress", `"2001:db8::1"`, []string{"2001:db8:0::1"}, []string{"2001:db8::2", "-"}},
		{"NotIpAddress", `["203.0.113.0/24","10.0.0.0/8"]`, []string{"203.0.114.0", "2001:db8::1", "x", "-"}, []string{"203.0.113.1", "10.1.2.3"}},
		{"ArnEquals", `"arn:aws:sns:*:123456789012:t*"`, []string{"arn:aws:sns:eu-west-1:123456789012:topic", "arn:aws:sns::123456789012:t"}, []string{"arn:aws:sns:eu:x:123456789012:t", "arn:aws:sns:eu-west-1:123456789012:T", "topic", "-"}},
		{"ArnLike", `"arn:aws:someservice:*:111122223333:finance/*"`, []string{"arn:aws:someservice:x:111122223333:finance/a:b"}, []string{"arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt", "-"}},
		{"ArnLike", `"arn:aws:iam::123456789012:role/a?"`, []string{"arn:aws:iam::123456789012:role/ab"}, []string{"arn:aws:iam::123456789012:role/a", "arn:aws:iam:*:123456789012:role/ab", "-"}},
		{"ArnNotEquals", `"arn:aws:sns:*:123456789012:t"`, []string{"arn:aws:sns:eu:123456789012:u", "x", "-"}, []string{"arn:aws:sns:eu:123456789012:t"}},
		{"ArnNotLike", `"arn:aws:sns:*:*:*"`, []string{"arn:aws:sqs:eu:123456789012:u", "-"}, []string{"arn:aws:sns:eu:123456789012:t"}},
		{"Null", `"true"`, []string{"-"}, []string{"a", ""}},
		{"Null", `false`, []string{"a", ""}, []string{"-"}},
		{"Null", `["true","false"]`, []string{"-", "a"}, nil},
		{"StringEqualsIfExists", `"a"`, []string{"a", "-"}, []string{"b", ""}},
		{"StringNotEqualsIfExists", `"a"`, []string{"b", "-"}, []string{"a"}},
		{"NumericLessThanIfExists", `"5"`, []string{"4", "-"}, []string{"5", "x"}},
		{"BoolIfExists", `"false"`, []string{"false", "-"}, []string{"true"}},
		{"IpAddressIfExists", `"10.0.0.0/8"`, []string{"10.0.0.1", "-"}, []string{"11.0.0.1"}},
		{"ArnLikeIfExists", `"arn:aws:sns:*:*:*"`, []string{"arn:aws:sns:eu:1:t", "-"}, []string{"arn:aws:sqs:eu:1:t"}},
	} {
		for want, values := range map[bool][]string{true: test.yes, false: test.no} {
			for _, value := range values {
				context := map[string][]string{"TEST:Key": {value}} // the case of a key doesn't matter
				if value == "-" {
					context = map[string][]string{"TEST:Key": {}}
				}
				if got := holds(t, test.operator, key, test.values, context); got != want {
					t.Errorf("%s %s of %q: got %v", test.operator, test.values, value, got)
				}
			}
		}
	}
}

// Keys with several values.
func TestSetOperators(t *testing.T) {
	for _, test := range []struct {
		operator, values string
		given            []string
		want             bool
	}{
		{"ForAllValues:StringEquals", `["a","b"]`, []string{"a", "b", "a"}, true},
		{"ForAllValues:StringEquals", `["a","b"]`, []string{"a", "c"}, false},
		{"ForAllValues:StringEquals", `"a"`, nil, true},
		{"ForAllValues:StringEquals", `"a"`, []string{""}, true}, // "a null dataset, such as an empty string"
		{"ForAllValues:StringEquals", `"a"`, []string{"", "a"}, false},
		{"ForAllValues:StringNotEquals", `["a","b"]`, []string{"c", "d"}, true},
		{"ForAllValues:StringNotEquals", `["a","b"]`, []string{"c", "b"}, false},
		{"ForAllValues:StringNotEquals", `"a"`, nil, true},
		{"ForAllValues:StringLike", `"k*"`, []string{"k1", "k2"}, true},
		{"ForAllValues:NumericLessThan", `"5"`, []string{"1", "9"}, false},
		{"ForAllValues:StringEqualsIfExists", `"a"`, nil, true},
		{"ForAnyValue:StringEquals", `["a","b"]`, []string{"c", "b"}, true},
		{"ForAnyValue:StringEquals", `["a","b"]`, []string{"c", "d"}, false},
		{"ForAnyValue:StringEquals", `"a"`, nil, false},
		{"ForAnyValue:StringEquals", `"a"`, []string{""}, false},
		{"ForAnyValue:StringNotEquals", `["a","b"]`, []string{"a", "c"}, true},
		{"ForAnyValue:StringNotEquals", `["a","b"]`, []string{"a", "b"}, false},
		{"ForAnyValue:StringNotEquals", `"a"`, nil, false},
		{"ForAnyValue:IpAddress", `"10.0.0.0/8"`, []string{"11.0.0.1", "10.0.0.1"}, true},
		{"ForAnyValue:StringEqualsIfExists", `"a"`, nil, true},
	} {
		if got := holds(t, test.operator, "aws:TagKeys", test.values, map[string][]string{"aws:tagkeys": test.given}); got != test.want {
			t.Errorf("%s %s of %q: got %v", test.operator, test.values, test.given, got)
		}
	}
}

// All operators and keys of a block have to hold.
func TestBlocksAreAnded(t *testing.T) {
	const condition = `{"StringEquals":{"t:a":"1","t:b":"2"},"Bool":{"t:c":"true"}}`
	identity := parsed(t, policy(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`))
	for range 8 {
		for bits := range 8 {
			context := map[string][]string{}
			for i, pair := range [][2]string{{"t:a", "1"}, {"t:b", "2"}, {"t:c", "true"}} {
				if bits&(1<<i) != 0 {
					context[pair[0]] = []string{pair[1]}
				}
			}
			decision, err := Evaluate(Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: context}, Policies{Identity: identity})
			if err != nil || (decision.Effect == Allowed) != (bits == 7) {
				t.Errorf("%v: %v, %v", context, decision, err)
			}
		}
	}
}

func TestVariables(t *testing.T) {
	context := map[string][]string{
		"aws:PrincipalTag/team": {"blue"}, "aws:PrincipalTag/Cost Center": {"7"}, "aws:PrincipalTag/star": {"*"}, "aws:PrincipalTag/none": {""},
		"t:name": {"ann"}, "t:blue": {"blue"}, "t:star": {"*"}, "t:any": {"x*y"}, "t:q": {"a?c"}, "t:dollar": {"$x"}, "t:bool": {"true"},
		"t:arn": {"arn:aws:s3:::bucket/ann"}, "t:whole": {"arn:aws:s3:::bucket/ann"}, "t:seven": {"t-7"},
	}
	for _, test := range []struct {
		operator, key, value string
		want                 bool
	}{
		{"StringEquals", "t:name", "${aws:username}", true},
		{"StringEquals", "t:name", "${AWS:UserName}", true},
		{"StringEquals", "t:name", "${ aws:username }", true},
		{"StringEquals", "t:blue", "${aws:PrincipalTag/team}", true},
		{"StringEquals", "t:seven", "t-${aws:PrincipalTag/Cost Center}", true},
		{"StringEquals", "t:blue", "${aws:PrincipalTag/Other, 'blue'}", true},
		{"StringEquals", "t:blue", "${aws:PrincipalTag/none, 'blue'}", true},
		{"StringEquals", "t:blue", "${aws:PrincipalTag/team, 'red'}", true},
		{"StringEquals", "t:blue", "${aws:PrincipalTag/Other}", false},
		{"StringNotEquals", "t:blue", "${aws:PrincipalTag/Other}", true}, // "do match against a null value"
		{"StringNotLike", "t:blue", "${aws:PrincipalTag/none}*", true},
		{"StringLike", "t:any", "${aws:PrincipalTag/star}", false}, // a value's "*" is no wildcard
		{"StringLike", "t:star", "${aws:PrincipalTag/star}", true},
		{"StringLike", "t:any", "x${*}y", true},
		{"StringLike", "t:q", "a${?}c", true},
		{"StringLike", "t:q", "a${*}c", false},
		{"StringEquals", "t:dollar", "${$}x", true},
		{"StringEquals", "t:dollar", "$x", true},
		{"StringEqualsIgnoreCase", "t:name", "${aws:username}", true},
		{"Bool", "t:bool", "${t:bool}", true},
		{"Bool", "t:bool", "${t:missing}", false},
		{"ArnLike", "t:arn", "arn:aws:s3:::*/${aws:username}", true},
		{"ArnLike", "t:arn", "${t:whole}", true},
		{"ArnLike", "t:arn", "arn:aws:s3:::${t:missing}", false},
		{"ArnNotLike", "t:arn", "arn:aws:s3:::${t:missing}", true},
	} {
		value, err := json.Marshal(test.value)
		if err != nil {
			t.Fatal(err)
		}
		if got := holds(t, test.operator, test.key, string(value), context); got != test.want {
			t.Errorf("%s on %s of %s: got %v", test.operator, test.key, test.value, got)
		}
	}
}

// The older version of the language, and the one of a document that names none,
// has no variables.
func TestOldVersionHasNoVariables(t *testing.T) {
	for _, version := range []string{`"Version":"2008-10-17",`, ``} {
		identity := parsed(t, `{`+version+`"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"t:name":"${aws:username}"}}}}`)
		for value, want := range map[string]Effect{"ann": ImplicitlyDenied, "${aws:username}": Allowed} {
			decision, err := Evaluate(Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: map[string][]string{"t:name": {value}}}, Policies{Identity: identity})
			if err != nil || decision.Effect != want {
				t.Errorf("%s of %q: %v, %v", version, value, decision.Effect, err)
			}
		}
	}
}

// What AWS doesn't say can't be answered.
func TestSeveralValuesForASingleValuedKey(t *testing.T) {
	for _, condition := range []string{
		`{"StringEquals":{"aws:TagKeys":"a"}}`, `{"StringNotEquals":{"aws:TagKeys":"a"}}`, `{"StringEquals":{"aws:username":"${aws:TagKeys}"}}`,
	} {
		_, err := Evaluate(
			Request{Action: "s3:GetObject", Resource: testObject, Principal: user(), Context: map[string][]string{"aws:TagKeys": {"a", "b"}}},
			Policies{Identity: parsed(t, policy(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`))},
		)
		refusedFor(t, condition, err, "context")
	}
}
