package kubernetes

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		action, resource string
		asked, of        string
		allowed          bool
		says             string
	}{
		{"apply", "prod/*", "patch", "prod/deployments.apps/web", true, ""},
		{"apply", "prod/*", "create", "prod/deployments.apps", true, ""},
		{"apply", "prod/*", "delete", "prod/deployments.apps/web", false, ""},
		{"apply", "prod/*", "patch", "staging/deployments.apps/web", false, "prod"},
		{"apply", "prod/*", "patch", "prod/deployments.apps/web/scale", false, ""},
		{"apply", "prod/*", "create", "prod/pods/web/exec", false, ""},
		{"apply", "prod/*", "patch", "prod/pods/web/ephemeralcontainers", false, ""},
		{"apply", "prod/*", "get", "prod/secrets/db", false, ""},
		{"apply", "prod/*", "list", "prod/configmaps", false, "dryRun"},
		{"read", "prod/*", "get", "prod/pods/web", true, ""},
		{"read", "prod/*", "get", "prod/pods/web/log", false, ""},
		{"read", "prod/*", "get", "prod/deployments.apps/web/scale", true, ""},
		{"read", "prod/*", "watch", "prod/pods", false, "list shows"},
		{"apply", "prod/deployments.apps/web", "patch", "prod/deployments.apps/web", true, ""},
		{"apply", "prod/deployments.apps/web", "patch", "prod/deployments.apps/other", false, ""},
		{"apply", "prod/deployments.apps/web", "create", "prod/deployments.apps", false, ""},
		{"scale", "prod/deployments.apps/web", "patch", "prod/deployments.apps/web/scale", true, ""},
		{"scale", "prod/deployments.apps/web", "patch", "prod/deployments.apps/web", false, ""},
		{"patch", "prod/configmaps/web", "get", "prod/configmaps/web", false, "dryRun"},
		{"patch", "prod/configmaps/web", "get", "prod/configmaps/other", false, ""},
		{"patch", "prod/secrets/db", "get", "prod/secrets/db", true, "dryRun"},
		{"delete", "prod/secrets/db", "get", "prod/secrets/db", true, "dryRun"},
		{"delete", "prod/secrets/db", "get", "prod/secrets/other", false, ""},
		{"deletecollection", "prod/secrets", "list", "prod/secrets", true, "dryRun"},
		{"list", "prod/secrets", "get", "prod/secrets/db", true, "list shows"},
		{"restart", "prod/deployments.apps/web", "patch", "prod/deployments.apps/web", true, restartPolicy},
		{"restart", "prod/deployments.apps/web", "get", "prod/deployments.apps/web", true, ""},
		{"restart", "prod/deployments.apps/web", "watch", "prod/deployments.apps/web", false, ""},
		{"write", "prod/*", "get", "prod/deployments.apps/web", true, ""},
		{"write", "prod/*", "list", "prod/deployments.apps", false, "dryRun"},
		{"deploy", "prod/*", "list", "prod/deployments.apps", true, ""},
		{"deploy", "prod/*", "watch", "prod/deployments.apps", false, "list shows"},
		{"deploy", "prod/*", "impersonate", "prod/serviceaccounts/other", false, ""},
		{"deploy", "prod/*", "impersonate:serviceaccount", "prod/serviceaccounts.authentication.k8s.io/other", false, ""},
		{"deploy", "prod/*", "impersonate-on:serviceaccount:list", "prod/pods", false, ""},
	} {
		facts := offered(t)
		facts[factRestart] = "true"
		c := opened(t)
		policy, err := c.Compile(scoped(t, test.action, test.resource), provider.Bounds{Facts: facts, AllowEscalation: true})
		if err != nil {
			t.Fatal(err)
		}
		verdict, err := c.Check(policy, provider.Question{Action: test.asked, Resource: test.of})
		if err != nil || verdict.Allowed != test.allowed || !strings.Contains(verdict.Reason, test.says) || (verdict.Allowed && verdict.Clause == "") {
			t.Errorf("%s on %s: %s of %s: %+v, %v", test.action, test.resource, test.asked, test.of, verdict, err)
		}
		if !test.allowed && test.says == "" && verdict.Clause != "" {
			t.Errorf("%s on %s: %s of %s is said to show something: %+v", test.action, test.resource, test.asked, test.of, verdict)
		}
	}
	policy, err := opened(t).Compile(scoped(t, "apply", "prod/*"), provider.Bounds{Facts: offered(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, question := range []provider.Question{
		{Action: "apply", Resource: "prod/pods"},
		{Action: "get", Resource: "prod/*"},
		{Action: "impersonate:anybody", Resource: "prod/pods"},
		{Action: "impersonate-on:user-info", Resource: "prod/pods"},
		{Action: "impersonate-on:user-info:impersonate", Resource: "prod/pods"},
		{Action: "get", Resource: "pods"},
		{Action: "get", Resource: "prod/pods/web/log/x"},
		{Action: "get", Resource: "prod/pods/web/"},
		{Action: "get", Resource: "prod/pods/web", ResourcePolicy: "{}"},
		{Action: "get", Resource: "prod/pods/web", Context: map[string][]string{"a": {"b"}}},
	} {
		if verdict, err := opened(t).Check(policy, question); !errors.As(err, new(*invalid.Error)) {
			t.Errorf("%+v: %+v, %v", question, verdict, err)
		}
	}
}

// People are told what a grant is besides its rules.
func TestAdvise(t *testing.T) {
	for name, test := range map[string]struct {
		action, resource string
		bounds           provider.Bounds
		mint, define     []string // what each has to say, nothing for silence
	}{
		"a workload":    {action: "apply", resource: "prod/deployments.apps/web", mint: []string{"service accounts"}, define: []string{"an owner that is not there"}},
		"a namespace":   {action: "apply", resource: "prod/*", mint: []string{"service accounts"}, define: []string{"configmaps", "services", "ingresses", "cronjobs"}},
		"deleting":      {action: "delete", resource: "prod/services/web", define: []string{"dryRun"}},
		"reading":       {action: "read", resource: "prod/*"},
		"restarting":    {action: "restart", resource: "prod/deployments.apps/web"},
		"scaling":       {action: "scale", resource: "prod/deployments.apps/web"},
		"watching":      {action: "read", resource: "prod/pods", bounds: provider.Bounds{Options: provider.Settings{fieldAllowWatch: true}}, mint: []string{"stream"}},
		"power":         {action: "apply", resource: "prod/secrets/db", bounds: provider.Bounds{AllowEscalation: true}, mint: []string{"more than it is"}, define: []string{"an owner that is not there"}},
		"custom":        {action: "patch", resource: "prod/workflows.argoproj.io/x", mint: []string{"workflows.argoproj.io"}, define: []string{"dryRun", "an owner that is not there"}},
		"a patch":       {action: "patch", resource: "prod/services/web", define: []string{"dryRun", "services"}},
		"a short lease": {action: "get", resource: "prod/services/web", bounds: provider.Bounds{TTL: 60e9}, define: []string{"600 s"}},

		"one object": {
			action: "write", resource: "prod/deployments.apps/web",
			mint: []string{"service accounts"}, define: []string{"replace --force"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.bounds.Facts = offered(t)
			test.bounds.Facts[factRestart] = "true"
			advice := opened(t).Advise(scoped(t, test.action, test.resource), test.bounds)
			for _, said := range []struct{ got, want []string }{{advice.Mint, test.mint}, {advice.Definition, test.define}} {
				if len(said.want) == 0 && len(said.got) > 0 {
					t.Errorf("said for nothing: %q", said.got)
				}
				for _, text := range said.want {
					if !slices.ContainsFunc(said.got, func(one string) bool { return strings.Contains(one, text) }) {
						t.Errorf("%q is not said: %q", text, said.got)
					}
				}
			}
		})
	}
}
