package kubernetes

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// whole is all that the engine asks of the provider.
type whole interface {
	provider.Provider
	provider.Examiner
	provider.Installer
	provider.OrphanFinder
	provider.Verifier
}

const (
	someMount  = "aaaaaaaa-2222-3333-4444-555555555555"
	someLedger = "ledger"
)

// bench is a provider and one scope that is installed.
type bench struct {
	t *testing.T
	whole
	policy  provider.Policy
	planned provider.Handle
}

func providerSettings(jwt string) provider.Settings {
	return provider.Settings{"kubernetes_host": servers.Kubernetes.Host, "kubernetes_ca_cert": servers.Kubernetes.CA, "service_account_jwt": jwt, "disable_local_ca_jwt": true}
}

// newBench plans a scope, and does not install it.
func newBench(t *testing.T, jwt, action, resource string) bench {
	t.Helper()
	b := bench{t: t, whole: openProvider(t, providerSettings(jwt)).(whole)}
	granted, err := scope.New(action, resource)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := b.Examine(t.Context(), granted, provider.Bounds{})
	if err != nil {
		t.Fatal(err)
	}
	if b.policy, err = b.Compile(granted, provider.Bounds{Facts: findings.Facts}); err != nil {
		t.Fatal(err)
	}
	b.planned = b.Plan(b.policy, someMount, someLedger)
	return b
}

func (b bench) install() {
	b.t.Helper()
	if err := b.Install(b.t.Context(), b.planned, b.policy); err != nil {
		b.t.Fatal(err)
	}
}

func (b bench) mint() (provider.Handle, provider.Credential, error) {
	b.t.Helper()
	end := time.Now().Add(time.Hour)
	handle, err := b.Prepare(b.t.Context(), provider.Grant{ID: ledger.NewID(end), Mount: someMount, Ledger: someLedger, Role: "role", ExpiresAt: end, Policy: b.policy})
	if err != nil {
		b.t.Fatal(err)
	}
	minted, err := b.Mint(b.t.Context(), handle, b.policy, end)
	return handle, minted, err
}

// nothingMade checks that a mint was refused and has left nothing.
func (b bench) nothingMade(handle provider.Handle, err error) {
	b.t.Helper()
	if !errors.As(err, new(*provider.NotMade)) {
		b.t.Errorf("the mint is not said to have made nothing: %v", err)
	}
	_, account := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).Get(b.t.Context(), handle["name"], meta.GetOptions{})
	_, binding := servers.Kubernetes.RbacV1().RoleBindings(handle["namespace"]).Get(b.t.Context(), handle["name"], meta.GetOptions{})
	if !apierrors.IsNotFound(account) || !apierrors.IsNotFound(binding) {
		b.t.Errorf("it has left something: %v, %v", account, binding)
	}
}

