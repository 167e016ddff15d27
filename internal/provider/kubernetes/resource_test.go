package kubernetes

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// A value that a caller gives names an object, and never where or what it is.
func TestWhatIsFilledIn(t *testing.T) {
	const pattern = "[a-z./0-9-]+"
	for _, test := range []struct {
		resource, value string
		want            string // of the rule; empty where it is refused
	}{
		{"prod/configmaps/{{x}}", "web", "web"},
		{"prod/configmaps/web-{{x}}", "1", "web-1"},
		{"prod/configmaps/{{x}}.example", "web", "web.example"},
		{"prod/configmaps/{{x}}", "web/status", ""},
		{"prod/configmaps/{{x}}", "-web", ""},
		{"prod/{{x}}", "configmaps", ""},
		{"prod/{{x}}", "configmaps/web", ""},
		{"prod/{{x}}/web", "configmaps", ""},
		{"prod/configmaps{{x}}", "/web", ""},
		{"prod/config{{x}}", "maps/web", ""},
		{"{{x}}/configmaps", "prod", ""},
		{"{{x}}", "prod/configmaps", ""},
		{"{{x}}/*", "prod", ""},
		{"pro{{x}}/configmaps/web", "d", ""},
	} {
		definition, err := scope.Define(scope.Texts{Action: "get", Resource: test.resource, Parameters: map[string]any{"x": pattern}})
		if err != nil {
			t.Fatal(err)
		}
		granted, err := definition.Fill(scope.Values{Parameters: map[string]string{"x": test.value}})
		var policy provider.Policy
		if err == nil {
			policy, err = opened(t).Compile(granted, provider.Bounds{Facts: offered(t)})
		}
		switch {
		case test.want == "" && !errors.As(err, new(*invalid.Error)):
			t.Errorf("%s with %s: %v, %s", test.resource, test.value, err, policy)
		case test.want != "" && !strings.Contains(string(policy), `"resourceNames":["`+test.want+`"]`):
			t.Errorf("%s with %s: %v, %s", test.resource, test.value, err, policy)
		}
	}
}

// FuzzResource: what is accepted names one namespace and one resource, and is written
// in one way.
func FuzzResource(f *testing.F) {
	for _, seed := range []string{"prod/*", "prod/pods", "prod/deployments.apps/web", "prod/pods/a/b", "*/pods", "prod/*.apps", "prod/pods./x", "prod//x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read, err := parseResource(text)
		if err != nil {
			if !errors.As(err, new(*invalid.Error)) {
				t.Fatalf("%q: %v can't be mended", text, err)
			}
			return
		}
		if read.String() != text {
			t.Fatalf("%q is read as %q", text, read)
		}
		if strings.Contains(strings.TrimSuffix(text, "/*"), "*") || read.all != strings.HasSuffix(text, "/*") {
			t.Fatalf("%q has a wildcard", text)
		}
		if kind := read.kind.String(); !read.all && parseKind(kind) != read.kind {
			t.Fatalf("the kind of %q is written as %q", text, kind)
		}
	})
}
