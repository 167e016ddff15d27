package iampolicy

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Whatever is pasted: no panic, refusals that say so, and never an Allow that no
// document gave.
func FuzzEvaluate(f *testing.F) {
	for _, identity := range []string{
		policy(allowGet),
		policy(allowOther + "," + denyGet),
		policy(`{"Effect":"Allow","NotAction":"iam:*","NotResource":"arn:aws:s3:::${aws:username, 'x'}/*","Condition":{"ForAnyValue:StringLikeIfExists":{"t:k":["a*","?"]},"NumericLessThan":{"t:n":5},"Null":{"t:x":true}}}`),
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3","Condition":{"IpAddress":{"t:k":"10.0.0.0/8"},"DateLessThan":{"t:d":"2026-01-01"},"ArnLike":{"t:a":"arn:*:*:*:*:*"},"BinaryEquals":{"t:b":"YWI="}}}}`,
		``,
	} {
		f.Add(identity, policy(grants("Allow", `"Principal":{"AWS":["123456789012"]}`)), "s3:GetObject", testObject, "t:k", "abc")
		f.Add(identity, ``, "s3:PutObject", "arn:aws:s3:::ann/x", "aws:PrincipalTag/team", "*")
		f.Add(identity, policy(grants("Deny", `"NotPrincipal":{"AWS":"*"}`)), "kms:Decrypt", "*", "t:n", "4.5")
	}
	f.Fuzz(func(t *testing.T, identityText, resourceText, action, resource, key, value string) {
		var policies Policies
		for _, input := range []struct {
			text string
			into **Document
		}{{identityText, &policies.Identity}, {resourceText, &policies.Resource}} {
			document, err := Parse("policy", input.text)
			if err != nil {
				mustRefuse(t, err)
				continue
			}
			*input.into = &document
			rebuilt(t, document)
		}
		request := Request{Action: action, Resource: resource, Principal: user(), Context: map[string][]string{key: strings.SplitAfter(value, ",")}}
		decision, err := Evaluate(request, policies)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if decision.Effect == Allowed && policies.Identity == nil && policies.Resource == nil {
			t.Error("allowed by nothing")
		}
		if decision.Effect != ImplicitlyDenied && decision.Statement == "" {
			t.Errorf("no statement decided: %+v", decision)
		}

		for _, empty := range []*Document{nil, {}} {
			alone, err := Evaluate(request, Policies{Identity: empty})
			if err != nil || alone.Effect != ImplicitlyDenied {
				t.Errorf("an empty identity policy: %+v, %v", alone, err)
			}
		}
		policies.Boundary = parsed(t, policy(`{"Effect":"Deny","Action":"*","Resource":"*"}`))
		if denied, err := Evaluate(request, policies); err == nil && denied.Effect != ExplicitlyDenied {
			t.Errorf("a Deny of everything: %+v", denied)
		}
	})
}

func mustRefuse(t *testing.T, err error) {
	t.Helper()
	var refusal *invalid.Error
	if !errors.As(err, &refusal) {
		t.Errorf("not a refusal: %v", err)
	}
}

// rebuilt checks that a document's copies of its statements say the same.
func rebuilt(t *testing.T, document Document) {
	t.Helper()
	var copies []string
	for i := range document.Len() {
		copies = append(copies, document.Statement(i))
	}
	again, err := Parse("policy", policy(strings.Join(copies, ",")))
	if err != nil {
		// What the older version takes for text, the newer one takes for a variable;
		// and a copy may be longer than the text was.
		if !strings.Contains(err.Error(), "variable") && !strings.Contains(err.Error(), "isn't closed") && !strings.Contains(err.Error(), "bytes") {
			t.Errorf("a copy can't be read: %v", err)
		}
		return
	}
	for i := range document.Len() {
		if again.Statement(i) != document.Statement(i) {
			t.Errorf("%s became %s", document.Statement(i), again.Statement(i))
		}
	}
}
