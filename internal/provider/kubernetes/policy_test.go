package kubernetes

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

var (
	_ provider.Provider     = &cluster{}
	_ provider.Verifier     = &cluster{}
	_ provider.Identified   = &cluster{}
	_ provider.Examiner     = &cluster{}
	_ provider.Installer    = &cluster{}
	_ provider.Adviser      = &cluster{}
	_ provider.Checker      = &cluster{}
	_ provider.OrphanFinder = &cluster{}
	_ provider.Throttler    = &cluster{}
)

// opened is a target that is never called.
func opened(t *testing.T) *cluster {
	t.Helper()
	made, err := open(provider.Settings{fieldHost: "https://127.0.0.1:6443", fieldToken: "token", fieldDisableLocal: true}, provider.Facts{factCluster: "uid", factEngine: "system:serviceaccount:vault:engine"}, pod{folder: t.TempDir(), env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// offered are facts of a cluster that has what the table has, and some custom
// resources, with all the verbs that each could take.
func offered(t *testing.T) provider.Facts {
	t.Helper()
	all := offers{
		{resource: "workflows", group: "argoproj.io"}:                        verbs,
		{resource: "workflows", group: "argoproj.io", subresource: "status"}: {"get", "patch", "update"},
		{resource: "widgets", group: "example.com"}:                          verbs,
	}
	for known := range table() {
		switch {
		case known.subresource == "log":
			all[known] = []string{"get"}
		case known.subresource == "":
			all[known] = verbs
		default:
			all[known] = []string{"get", "patch", "update"}
		}
	}
	all[kind{resource: "bindings"}] = []string{"create"}
	return provider.Facts{factOffers: all.fact()}
}

func scoped(t *testing.T, action, resource string) scope.Scope {
	t.Helper()
	granted, err := scope.New(action, resource)
	if err != nil {
		t.Fatal(err)
	}
	return granted
}

// The policies that credentials get, byte for byte.
func TestPolicies(t *testing.T) {
	for name, test := range map[string]struct {
		action, resource string
		bounds           provider.Bounds
	}{
		"patch-one":         {action: "patch", resource: "prod/deployments.apps/web"},
		"get-all":           {action: "get", resource: "prod/configmaps"},
		"create":            {action: "create", resource: "prod/jobs.batch"},
		"apply-one":         {action: "apply", resource: "prod/deployments.apps/web"},
		"read-one":          {action: "read", resource: "prod/secrets/db"},
		"scale-one":         {action: "scale", resource: "prod/deployments.apps/web"},
		"custom":            {action: "write", resource: "prod/workflows.argoproj.io"},
		"apply-namespace":   {action: "apply", resource: "prod/*"},
		"write-namespace":   {action: "write", resource: "prod/*"},
		"deploy-namespace":  {action: "deploy", resource: "prod/*"},
		"deploy-watching":   {action: "deploy", resource: "prod/*", bounds: provider.Bounds{Options: provider.Settings{fieldAllowWatch: true}}},
		"read-namespace":    {action: "read", resource: "prod/*"},
		"watch-namespace":   {action: "read", resource: "prod/*", bounds: provider.Bounds{Options: provider.Settings{fieldAllowWatch: true}}},
		"groups-namespace":  {action: "apply", resource: "prod/*", bounds: provider.Bounds{Options: provider.Settings{fieldIncludeGroups: []any{"argoproj.io"}}}},
		"secrets-namespace": {action: "apply", resource: "prod/*", bounds: provider.Bounds{AllowEscalation: true, Options: provider.Settings{fieldIncludeSecrets: true}}},
		"logs":              {action: "logs", resource: "prod/pods/web-1", bounds: provider.Bounds{Options: provider.Settings{fieldAllowWatch: true}}},
		"restart":           {action: "restart", resource: "prod/deployments.apps/web"},
		"options": {action: "get", resource: "prod/configmaps/web", bounds: provider.Bounds{Options: provider.Settings{
			fieldAudiences: []any{"kubernetes", "a"}, fieldWaitReady: false, provider.TolerateAmbient: []any{"list,get configmaps in prod", "get /metrics"},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			test.bounds.Facts = offered(t)
			test.bounds.Facts[factRestart] = "true"
			test.bounds.ExpiresAt = time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
			got, err := opened(t).Compile(scoped(t, test.action, test.resource), test.bounds)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if string(got)+"\n" != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// What can't be granted exactly is refused with the field that is wrong.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		action, resource string
		field            string
		says             string
		bounds           provider.Bounds
	}{
		"no such action":            {action: "publish", resource: "prod/*", field: "action", says: "apply"},
		"an action for humans":      {action: "impersonate", resource: "prod/serviceaccounts/web", field: "action"},
		"no resource":               {action: "get", resource: "prod", field: "resource"},
		"an empty namespace":        {action: "get", resource: "/pods", field: "resource"},
		"every namespace":           {action: "get", resource: "*/pods", field: "resource"},
		"some namespaces":           {action: "apply", resource: "prod-*/*", field: "resource"},
		"a namespace in capitals":   {action: "get", resource: "Prod/pods", field: "resource"},
		"a long namespace":          {action: "get", resource: strings.Repeat("a", 64) + "/pods", field: "resource"},
		"every resource of a group": {action: "get", resource: "prod/*.apps", field: "resource"},
		"a dot at the end":          {action: "get", resource: "prod/pods./web", field: "resource"},
		"a kind":                    {action: "get", resource: "prod/Deployment.apps/web", field: "resource"},
		"every name":                {action: "get", resource: "prod/pods/*", field: "resource", says: "prod/pods"},
		"some names":                {action: "get", resource: "prod/pods/web-*", field: "resource"},
		"an empty name":             {action: "get", resource: "prod/pods/", field: "resource"},
		"a subresource":             {action: "create", resource: "prod/pods/web/exec", field: "resource"},
		"a name with a space":       {action: "get", resource: "prod/pods/a b", field: "resource"},
		"a long name":               {action: "get", resource: "prod/pods/" + strings.Repeat("a", 254), field: "resource"},
		"dots":                      {action: "get", resource: "prod/pods/..", field: "resource"},
		"a kind that is not there":  {action: "get", resource: "prod/gadgets.example.com", field: "resource"},
		"create by name":            {action: "create", resource: "prod/deployments.apps/web", field: "action", says: "apply"},
		"deletecollection by name":  {action: "deletecollection", resource: "prod/pods/web", field: "action", says: "delete"},
		"a verb on everything":      {action: "get", resource: "prod/*", field: "action"},
		"scale everything":          {action: "scale", resource: "prod/*", field: "action"},
		"scale what can't be":       {action: "scale", resource: "prod/pods/web", field: "resource"},
		"a verb that is not taken":  {action: "get", resource: "prod/bindings", field: "action", says: "create"},
		"watch":                     {action: "watch", resource: "prod/pods", field: "action", says: fieldAllowWatch},
		"logs":                      {action: "logs", resource: "prod/pods/web", field: "action", says: fieldAllowWatch},
		"logs of a deployment":      {action: "logs", resource: "prod/deployments.apps/web", field: "action", bounds: provider.Bounds{Options: provider.Settings{fieldAllowWatch: true}}},
		"restart without policy":    {action: "restart", resource: "prod/deployments.apps/web", field: "action"},
		"restart a job":             {action: "restart", resource: "prod/jobs.batch/web", field: "action"},
		"the engine's accounts":     {action: "get", resource: "precision/pods", field: "resource"},
		"secrets by *":              {action: "read", resource: "prod/*", field: "action", bounds: provider.Bounds{Options: provider.Settings{fieldIncludeSecrets: true}}},
		"secrets beside a name":     {action: "read", resource: "prod/pods", field: fieldIncludeSecrets, bounds: provider.Bounds{Options: provider.Settings{fieldIncludeSecrets: true}}},
		"groups beside a name":      {action: "read", resource: "prod/pods", field: fieldIncludeGroups, bounds: provider.Bounds{Options: provider.Settings{fieldIncludeGroups: []string{"argoproj.io"}}}},
		"a group of Kubernetes":     {action: "apply", resource: "prod/*", field: fieldIncludeGroups, bounds: provider.Bounds{Options: provider.Settings{fieldIncludeGroups: []string{"rbac.authorization.k8s.io"}}}},
		"a group that is not there": {action: "apply", resource: "prod/*", field: fieldIncludeGroups, bounds: provider.Bounds{Options: provider.Settings{fieldIncludeGroups: []string{"gadgets.example.com"}}}},
		"all groups":                {action: "apply", resource: "prod/*", field: fieldIncludeGroups, bounds: provider.Bounds{Options: provider.Settings{fieldIncludeGroups: []string{"*"}}}},
		"no audience":               {action: "get", resource: "prod/pods", field: fieldAudiences, bounds: provider.Bounds{Options: provider.Settings{fieldAudiences: []string{""}}}},
		"tolerated at large":        {action: "get", resource: "prod/pods", field: provider.TolerateAmbient, bounds: provider.Bounds{Options: provider.Settings{provider.TolerateAmbient: []string{"everything"}}}},
		"an address":                {action: "get", resource: "prod/pods", field: "bound_source_ip", bounds: provider.Bounds{SourceIP: netip.MustParseAddr("203.0.113.7")}},

		// What hands out further power.
		"read all secrets":         {action: "get", resource: "prod/secrets", field: "action"},
		"delete all secrets":       {action: "deletecollection", resource: "prod/secrets", field: "action"},
		"make secrets":             {action: "create", resource: "prod/secrets", field: "action"},
		"apply a secret":           {action: "apply", resource: "prod/secrets/db", field: "action"},
		"patch a secret":           {action: "patch", resource: "prod/secrets/db", field: "action"},
		"make bindings":            {action: "create", resource: "prod/rolebindings.rbac.authorization.k8s.io", field: "action"},
		"change a role":            {action: "update", resource: "prod/roles.rbac.authorization.k8s.io/web", field: "action"},
		"make accounts":            {action: "create", resource: "prod/serviceaccounts", field: "action"},
		"configure the cluster":    {action: "patch", resource: "kube-system/configmaps/aws-auth", field: "action"},
		"apply to the cluster":     {action: "apply", resource: "kube-system/*", field: "action"},
		"run beside the engine":    {action: "apply", resource: "vault/deployments.apps/web", field: "action"},
		"write all custom secrets": {action: "write", resource: "prod/*", field: "action", bounds: provider.Bounds{Options: provider.Settings{fieldIncludeSecrets: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			test.bounds.Facts = offered(t)
			_, err := opened(t).Compile(scoped(t, test.action, test.resource), test.bounds)
			var refusal *invalid.Error
			if !errors.As(err, &refusal) || refusal.Field != test.field || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want a refusal of %s that says %q", err, test.field, test.says)
			}
		})
	}
}

// Without what the cluster has nothing is granted.
func TestWithoutFactsNothing(t *testing.T) {
	for _, facts := range []provider.Facts{nil, {}, {factOffers: "{}"}, {factOffers: "[]"}} {
		for _, resource := range []string{"prod/*", "prod/pods", "prod/deployments.apps/web"} {
			if policy, err := opened(t).Compile(scoped(t, "apply", resource), provider.Bounds{Facts: facts, AllowEscalation: true}); err == nil {
				t.Errorf("%s with %v: %s", resource, facts, policy)
			}
		}
	}
}
