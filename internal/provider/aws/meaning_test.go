package aws

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

const searchDomain = "arn:aws:es:eu-west-1:123456789012:domain/logs/"

// filledIn is a scope whose resource has {{p}} filled in.
func filledIn(t *testing.T, action, resource, value string) scope.Scope {
	t.Helper()
	texts := scope.Texts{Action: action, Resource: resource}
	values := scope.Values{}
	if strings.Contains(resource, "{{p}}") {
		texts.Parameters = map[string]any{"p": ".+"}
		values.Parameters = map[string]string{"p": value}
	}
	definition, err := scope.Define(texts)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := definition.Fill(values)
	if err != nil {
		t.Fatalf("%s with %q: %v", resource, value, err)
	}
	return granted
}

// meaningOf judges a scope, and says how far it reaches where that is allowed.
func meaningOf(t *testing.T, action, resource, value string, allowed bool) ([]string, error) {
	t.Helper()
	granted := filledIn(t, action, resource, value)
	found, err := FindAction(action)
	if err != nil {
		t.Fatal(err)
	}
	arn, err := scope.ParseARN(granted.Resource())
	if err != nil {
		t.Fatal(err)
	}
	return checkMeaning(found, arn, granted.ResourceText(), allowed)
}

// TestSearchPaths has requests to OpenSearch that reach further than their path
// says: none is granted without consent, and each consent is warned of.
func TestSearchPaths(t *testing.T) {
	for _, test := range []struct{ action, path string }{
		{"es:ESHttpGet", "*"}, {"es:ESHttpPost", "*"}, {"es:ESHttpDelete", "*"}, {"es:ESHttpPut", "*"},
		{"es:ESHttpGet", "_all/_search"}, {"es:ESHttpGet", "x,secret/_search"}, {"es:ESHttpGet", "-x/_search"}, {"es:ESHttpGet", "%2A/_search"},
		{"es:ESHttpPost", "_bulk"}, {"es:ESHttpPost", "_mget"}, {"es:ESHttpGet", "_msearch"}, {"es:ESHttpPost", "_search"},
		{"es:ESHttpPost", "_search/scroll"}, {"es:ESHttpPost", "_reindex"}, {"es:ESHttpPost", "_sql"}, {"es:ESHttpPut", "_plugins/_security/api/internalusers/x"},
		{"es:ESHttpGet", "_cluster/state"}, {"es:ESHttpPost", "_cat/indices"}, {"es:ESHttpPut", "_cluster/settings"},
		{"es:ESHttpPost", "app/_bulk"}, {"es:ESHttpPut", "app/_bulk"}, {"es:ESHttpGet", "app/_mget"}, {"es:ESHttpGet", "app/_msearch"}, {"es:ESHttpPost", "app/_doc/_bulk"},
		{"es:ESHttpPost", "app/_update_by_query"}, {"es:ESHttpPost", "app/_delete_by_query"}, {"es:ESHttpPost", "app/_search/template"}, {"es:ESHttpPut", "app/_alias/other"},
		{"es:ESHttpGet", "app/*"}, {"es:ESHttpPost", "app/*"}, {"es:ESHttpPost", "app/_doc/*"}, {"es:ESHttpPut", "app/_doc/*"}, {"es:ESHttpPost", "app/_search/*"},
	} {
		var refusal *invalid.Error
		_, err := meaningOf(t, test.action, searchDomain+test.path, "", false)
		if !errors.As(err, &refusal) || refusal.Field != resourceField || !strings.Contains(err.Error(), "INDEX/_doc/ID") || !strings.Contains(err.Error(), "INDEX/_search") {
			t.Errorf("%s %s: %v", test.action, test.path, err)
		}
		if reach, err := meaningOf(t, test.action, searchDomain+test.path, "", true); err != nil || len(reach) != 1 {
			t.Errorf("%s %s, allowed: %q, %v", test.action, test.path, reach, err)
		}
	}
	for _, test := range []struct{ action, path string }{
		{"es:ESHttpGet", "app/_search"}, {"es:ESHttpPost", "app/_search"}, {"es:ESHttpGet", "app/_doc/1"}, {"es:ESHttpPut", "app/_doc/1"}, {"es:ESHttpPost", "app/_update/1"},
		{"es:ESHttpGet", "app/_count"}, {"es:ESHttpDelete", "app/_doc/1"}, {"es:ESHttpDelete", "app/_doc/*"}, {"es:ESHttpDelete", "app/*"}, {"es:ESHttpHead", "*"},
		{"es:ESHttpGet", "_cat/indices"}, {"es:ESHttpGet", "_cluster/health"}, {"es:ESHttpPut", "app"}, {"es:ESHttpGet", "app/type/1"}, {"es:ESHttpPut", "app/_settings"},
	} {
		if reach, err := meaningOf(t, test.action, searchDomain+test.path, "", false); err != nil || len(reach) > 0 {
			t.Errorf("%s %s: %q, %v", test.action, test.path, reach, err)
		}
	}
}

