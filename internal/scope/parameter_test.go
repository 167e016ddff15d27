package scope

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/strictjson"
)

type block = map[string]any

func TestParseParametersRefuses(t *testing.T) {
	many := block{}
	for _, letter := range "abcdefghijklmnopq" {
		many[string(letter)] = "x"
	}
	values := make([]any, 101)
	for i := range values {
		values[i] = "v" + strings.Repeat("x", i)
	}
	for name, raw := range map[string]block{
		"reserved ttl":       {"ttl": "x"},
		"reserved list":      {"list": "x"},
		"reserved snapshot":  {"read_snapshot_id": "x"},
		"capital":            {"Key": "x"},
		"digit first":        {"1a": "x"},
		"dash":               {"a-b": "x"},
		"empty name":         {"": "x"},
		"long name":          {strings.Repeat("a", 65): "x"},
		"neither":            {"key": block{}},
		"empty pattern":      {"key": ""},
		"empty enumeration":  {"key": block{"one_of": []any{}}},
		"both":               {"key": block{"pattern": "x", "one_of": []any{"x"}}},
		"unknown part":       {"key": block{"pattern": "x", "patern": "y"}},
		"another case":       {"key": block{"Pattern": "x"}},
		"in two cases":       {"key": block{"one_of": []any{"a"}, "ONE_OF": []any{"b"}}},
		"a number":           {"key": json.Number("1")},
		"a list":             {"key": []any{"x"}},
		"null":               {"key": nil},
		"numbers listed":     {"key": block{"one_of": []any{json.Number("1")}}},
		"twice":              {"key": block{"one_of": []any{"a", "a"}}},
		"wildcard listed":    {"key": block{"one_of": []any{"a", "*"}}},
		"no expression":      {"key": "["},
		"group closed early": {"key": "a)|(b"},
		"backreference":      {"key": `(a)\1`},
		"look-ahead":         {"key": "(?=a)"},
		"long pattern":       {"key": strings.Repeat("a", 257)},
		"huge repeat":        {"key": "(a{1000}){1000}"},
		"too many":           many,
		"too many values":    {"key": block{"one_of": values}},
		"huge value":         {"key": block{"one_of": []any{strings.Repeat("x", 10<<20)}}},
	} {
		got, err := ParseParameters(raw)
		if err == nil {
			t.Errorf("%s was read as %v", name, got)
		}
		checkRefusal(t, err, name)
	}
}

func TestParametersRoundTrip(t *testing.T) {
	raw := block{"key": "[a-z]+", "env": block{"one_of": []any{"prod", "test"}, "description": "where"}}
	parsed, err := ParseParameters(raw)
	if err != nil {
		t.Fatal(err)
	}
	if parsed["key"].Pattern != "[a-z]+" || len(parsed["env"].OneOf) != 2 || parsed["env"].Description != "where" {
		t.Errorf("read as %+v", parsed)
	}
}

