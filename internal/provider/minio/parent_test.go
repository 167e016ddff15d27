package minio

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

func isolatingStore(t *testing.T, accessKey, secretKey string) *minio {
	t.Helper()
	store, err := open(provider.Settings{"endpoint": "http://127.0.0.1:9000", "access_key": accessKey, "secret_key": secretKey, "isolate_roles": true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store.(*minio)
}

func compiled(t *testing.T, store *minio, action, resource string, expiresAt int64) provider.Policy {
	t.Helper()
	granted, err := scope.New(action, resource)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := store.Compile(granted, provider.Bounds{ExpiresAt: time.Unix(expiresAt, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// A parent may do what its sessions may, but for the times.
func TestRulesHaveNoTimes(t *testing.T) {
	store := isolatingStore(t, "engine", "secret")
	for resource, want := range map[string]provider.Policy{
		"arn:aws:s3:::releases/app/*": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::releases/app/*"},` +
			`{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*","Condition":{"Null":{"s3:RequestObjectTagKeys":"false"}}}]}`,
		"arn:aws:s3:::releases/a&b": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::releases/a&b"},` +
			`{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*","Condition":{"Null":{"s3:RequestObjectTagKeys":"false"}}},` +
			`{"Effect":"Deny","Action":"s3:GetObject","Resource":"arn:aws:s3:::releases/a&b/"}]}`,
	} {
		got, err := rulesOf(compiled(t, store, "s3:GetObject", resource, 0))
		if err != nil || got != want {
			t.Errorf("%s %v\nwant %s", got, err, want)
		}
	}
	if _, err := rulesOf("{"); err == nil {
		t.Error("half a policy is read")
	}
}

// Each scope, mount, ledger and engine has a parent of its own, and a name that MinIO takes.
func TestParentNames(t *testing.T) {
	store := isolatingStore(t, "engine", "secret")
	policy := compiled(t, store, "s3:PutObject", "arn:aws:s3:::releases/app/*", 0)
	handle := store.Plan(policy, "mount", "ledger")
	for what, same := range map[string]provider.Handle{
		"another end":        store.Plan(compiled(t, store, "s3:PutObject", "arn:aws:s3:::releases/app/*", 1000), "mount", "ledger"),
		"another secret key": isolatingStore(t, "engine", "other").Plan(policy, "mount", "ledger"),
	} {
		if !maps.Equal(handle, same) {
			t.Errorf("%s: %v, want %v", what, same, handle)
		}
	}
	names := map[string]string{}
	for what, planned := range map[string]provider.Handle{
		"itself":           handle,
		"another action":   store.Plan(compiled(t, store, "s3:GetObject", "arn:aws:s3:::releases/app/*", 0), "mount", "ledger"),
		"another resource": store.Plan(compiled(t, store, "s3:PutObject", "arn:aws:s3:::releases/app", 0), "mount", "ledger"),
		"another mount":    store.Plan(policy, "mount2", "ledger"),
		"another ledger":   store.Plan(policy, "mount", "ledger2"),
		"moved letters":    store.Plan(policy, "mountl", "edger"),
		"another engine":   isolatingStore(t, "engine2", "secret").Plan(policy, "mount", "ledger"),
	} {
		name := planned[handleParent]
		if names[name] != "" {
			t.Errorf("%s and %s are both %s", what, names[name], name)
		}
		names[name] = what
		if len(name) != 20 || !strings.HasPrefix(name, "p-") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567-") != "" {
			t.Errorf("%s: %q is no name for a user", what, name)
		}
	}
	prepared, err := store.Prepare(t.Context(), provider.Grant{ID: "grant", Mount: "mount", Ledger: "ledger", Policy: policy})
	if err != nil || prepared[handleParent] != handle[handleParent] {
		t.Errorf("prepared %v %v, planned %v", prepared, err, handle)
	}
	if store.isolates = false; len(store.Plan(policy, "mount", "ledger")) > 0 {
		t.Error("something is planned although roles are not isolated")
	}
}

// A parent's key follows from the engine's and the parent's name.
func TestParentKeys(t *testing.T) {
	first, second := isolatingStore(t, "engine", "secret").client, isolatingStore(t, "engine", "other").client
	if got := first.keyOf("engine"); got.SecretAccessKey != "secret" {
		t.Errorf("the engine's own key is %v", got)
	}
	key := first.keyOf("p-a")
	if key != first.keyOf("p-a") || key.AccessKeyID != "p-a" || len(key.SecretAccessKey) != 40 {
		t.Errorf("a parent's key is %v", key)
	}
	if key.SecretAccessKey == first.keyOf("p-b").SecretAccessKey || key.SecretAccessKey == second.keyOf("p-a").SecretAccessKey {
		t.Error("two parents, or two engines, have one secret")
	}
}

func TestSameRules(t *testing.T) {
	written := provider.Policy(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"r"},{"Effect":"Deny","Action":"s3:*","Resource":"r","Condition":{"Null":{"k":"false"}}}]}`)
	deny := `{"Effect":"Deny","Action":["s3:*"],"Resource":["r"],"Condition":{"Null":{"k":[false]}}}`
	allow := `{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["r"]}`
	for shown, want := range map[string]bool{
		allow + "," + deny:                 true,
		deny + "," + allow:                 true,
		allow:                              false,
		allow + "," + deny + "," + allow:   false,
		deny + "," + deny:                  false,
		allow + "," + `{"Effect":"Allow"}`: false,
		`{"Effect":"Allow","Action":["s3:PutObject","s3:GetObject"],"Resource":["r"]},` + deny: false,
	} {
		got, err := sameRules([]byte(`{"Version":"","Statement":[`+shown+`]}`), written)
		if err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", shown, got, err, want)
		}
	}
	if same, err := sameRules([]byte(`{"Version":"","Statement":null}`), written); same || err != nil {
		t.Errorf("no rules: %v %v", same, err)
	}
}
