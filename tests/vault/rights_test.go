package vault

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	target "github.com/precision-access/vault-plugin-secrets-precision/internal/provider/vault"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var ruleShape = regexp.MustCompile(`(?s)path "([^"]+)" \{\s*capabilities = \[([^]]*)\]\s*\}`)

// documented is the engine's policy of the documentation: capabilities by path.
func documented(t testing.TB) map[string][]string {
	t.Helper()
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "vault", "engine-policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string][]string{}
	for _, match := range ruleShape.FindAllStringSubmatch(string(text), -1) {
		for capability := range strings.SplitSeq(match[2], ",") {
			rules[match[1]] = append(rules[match[1]], strings.Trim(capability, ` "`))
		}
	}
	if len(rules) != strings.Count(string(text), "\npath ") {
		t.Fatalf("%d rules were read", len(rules))
	}
	return rules
}

// The engine needs each capability of the documented policy: without any of them
// something that it does fails, and where nothing would be minted or ended a config
// write says so before. With all of them everything works, so it needs no more.
func TestTheDocumentedPolicyIsTheLeast(t *testing.T) {
	t.Parallel()
	rules := documented(t)
	if done, verified := everything(t, rules); done != nil || verified != nil {
		t.Fatalf("with the documented policy: %v, %v", done, verified)
	}
	tried, spared := 0, []string{"auth/token/roles list", "auth/token/roles/precision-* read", "auth/token/renew-self update"}
	for path, capabilities := range rules {
		for _, capability := range capabilities {
			less := maps.Clone(rules)
			less[path] = slices.DeleteFunc(slices.Clone(capabilities), func(other string) bool { return other == capability })
			done, verified := everything(t, less)
			if done == nil && path != "sys/capabilities-self" { // which only a config write asks
				t.Errorf("the engine can do without %s on %s", capability, path)
			}
			if verified == nil && !slices.Contains(spared, path+" "+capability) {
				t.Errorf("a config write does not miss %s on %s, without which: %v", capability, path, done)
			}
			tried++
		}
	}
	figures.Log(t, "capabilities of the engine's own policy that were taken away one by one: %d, each was missed", tried)
}

// everything does what the engine ever does at a target, with a token that has these
// rules only, and returns the first error; and that of a config write.
func everything(t *testing.T, rules map[string][]string) (done, verified error) {
	t.Helper()
	ctx, root := t.Context(), servers.Other.Client
	var policy strings.Builder
	for path, capabilities := range rules {
		if len(capabilities) > 0 {
			fmt.Fprintf(&policy, "path %q { capabilities = %s }\n", path, strings.ReplaceAll(fmt.Sprintf("%q", capabilities), " ", ", "))
		}
	}
	if err := root.Sys().PutPolicyWithContext(ctx, "tried", policy.String()); err != nil {
		t.Fatal(err)
	}
	made, err := root.Auth().Token().CreateOrphanWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"tried"}, NoDefaultPolicy: true, Period: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	settings := provider.Settings{"address": servers.Other.Address, "token": made.Auth.ClientToken}
	health, err := root.Sys().HealthWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := target.Type().Open(settings, provider.Facts{"cluster_id": health.ClusterID})
	if err != nil {
		t.Fatal(err)
	}
	_, verified = opened.(provider.Verifier).Verify(ctx)
	limited, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := opened.(provider.Tender).Tend(limited); err != nil {
		return err, verified
	}
	return lifeOf(ctx, opened), verified
}