func TestAdmit(t *testing.T) {
	parameters, err := ParseParameters(block{"key": "[a-z]+/[0-9]+", "any": "(?s).*", "lines": "(?m)^a$", "env": block{"one_of": []any{"prod", "test"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][]string{"key": {"a/1"}, "any": {"x", "a/b", "a=b@c"}, "lines": {"a"}, "env": {"prod"}} {
		for _, value := range values {
			if err := parameters[name].Admit(name, value); err != nil {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
	for name, values := range map[string][]string{
		"key": {"a", "a/1/2", "xa/1x", "A/1", "a/1\n", "a/1\nb/2"}, "lines": {"a\nb", "b\na"}, "env": {"PROD", "pro", "prod,test", "prod|test"},
	} {
		for _, value := range values {
			err := parameters[name].Admit(name, value)
			if err == nil {
				t.Errorf("%s=%s was admitted", name, value)
			}
			checkRefusal(t, err, value)
		}
	}
}

// hostile are values that mean more than they should to something on their way.
func hostile() []string {
	return append([]string{
		"", " ", "*", "**", "a*", "*a", "a/*", "?", "a?", "[a]", "[!a]", "{a}", "{a,b}", "$", "${aws:username}", "${aws:userid}", "$${x}", "a${", "{{task}}", "{{identity.entity.name}}",
		"..", ".", "../", "../..", "a/../b", "a/..", "a/./b", "/a", "a/", "a//b", "/", "//",
		"%2f", "a%2Fb", "%2e%2e", "..%2f..", "%00", "%2a", "%252a", "\\", "a\\b", "..\\..", "\\u002a", "\\x2a",
		"a\nb", "a\r\nb", "\t", "a\tb", "\x00", "a\x00b", "\x1b[2J", "\x7f",
		"\uff0a", "a\uff0ab", "\u2217", "\ufe61", "\u066d", "\u2044", "\u2215", "\uff0f", "\uff0e\uff0e", "\u00a0", "\u200b", "\u202e", "caf\u00e9", "\u0430dmin", "\xff\xfe", "\xc0\xae",
		":", "a:b", "arn:aws:s3:::other", "x:y:z:*", "app:jobs", "::::",
		`"`, `a"b`, `","Resource":"*`, `{"Effect":"Allow"}`, `"]}]}`, `'` + `"`, "a b", " a", "a ", "a;b", "a|b", "a&b", "`id`", "$(id)", "<script>", "a#b", "a^b",
		strings.Repeat("a", 1025), strings.Repeat("a/", 600) + "a",
	}, strings.Repeat("x", 10<<20))
}

// Nothing hostile is filled in anywhere, whatever the role's pattern admits.
func TestHostileValues(t *testing.T) {
	values := hostile()
	if len(values) < 60 {
		t.Fatalf("only %d values", len(values))
	}
	for _, text := range []string{"arn:aws:s3:::{{p}}/x", "arn:aws:s3:::b/{{p}}", "arn:aws:s3:::b/{{p}}/*", "arn:aws:sqs:{{p}}:123456789012:q", "arn:aws:sqs:eu-west-1:123456789012:{{p}}"} {
		definition, err := Define(Texts{Action: "s3:PutObject", Resource: text, Parameters: block{"p": "(?s).*"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range values {
			granted, err := definition.Fill(Values{Parameters: map[string]string{"p": value}})
			if err == nil {
				t.Errorf("%s: %.40q was filled in: %.200s", text, value, granted.Resource())
			}
			checkRefusal(t, err, value)
		}
	}
	t.Logf("%d hostile values refused in each slot", len(values))
}

func TestDefineRefuses(t *testing.T) {
	fine := Texts{Action: "s3:PutObject", Resource: "arn:aws:s3:::b/{{key}}", Parameters: block{"key": "[a-z]+"}}
	if _, err := Define(fine); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Texts){
		"undefined":           func(texts *Texts) { texts.Parameters = nil },
		"unused":              func(texts *Texts) { texts.Resource = "arn:aws:s3:::b/x" },
		"wildcard action":     func(texts *Texts) { texts.Action = "s3:*" },
		"reference in action": func(texts *Texts) { texts.Action = "s3:{{key}}\n" },
		"bad condition":       func(texts *Texts) { texts.Conditions = block{"StringEquals": "x"} },
		"empty operator":      func(texts *Texts) { texts.Conditions = block{"StringEquals": block{}} },
		"no values":           func(texts *Texts) { texts.Conditions = block{"StringEquals": block{"a": []any{}}} },
		"nested values":       func(texts *Texts) { texts.Conditions = block{"StringEquals": block{"a": block{}}} },
		"undefined there":     func(texts *Texts) { texts.Conditions = block{"StringEquals": block{"a": "{{other}}"}} },
		"nine companions":     func(texts *Texts) { texts.Companions = make([]string, 9) },
	} {
		texts := fine
		change(&texts)
		_, err := Define(texts)
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
		checkRefusal(t, err, name)
	}
}

func TestFillTakesExactlyTheParameters(t *testing.T) {
	definition, err := Define(Texts{
		Action: "s3:PutObject", Resource: "arn:aws:s3:::b/{{key}}/{{task}}/{{identity.entity.name}}",
		Parameters: block{"key": "[a-z]+"},
		Conditions: block{"StringEquals": block{"aws:RequestTag/key": []any{"{{key}}", "x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"key": "a"}
	identity := func(Reference) (string, error) { return "alice", nil }
	granted, err := definition.Fill(Values{Parameters: good, Task: "T-1", Identity: identity})
	if err != nil {
		t.Fatal(err)
	}
	if granted.Resource() != "arn:aws:s3:::b/a/T-1/alice" || granted.Conditions()[0].Values[0] != "a" {
		t.Errorf("filled to %s with %v", granted.Resource(), granted.Conditions())
	}
	slash := func(Reference) (string, error) { return "a/b", nil }
	nobody := func(Reference) (string, error) {
		return "", invalid.Hidden("identity.entity.name", "missing", "log in")
	}
	for name, values := range map[string]Values{
		"missing":         {Task: "T-1", Identity: identity},
		"extra":           {Parameters: with(good, "other", "x"), Task: "T-1", Identity: identity},
		"not matching":    {Parameters: with(good, "key", "1"), Task: "T-1", Identity: identity},
		"no task":         {Parameters: good, Identity: identity},
		"slash in a name": {Parameters: good, Task: "T-1", Identity: slash},
		"slash in a task": {Parameters: good, Task: "T/1", Identity: identity},
		"no identity":     {Parameters: good, Task: "T-1", Identity: nobody},
	} {
		_, err := definition.Fill(values)
		if err == nil {
			t.Errorf("%s was filled in", name)
		}
		checkRefusal(t, err, name)
	}
}

func with(values map[string]string, name, value string) map[string]string {
	changed := maps.Clone(values)
	changed[name] = value
	return changed
}

func TestHashTellsScopesApart(t *testing.T) {
	seen := map[string]string{}
	for name, texts := range map[string]Texts{
		"plain":      {Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x"},
		"action":     {Action: "s3:GetObject", Resource: "arn:aws:s3:::b/x"},
		"resource":   {Action: "s3:PutObject", Resource: "arn:aws:s3:::b/y"},
		"companion":  {Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x", Companions: []string{"arn:aws:s3:::b"}},
		"condition":  {Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x", Conditions: block{"Bool": block{"a": true}}},
		"condition2": {Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x", Conditions: block{"Bool": block{"a": false}}},
	} {
		definition, err := Define(texts)
		if err != nil {
			t.Fatal(err)
		}
		granted, err := definition.Fill(Values{})
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[granted.Canonical()]; twice {
			t.Errorf("%s and %s have the same hash", name, other)
		}
		seen[granted.Canonical()] = name
	}
}

// Try accepts where some admitted value works, demands that every listed one
// does, and that the longest fits.
func TestTry(t *testing.T) {
	compile := func(granted Scope) error {
		name := strings.TrimPrefix(granted.Resource(), "arn:aws:s3:::")
		switch {
		case len(name) > 60:
			return invalid.Field("resource", name, "too long", "shorten it").Because(ErrTooLarge)
		case len(name) < 3:
			return invalid.Field("resource", name, "too short", "lengthen it")
		case strings.Contains(name, "bad"):
			return invalid.Field("resource", name, "bad", "be good")
		}
		return nil
	}
	for name, test := range map[string]struct {
		parameter any
		says      string // empty where it is accepted
	}{
		"some value works":       {"[a-z0-9-]*", ""},
		"no value works":         {"[a-z]{1,2}", "too short"},
		"every listed one works": {block{"one_of": []any{"good", "fine"}}, ""},
		"a listed one does not":  {block{"one_of": []any{"good", "bad"}}, "p=bad"},
		"the longest fits":       {"[a-z]{1,60}", ""},
		"the longest does not":   {"[a-z]{1,61}", "too long"},
		"nothing can be made":    {"%", "no example"},
	} {
		definition, err := Define(Texts{Action: "s3:ListBucket", Resource: "arn:aws:s3:::{{p}}", Parameters: block{"p": test.parameter}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err = definition.Try(compile)
		if test.says == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %v, want %q", name, err, test.says)
		}
		checkRefusal(t, err, name)
	}
}

// FuzzParameters: whatever is read as parameters admits nothing but plain
// values, and its samples are among them.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{`{"key":"[a-z]+"}`, `{"key":{"one_of":["a"]}}`, `{"k":"(?s).*"}`, `{"k":"a{1000}"}`, `{"k":"(a|b)*c?"}`} {
		f.Add(seed, "x")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		raw, err := strictjson.Object(text)
		if err != nil {
			return
		}
		parameters, err := ParseParameters(raw)
		if err != nil {
			return
		}
		for name, parameter := range parameters {
			if parameter.Admit(name, value) == nil && !plain.MatchString(value) {
				t.Fatalf("%s admits %q", text, value)
			}
			for _, sample := range parameter.samples(name) {
				if err := parameter.Admit(name, sample); err != nil {
					t.Fatalf("%s: sample %q: %v", text, sample, err)
				}
			}
		}
	})
}

// FuzzConditions: what is read is in order, each operator and key once.
func FuzzConditions(f *testing.F) {
	f.Add(`{"StringEquals":{"a":["b","c"],"d":true},"Bool":{"a":1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := strictjson.Object(text)
		if err != nil {
			return
		}
		conditions, err := ParseConditions(raw)
		if err != nil {
			return
		}
		for i, condition := range conditions {
			if len(condition.Values) == 0 {
				t.Fatalf("%s: %s has no values", text, condition.Key)
			}
			if i > 0 && conditions[i-1].Operator+"\x00"+conditions[i-1].Key >= condition.Operator+"\x00"+condition.Key {
				t.Fatalf("%s: out of order", text)
			}
		}
	})
}
