package kubernetes

import (
	"errors"
	"slices"
	"testing"

	authorization "k8s.io/api/authorization/v1"
	rbac "k8s.io/api/rbac/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// What a server lists is named so that the same rights have the same name, however
// rules cut them up, and the floor is none of it.
func TestRightsBeyondTheFloor(t *testing.T) {
	got := rightsIn("prod", rulesIn(authorization.SubjectRulesReviewStatus{
		ResourceRules: []authorization.ResourceRule{
			{Verbs: []string{"create"}, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"}},
			{Verbs: []string{"create"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"selfsubjectreviews"}},
			{Verbs: []string{"get", "list", "watch", "update"}, APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"clustertrustbundles"}},
			{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
			{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"secrets", "pods/log"}},
			{Verbs: []string{"patch"}, APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}, ResourceNames: []string{"web", "db"}},
			{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
			{Verbs: []string{"delete"}, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"selfsubjectaccessreviews"}},
			{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users", "userextras/example.com/team"}},
			{Verbs: []string{"impersonate-on:user-info:list", "impersonate-on:serviceaccount:*"}, APIGroups: []string{""}, Resources: []string{"pods"}},
		},
		NonResourceRules: []authorization.NonResourceRule{
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"}},
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/.well-known/openid-configuration", "/openid/v1/jwks", "/metrics"}},
			{Verbs: []string{"post"}, NonResourceURLs: []string{"/version", "*"}},
		},
	})).beyondFloor()
	want := []string{
		"* *.* in prod",
		"delete selfsubjectaccessreviews.authorization.k8s.io in prod",
		"get /metrics",
		"get,list pods/log in prod",
		"get,list secrets in prod",
		"impersonate-on:serviceaccount:*,impersonate-on:user-info:list pods in prod",
		"impersonate:user-info userextras.authentication.k8s.io/example.com/team in prod",
		"impersonate:user-info users.authentication.k8s.io in prod",
		"patch deployments.apps/scale named db in prod",
		"patch deployments.apps/scale named web in prod",
		"post *",
		"post /version",
		"update clustertrustbundles.certificates.k8s.io in prod",
	}
	if texts := slices.Sorted(slices.Values(got.texts())); !slices.Equal(texts, want) {
		t.Errorf("got %q\nwant %q", texts, want)
	}
	read, err := parseRights(got.texts())
	if err != nil || len(got.except(read)) > 0 || len(read.except(got)) > 0 {
		t.Errorf("what is named can't be tolerated: %v, %q", err, got.except(read).texts())
	}
}

// What is tolerated is what is named, verb by verb.
func TestTolerated(t *testing.T) {
	there, err := parseRights([]string{"get,list secrets in prod", "get /metrics"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ tolerated, rest []string }{
		{nil, []string{"get /metrics", "get,list secrets in prod"}},
		{[]string{"list,get secrets in prod", "get /metrics"}, nil},
		{[]string{"get,list,watch secrets in prod", "get /metrics"}, nil},
		{[]string{"get secrets in prod", "get /metrics"}, []string{"list secrets in prod"}},
		{[]string{"get,list secrets in staging", "get /metrics"}, []string{"get,list secrets in prod"}},
		{[]string{"get,list secrets in *"}, []string{"get /metrics", "get,list secrets in prod"}},
		{[]string{"* * in prod", "* *.* in prod", "get *"}, []string{"get /metrics", "get,list secrets in prod"}},
	} {
		tolerated, err := parseRights(test.tolerated)
		if err != nil {
			t.Fatal(err)
		}
		if rest := there.except(tolerated).texts(); !slices.Equal(rest, test.rest) {
			t.Errorf("tolerating %q leaves %q, want %q", test.tolerated, rest, test.rest)
		}
	}
	for _, text := range []string{"", "get", "secrets in prod", "get secrets", "get secrets in", "get secrets in prod; list pods in prod", "get  secrets in prod", "get secrets in Prod", "get secrets in p*", "get secrets in **", "get\nsecrets in prod", "impersonate: users in prod", ":get secrets in prod", "impersonate-on::list pods in prod", "a:b:c:d pods in prod"} {
		if _, err := parseRights([]string{text}); !errors.As(err, new(*invalid.Error)) {
			t.Errorf("%q is tolerated: %v", text, err)
		}
	}
}

// A binding gives what its rules have where it is, and nothing elsewhere.
func TestRightsGiven(t *testing.T) {
	rules := []rbac.PolicyRule{{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"secrets"}}, {Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}}
	asked, err := parseRights([]string{"list secrets in prod", "list secrets in staging", "list secrets in *", "get /metrics", "get secrets in prod"})
	if err != nil {
		t.Fatal(err)
	}
	here, everywhere := binding{}, binding{}
	here.Metadata.Namespace = "prod"
	if got := rightsGiven(here, rules, asked).texts(); !slices.Equal(got, []string{"list secrets in prod"}) {
		t.Errorf("a RoleBinding gives %q", got)
	}
	if got := rightsGiven(everywhere, rules, asked).texts(); !slices.Equal(got, []string{"get /metrics", "list secrets in *", "list secrets in prod", "list secrets in staging"}) {
		t.Errorf("a ClusterRoleBinding gives %q", got)
	}
}

// A right that was read is written as it was read, and means the same.
func FuzzRights(f *testing.F) {
	for _, seed := range []string{"get,list secrets in prod", "* *.* in *", "get /metrics", "impersonate-on:user-info:* pods named web in prod", "patch deployments.apps/scale named db in prod"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read, err := parseRights([]string{text})
		if err != nil {
			if !errors.As(err, new(*invalid.Error)) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := parseRights(read.texts())
		if err != nil || !slices.Equal(read, again) {
			t.Errorf("%q is read as %q, and that as %q: %v", text, read.texts(), again.texts(), err)
		}
	})
}