// lifeOf examines, installs, mints, looks, ends, and removes.
func lifeOf(ctx context.Context, opened provider.Provider) (err error) {
	granted, err := scope.New("update", "secret/data/rights/db")
	if err != nil {
		return err
	}
	const mount, own = "77777777-2222-3333-4444-555555555555", "abcdefghijklmnopqrstuvwx"
	bounds := provider.Bounds{ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Second)}
	findings, err := opened.(provider.Examiner).Examine(ctx, granted, bounds)
	if err != nil {
		return err
	}
	bounds.Facts = findings.Facts
	policy, err := opened.Compile(granted, bounds)
	if err != nil {
		return err
	}
	installer := opened.(provider.Installer)
	installed := installer.Plan(policy, mount, own)
	defer func() {
		if uninstalled := installer.Uninstall(ctx, installed); err == nil {
			err = uninstalled
		}
	}()
	if err := installer.Install(ctx, installed, policy); err != nil {
		return err
	}
	id := ledger.NewID(bounds.ExpiresAt)
	handle, err := opened.Prepare(ctx, provider.Grant{ID: id, Mount: mount, Ledger: own, Role: "role", ExpiresAt: bounds.ExpiresAt})
	if err != nil {
		return err
	}
	minted, err := opened.Mint(ctx, handle, policy, bounds.ExpiresAt)
	if err != nil {
		_ = opened.Revoke(ctx, handle)
		return err
	}
	if _, err := opened.(provider.Witness).Witness(ctx, minted.Handle); err != nil {
		return err
	}
	found := false
	for marked, err := range opened.(provider.OrphanFinder).Marked(ctx, mount, func(string, provider.Handle) bool { return false }) {
		if err != nil {
			return err
		}
		if marked.Grant == id {
			found = marked.Mount == mount && marked.Ledger == own && marked.ExpiresAt.Equal(bounds.ExpiresAt)
		}
	}
	if !found {
		return fmt.Errorf("what was minted is not found by its mark")
	}
	return opened.Revoke(ctx, minted.Handle)
}

// The engine never comes as root: all that is asked of the other Vault, but for the
// tests' own root, has the documented policy or a grant's.
func TestTheEngineIsNeverRoot(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/least/db", "old")
	m.role("reset", "update", "secret/data/least/db", nil)
	made := m.mint("reset/INC-7")
	m.revoke(made)
	engine := map[string]int{}
	for _, entry := range audited(t) {
		ours := strings.Contains(entry.Request.Path, "/precision-")
		if slices.Contains(entry.Auth.Policies, "root") || !ours {
			continue
		}
		if slices.Contains(entry.Auth.Policies, "engine") || slices.Contains(entry.Auth.Policies, "tried") {
			engine[entry.Request.Operation]++
		} else if len(entry.Auth.Policies) != 1 || !strings.HasPrefix(entry.Auth.Policies[0], "precision-") {
			t.Errorf("%s on %s with the policies %q", entry.Request.Operation, entry.Request.Path, entry.Auth.Policies)
		}
	}
	if len(engine) == 0 {
		t.Error("the other Vault's log has nothing of the engine's")
	}
	for _, entry := range audited(t) {
		if strings.HasSuffix(entry.Request.Path, made.grant()) && slices.Contains(entry.Auth.Policies, "root") {
			t.Errorf("root has done %s on %s", entry.Request.Operation, entry.Request.Path)
		}
	}
}

// A root token is warned of, and one that lacks a right is refused.
func TestWhatTheEngineComesWith(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	config := func(fields map[string]any) (*api.Secret, error) {
		data := map[string]any{"type": "vault", "address": servers.Other.Address}
		maps.Copy(data, fields)
		return m.tryWrite("config/tried", data)
	}
	answer, err := config(map[string]any{"token": servers.Other.Root})
	if err != nil || answer == nil || !strings.Contains(strings.Join(answer.Warnings, "\n"), "root token") {
		t.Errorf("a root token: %v %v", answer, err)
	}
	poor, err := servers.Other.Client.Auth().Token().CreateOrphanWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "10m"})
	if err != nil {
		t.Fatal(err)
	}
	for says, fields := range map[string]map[string]any{
		"does not allow it":                   {"token": poor.Auth.ClientToken},
		"does not know it":                    {"token": "hvs.nonsense"},
		"give the engine's own token":         {},
		"beside an AppRole":                   {"token": "x", "role_id": "y"},
		"go together":                         {"role_id": servers.Other.RoleID},
		"does not take role_id and secret_id": {"role_id": servers.Other.RoleID, "secret_id": "nonsense"},
		"invalid ca_cert":                     {"token": "x", "ca_cert": "nonsense"},
		"can't be reached":                    {"token": "x", "address": "http://127.0.0.1:1"},
		"invalid address":                     {"token": "x", "address": "http://user:secret@127.0.0.1:1"},
	} {
		_, err := config(fields)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "Code: 400") {
			t.Errorf("%v: %v, want it to say %q", slices.Sorted(maps.Keys(fields)), err, says)
		}
		if err != nil && (strings.Contains(err.Error(), poor.Auth.ClientToken) || strings.Contains(err.Error(), "secret@")) {
			t.Errorf("the refusal shows a secret: %v", err)
		}
	}
	read := m.read("config/other").Data
	for _, secret := range []string{"token", "secret_id"} {
		if value, there := read[secret]; there && value != "" {
			t.Errorf("%s is read back", secret)
		}
	}
}
