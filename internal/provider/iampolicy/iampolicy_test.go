package iampolicy

import "testing"

func TestWrite(t *testing.T) {
	text, err := Write(
		Statement{Effect: "Allow", Action: "s3:GetObject", Resource: []string{"arn:aws:s3:::a<&>é"}, Condition: Conditions{
			"StringEquals": {"t:b": []string{"1", "2"}, "t:a": []string{"1"}}, "Bool": {"t:c": "true"}, "StringLike": {"s3:prefix": ""},
		}},
		Statement{Effect: "Deny", NotAction: []string{"s3:GetObject", "kms:*"}, NotResource: "*"},
	)
	const want = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::a<&>é","Condition":{"Bool":{"t:c":"true"},"StringEquals":{"t:a":"1","t:b":["1","2"]},"StringLike":{"s3:prefix":""}}},` +
		`{"Effect":"Deny","NotAction":["s3:GetObject","kms:*"],"NotResource":"*"}]}`
	if err != nil || text != want {
		t.Errorf("%v\n%s", err, text)
	}
	if policy, err := Policy(Statement{Effect: "Deny", Action: "*", Resource: "*"}); err != nil || policy == "" {
		t.Errorf("%q, %v", policy, err)
	}
	for name, statements := range map[string][]Statement{
		"nothing":                  {},
		"no effect":                {{Action: "*", Resource: "*"}},
		"no action":                {{Effect: "Deny", Resource: "*"}},
		"two actions":              {{Effect: "Deny", Action: "*", NotAction: "*", Resource: "*"}},
		"an empty action":          {{Effect: "Deny", Action: "", Resource: "*"}},
		"an empty list of actions": {{Effect: "Deny", Action: []string{}, Resource: "*"}},
		"no resource":              {{Effect: "Deny", Action: "*"}},
		"two resources":            {{Effect: "Deny", Action: "*", Resource: "*", NotResource: "*"}},
		"an empty resource":        {{Effect: "Deny", Action: "*", Resource: []string{"*", ""}}},
		"a number":                 {{Effect: "Deny", Action: "*", Resource: 7}},
		"an operator without keys": {{Effect: "Deny", Action: "*", Resource: "*", Condition: Conditions{"Bool": {}}}},
		"a key without values":     {{Effect: "Deny", Action: "*", Resource: "*", Condition: Conditions{"Bool": {"t:a": nil}}}},
	} {
		if text, err := Write(statements...); err == nil || text != "" {
			t.Errorf("%s: %q", name, text)
		}
	}
}