// TestSearchValues fills hostile values into paths of OpenSearch: no consent of the
// role admits them.
func TestSearchValues(t *testing.T) {
	for _, test := range []struct{ path, value string }{
		{"{{p}}/_search", "_all"}, {"{{p}}/_search", "x,secret"}, {"{{p}}/_search", "-x"}, {"{{p}}/_search", "+x"}, {"{{p}}", "_bulk"}, {"{{p}}", "app/_bulk"},
		{"{{p}}", "_search/scroll"}, {"app/{{p}}", "_bulk"}, {"app/{{p}}", "_mget"}, {"app/_doc/{{p}}", "_bulk"}, {"app/_doc/{{p}}", "1/_bulk"}, {"logs-{{p}}/_search", "a,secret"},
		{"app/_{{p}}", "bulk"}, {"_{{p}}", "all"}, {"app/_d{{p}}", "oc"}, {"app/_search/{{p}}", "_x"},
	} {
		for _, allowed := range []bool{false, true} {
			var refusal *invalid.Error
			if _, err := meaningOf(t, "es:ESHttpPost", searchDomain+test.path, test.value, allowed); !errors.As(err, &refusal) || refusal.Field != "p" {
				t.Errorf("%s with %q, allowed %v: %v", test.path, test.value, allowed, err)
			}
		}
	}
	for _, test := range []struct{ path, value string }{
		{"{{p}}/_search", "app"}, {"logs-{{p}}/_search", "-2026_11"}, {"logs-{{p}}/_doc/1", "_x"}, {"app/_doc/{{p}}", "1"}, {"{{p}}/_doc/1", "app-2026.11.29"},
	} {
		if _, err := meaningOf(t, "es:ESHttpPost", searchDomain+test.path, test.value, false); err != nil {
			t.Errorf("%s with %q: %v", test.path, test.value, err)
		}
	}
}

func FuzzSearchValue(f *testing.F) {
	for _, value := range []string{"app", "_all", "x,secret", "-x", "a/_bulk", "2026.11.29"} {
		f.Add(value)
	}
	found, err := FindAction("es:ESHttpPost")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		definition, err := scope.Define(scope.Texts{Action: "es:ESHttpPost", Resource: searchDomain + "{{p}}/_search", Parameters: map[string]any{"p": "(?s).*"}})
		if err != nil {
			t.Fatal(err)
		}
		granted, err := definition.Fill(scope.Values{Parameters: map[string]string{"p": value}})
		if err != nil {
			return
		}
		arn, err := scope.ParseARN(granted.Resource())
		if err != nil {
			return
		}
		if _, err := checkMeaning(found, arn, granted.ResourceText(), false); err != nil {
			return
		}
		index, _, _ := strings.Cut(strings.TrimPrefix(granted.Resource(), searchDomain), "/")
		if strings.ContainsAny(index, ",*%<") || strings.ContainsAny(index[:1], "_-+") {
			t.Errorf("%q names another index than itself", index)
		}
	})
}

func TestTopics(t *testing.T) {
	const topics = "arn:aws:iot:eu-west-1:123456789012:"
	for _, test := range []struct {
		resource, value string
		fine            bool
	}{
		{"topicfilter/devices/+", "", false}, {"topicfilter/+/state", "", false}, {"topicfilter/#", "", false}, {"topicfilter/devices/#/x", "", false}, {"topicfilter/devices/x#", "", false},
		{"topicfilter/devices/{{p}}", "+", false}, {"topicfilter/{{p}}/state", "a/+", false}, {"topic/devices/{{p}}", "a+b", false},
		{"topicfilter/devices/#", "", true}, {"topicfilter/devices/*", "", true}, {"topicfilter/devices/{{p}}", "a/b", true}, {"topic/devices/1", "", true}, {"client/{{p}}", "a+b", true},
	} {
		_, err := meaningOf(t, "iot:Subscribe", topics+test.resource, test.value, false)
		if (err == nil) != test.fine {
			t.Errorf("%s with %q: %v", test.resource, test.value, err)
		}
	}
}