// A Role that somebody has changed is not minted on, and is put right.
func TestChangedRoleIsPutRight(t *testing.T) {
	const namespace = "changed"
	ctx := t.Context()
	b := newBench(t, needEngine(t, namespace), "read", namespace+"/configmaps")
	b.install()
	roles := servers.Kubernetes.RbacV1().Roles(namespace)
	for what, change := range map[string]func(*rbac.Role){
		"widened": func(role *rbac.Role) { role.Rules[0].Verbs = append(role.Rules[0].Verbs, "watch") },
		"added to": func(role *rbac.Role) {
			role.Rules = append(role.Rules, rbac.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}})
		},
		"narrowed":   func(role *rbac.Role) { role.Rules[0].ResourceNames = []string{"one"} },
		"emptied":    func(role *rbac.Role) { role.Rules = nil },
		"made a '*'": func(role *rbac.Role) { role.Rules[0].Resources = []string{"*"} },
	} {
		role, err := roles.Get(ctx, b.planned["name"], meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		right := slices.Clone(role.Rules)
		change(role)
		if _, err := roles.Update(ctx, role, meta.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		handle, _, err := b.mint()
		if !errors.Is(err, provider.ErrNotInstalled) {
			t.Errorf("%s: a mint says %v", what, err)
		}
		b.nothingMade(handle, err)
		b.install()
		if role, err = roles.Get(ctx, b.planned["name"], meta.GetOptions{}); err != nil || len(role.Rules) != len(right) || role.Rules[0].String() != right[0].String() {
			t.Errorf("%s: put right to %v, %v", what, role.Rules, err)
		}
	}
	handle, minted, err := b.mint()
	if err != nil {
		t.Fatal(err)
	}
	if err := listConfigMaps(ctx, namespace, minted.Fields["service_account_token"].(string)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(b.Revoke(ctx, handle), b.Uninstall(ctx, b.planned)); err != nil {
		t.Error(err)
	}
}

// A binding that somebody keeps is still there, and a revoke says so; the credential is
// dead all the same.
func TestHeldBindingIsNotCalledGone(t *testing.T) {
	const namespace = "held-on-to"
	ctx := t.Context()
	b := newBench(t, needEngine(t, namespace), "read", namespace+"/configmaps")
	b.install()
	handle, minted, err := b.mint()
	if err != nil {
		t.Fatal(err)
	}
	bindings := servers.Kubernetes.RbacV1().RoleBindings(namespace)
	hold := func(finalizers string) {
		t.Helper()
		if _, err := bindings.Patch(ctx, handle["name"], types.MergePatchType, []byte(`{"metadata":{"finalizers":`+finalizers+`}}`), meta.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	hold(`["example.com/hold"]`)
	for range 2 {
		err := b.Revoke(ctx, handle)
		var kept *provider.CleanupBlocked
		if !errors.As(err, &kept) || !strings.Contains(kept.Reason, "example.com/hold") || !strings.Contains(kept.Remedy, handle["name"]) {
			t.Errorf("a revoke says %v", err)
		}
		eventually(t, "the credential is refused", time.Second, func() bool {
			return refused(listConfigMaps(ctx, namespace, minted.Fields["service_account_token"].(string)))
		})
	}
	hold("null")
	if err := b.Revoke(ctx, handle); err != nil {
		t.Error(err)
	}
	eventually(t, "the credential is refused", time.Second, func() bool {
		return refused(listConfigMaps(ctx, namespace, minted.Fields["service_account_token"].(string)))
	})
	if err := b.Uninstall(ctx, b.planned); err != nil {
		t.Error(err)
	}
}

// Where the operator makes the Role, the engine holds nothing of what it grants and
// makes nothing but bindings to that Role.
func TestOperatorsOwnRole(t *testing.T) {
	const namespace = "operators"
	ctx := t.Context()
	jwt := needEngine(t)
	if err := servers.Kubernetes.MakeNamespace(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	roles := servers.Kubernetes.RbacV1().Roles(namespace)
	makeWith := func(name string, rules ...rbac.PolicyRule) {
		t.Helper()
		if _, err := roles.Create(ctx, &rbac.Role{ObjectMeta: meta.ObjectMeta{Name: name}, Rules: rules}, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	const group = "rbac.authorization.k8s.io"
	makeWith("binder", rbac.PolicyRule{Verbs: []string{"create", "delete"}, APIGroups: []string{group}, Resources: []string{"rolebindings"}})
	bind(t, namespace, "Role", "binder", account(lab.EngineNamespace, lab.EngineAccount))
	eventually(t, "the server has seen the engine's rights", 5*time.Second, func() bool {
		_, err := openProvider(t, providerSettings(jwt)).(whole).Examine(ctx, mustScope(t, "read", namespace+"/configmaps"), provider.Bounds{})
		return err == nil
	})
	b := newBench(t, jwt, "read", namespace+"/configmaps")
	err := b.Install(ctx, b.planned, b.policy)
	if !errors.As(err, new(*invalid.Error)) || !strings.Contains(err.Error(), b.planned["name"]) || !strings.Contains(err.Error(), `"resources":["configmaps"]`) {
		t.Errorf("an engine that may make no Role says %v, want the Role's name and rules", err)
	}
	makeWith(b.planned["name"], rbac.PolicyRule{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"configmaps"}})
	b.install()
	handle, _, err := b.mint()
	if !errors.As(err, new(*invalid.Error)) {
		t.Errorf("an engine that may not bind the Role says %v", err)
	}
	b.nothingMade(handle, err)

	makeWith("may-bind", rbac.PolicyRule{Verbs: []string{"bind"}, APIGroups: []string{group}, Resources: []string{"roles"}, ResourceNames: []string{b.planned["name"]}})
	bind(t, namespace, "Role", "may-bind", account(lab.EngineNamespace, lab.EngineAccount))
	var minted provider.Credential
	eventually(t, "the server has seen that the engine may bind it", 5*time.Second, func() bool {
		handle, minted, err = b.mint()
		return err == nil
	})
	if err := listConfigMaps(ctx, namespace, minted.Fields["service_account_token"].(string)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(b.Revoke(ctx, handle), b.Uninstall(ctx, b.planned)); err != nil {
		t.Error(err)
	}
	if _, err := roles.Get(ctx, b.planned["name"], meta.GetOptions{}); err != nil {
		t.Errorf("the operator's Role is gone: %v", err)
	}
}

func mustScope(t *testing.T, action, resource string) scope.Scope {
	t.Helper()
	granted, err := scope.New(action, resource)
	if err != nil {
		t.Fatal(err)
	}
	return granted
}

// What a role names is held against what the cluster has.
func TestWhatTheClusterHasNot(t *testing.T) {
	const namespace = "has-not"
	opened := openProvider(t, providerSettings(needEngine(t, namespace))).(whole)
	for _, test := range []struct{ action, resource, field, says string }{
		{"apply", namespace + "/deployments/web", "resource", namespace + "/deployments.apps/web"},
		{"apply", namespace + "/deploy/web", "resource", namespace + "/deployments.apps/web"},
		{"apply", namespace + "/deployment.apps/web", "resource", namespace + "/deployments.apps/web"},
		{"apply", namespace + "/deployments.v1.apps/web", "resource", namespace + "/deployments.apps/web"},
		{"get", namespace + "/pod/web", "resource", namespace + "/pods/web"},
		{"get", namespace + "/nodes/one", "resource", "not in a namespace"},
		{"get", namespace + "/clusterroles.rbac.authorization.k8s.io/admin", "resource", "not in a namespace"},
		{"get", namespace + "/pods.metrics.k8s.io", "resource", namespace + "/pods"},
		{"scale", namespace + "/daemonsets.apps/web", "action", "no subresource scale"},
		{"get", "has-nothing/pods", "target", "may not"},
	} {
		_, err := opened.Examine(t.Context(), mustScope(t, test.action, test.resource), provider.Bounds{})
		var refusal *invalid.Error
		if !errors.As(err, &refusal) || refusal.Field != test.field || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s on %s: %v, want a refusal of %s that says %q", test.action, test.resource, err, test.field, test.says)
		}
	}
}

// A target that does not work says which of its fields is wrong.
func TestVerifySaysWhatIsWrong(t *testing.T) {
	jwt := needEngine(t)
	for what, test := range map[string]struct{ name, value, wrong, warns string }{
		"all is well":          {},
		"no such token":        {name: "service_account_jwt", value: "nobody's", wrong: "service_account_jwt"},
		"no such namespace":    {name: "namespace", value: "nowhere", wrong: "", warns: "may not"},
		"nobody listens":       {name: "kubernetes_host", value: "https://127.0.0.1:1", wrong: "kubernetes_host"},
		"another's authority":  {name: "kubernetes_ca_cert", value: anotherAuthority(t), wrong: "kubernetes_ca_cert"},
		"of the administrator": {name: "service_account_jwt", value: servers.Kubernetes.Admin.BearerToken, warns: "administrator"},
		"another server":       {name: "kubernetes_host", value: servers.Vault.Address, wrong: "kubernetes_host"},
	} {
		settings := providerSettings(jwt)
		if test.name != "" {
			settings[test.name] = test.value
		}
		opened, err := kubernetesType().Open(settings, nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		verification, err := opened.(provider.Verifier).Verify(t.Context())
		var refusal *invalid.Error
		switch {
		case test.wrong != "" && (!errors.As(err, &refusal) || refusal.Field != test.wrong || strings.Contains(err.Error(), "nobody's")):
			t.Errorf("%s: %v, want a refusal of %s", what, err, test.wrong)
		case test.wrong == "" && (err != nil || verification.Facts["cluster_uid"] == "" || verification.Facts["version"] == ""):
			t.Errorf("%s: %v, %v", what, verification, err)
		case test.wrong == "" && (test.warns == "") != (len(verification.Warnings) == 0), !strings.Contains(strings.Join(verification.Warnings, "\n"), test.warns):
			t.Errorf("%s: it warns %q", what, verification.Warnings)
		}
	}
}

// What the engine may not list is no fault.
func TestOrphansThatMayNotBeListed(t *testing.T) {
	ctx := t.Context()
	needEngine(t)
	makeAccount(t, lab.EngineNamespace, "powerless")
	made, err := kubernetesType().Open(providerSettings(token(t, lab.EngineNamespace, "powerless")), nil)
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for _, err := range made.(provider.OrphanFinder).Marked(ctx, someMount, func(string, provider.Handle) bool { return false }) {
		last = err
	}
	if !errors.Is(last, provider.ErrNotPermitted) {
		t.Errorf("got %v", last)
	}
}

// The canary's account is made again where somebody has deleted it.
func TestCanaryComesBack(t *testing.T) {
	const namespace = "canary"
	ctx := t.Context()
	b := newBench(t, needEngine(t, namespace), "read", namespace+"/configmaps")
	b.install()
	if err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).Delete(ctx, "precision-canary", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The token that the provider keeps is taken for some seconds, and then no more.
	handle, _, err := b.mint()
	if err != nil {
		t.Error(err)
	}
	time.Sleep(12 * time.Second)
	another, _, err := b.mint()
	if err != nil {
		t.Error(err)
	}
	if err := errors.Join(b.Revoke(ctx, handle), b.Revoke(ctx, another), b.Uninstall(ctx, b.planned)); err != nil {
		t.Error(err)
	}
}

// All that the server has in a namespace has been judged.
func TestTableHasWhatTheServerHas(t *testing.T) {
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "internal", "provider", "kubernetes", "data", "namespace-resources.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	judged := map[string]bool{}
	newer := false // than the server
	for line := range strings.Lines(string(text)) {
		if since, found := strings.CutPrefix(line, "# Since Kubernetes "); found {
			newer = os.Getenv(lab.KubernetesVersion) == "1.34" && since == "1.37.\n"
		}
		if newer {
			break
		}
		if name, _, found := strings.Cut(line, "\t"); found && name != "resource" && !strings.HasPrefix(line, "#") {
			judged[name] = true
		}
	}
	_, lists, err := servers.Kubernetes.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, list := range lists {
		group, _, found := strings.Cut(list.GroupVersion, "/")
		if !found {
			group = ""
		}
		if strings.HasSuffix(group, ".test") {
			continue // another test's
		}
		for _, one := range list.APIResources {
			if !one.Namespaced {
				continue
			}
			resource, subresource, _ := strings.Cut(one.Name, "/")
			name := strings.TrimSuffix(resource+"."+group, ".")
			if subresource != "" {
				name += "/" + subresource
			}
			there[name] = true
			if !judged[name] {
				t.Errorf("nobody has judged %s", name)
			}
		}
	}
	for name := range judged {
		if !there[name] {
			t.Errorf("the server does not have %s", name)
		}
	}
}

func anotherAuthority(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "another-authority.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
