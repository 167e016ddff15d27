package vault

import (
	"errors"
	"flag"
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

var write = flag.Bool("write", false, "write the golden files anew")

const (
	testMount  = "11111111-2222-3333-4444-555555555555"
	testLedger = "abcdefghijklmnopqrstuvwx"
)

func opened(t *testing.T) *vault {
	t.Helper()
	target, err := open(provider.Settings{"address": "http://127.0.0.1:8200", "token": "hvs.engine"}, provider.Facts{factCluster: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return target.(*vault)
}

// Where the tests' paths are.
var (
	versioned = place{mount: "secret/", kind: "kv", versioned: true}
	plain     = place{mount: "kv1/", kind: "kv"}
	system    = place{mount: "sys/", kind: "system"}
	tokens    = place{mount: "auth/", kind: "auth"}
)

// The policies that tokens get, byte for byte.
func TestPolicies(t *testing.T) {
	for name, test := range map[string]struct {
		action, path string
		in           place
		bounds       provider.Bounds
	}{
		"reset":   {"update", "secret/data/payments/db", versioned, provider.Bounds{}},
		"once":    {"update", "secret/data/payments/db", versioned, provider.Bounds{Options: provider.Settings{fieldUses: 1}}},
		"bound":   {"update", "secret/data/payments/db", versioned, provider.Bounds{SourceIP: netip.MustParseAddr("203.0.113.7"), Options: provider.Settings{fieldUses: 2}}},
		"bound-6": {"read", "kv1/db", plain, provider.Bounds{SourceIP: netip.MustParseAddr("2001:db8::7")}},
		"mapped":  {"read", "kv1/db", plain, provider.Bounds{SourceIP: netip.MustParseAddr("::ffff:203.0.113.7")}},
		"below":   {"read", "secret/data/payments/*", versioned, provider.Bounds{}},
		"odd":     {"read", "kv1/a!b&c'(d),e-f.g:h;i=j@k_l~m+n/o p", plain, provider.Bounds{}},
		"sudo":    {"list", "auth/token/accessors", tokens, provider.Bounds{AllowEscalation: true}},
		"system":  {"read", "sys/mounts", system, provider.Bounds{AllowEscalation: true}},
	} {
		granted, err := scope.New(test.action, test.path)
		if err != nil {
			t.Fatal(err)
		}
		test.bounds.Facts, test.bounds.ExpiresAt = test.in.facts(), time.Unix(2_000_000_000, 0)
		got, err := opened(t).Compile(granted, test.bounds)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		file := filepath.Join("testdata", name+".json")
		if *write {
			if err := os.WriteFile(file, []byte(got+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// Tokens that differ in what else they are bound to share a policy; others don't.
func TestPlan(t *testing.T) {
	plan := func(action, path string, bounds provider.Bounds, mount, ledger string) string {
		granted, err := scope.New(action, path)
		if err != nil {
			t.Fatal(err)
		}
		bounds.Facts = versioned.facts()
		policy, err := opened(t).Compile(granted, bounds)
		if err != nil {
			t.Fatal(err)
		}
		return opened(t).Plan(policy, mount, ledger)[handlePolicy]
	}
	reset := plan("update", "secret/data/db", provider.Bounds{}, testMount, testLedger)
	if want := "precision-11111111-"; !strings.HasPrefix(reset, want) || len(reset) != len(want)+32 {
		t.Errorf("the policy is called %s", reset)
	}
	bound := provider.Bounds{SourceIP: netip.MustParseAddr("203.0.113.7"), Options: provider.Settings{fieldUses: 1}, ExpiresAt: time.Unix(2_000_000_000, 0)}
	if other := plan("update", "secret/data/db", bound, testMount, testLedger); other != reset {
		t.Errorf("bounds of the token make it another policy: %s and %s", reset, other)
	}
	for what, other := range map[string]string{
		"capability": plan("read", "secret/data/db", provider.Bounds{}, testMount, testLedger),
		"path":       plan("update", "secret/data/db2", provider.Bounds{}, testMount, testLedger),
		"mount":      plan("update", "secret/data/db", provider.Bounds{}, "11111111-9999-3333-4444-555555555555", testLedger),
		"ledger":     plan("update", "secret/data/db", provider.Bounds{}, testMount, "zbcdefghijklmnopqrstuvwx"),
	} {
		if other == reset {
			t.Errorf("another %s has the same policy %s", what, reset)
		}
	}
	if handle := opened(t).Plan("nonsense", testMount, testLedger); len(handle) != 0 {
		t.Errorf("nonsense needs %v", handle)
	}
}

// Without knowing where a path is, or which Vault it is, nothing is granted.
func TestCompileFailsClosed(t *testing.T) {
	granted, err := scope.New("update", "secret/data/db")
	if err != nil {
		t.Fatal(err)
	}
	for name, facts := range map[string]provider.Facts{"none": nil, "another mount": plain.facts(), "half": {factMount: "secret/"}} {
		if policy, err := opened(t).Compile(granted, provider.Bounds{Facts: facts}); err == nil {
			t.Errorf("%s: compiled to %s", name, policy)
		}
	}
	unverified, err := open(provider.Settings{"address": "http://127.0.0.1:8200", "token": "hvs.engine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var refusal *invalid.Error
	if _, err := unverified.Compile(granted, provider.Bounds{Facts: versioned.facts()}); !errors.As(err, &refusal) || refusal.Field != "target" {
		t.Errorf("a Vault that was never asked: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		action, path, asked, on string
		in                      place
		allowed                 bool
	}{
		{"update", "secret/data/db", "update", "secret/data/db", versioned, true},
		{"update", "secret/data/db", "create", "secret/data/db", versioned, false},
		{"update", "secret/data/db", "update", "secret/data/db/x", versioned, false},
		{"update", "secret/data/db", "update", "secret/data/dbx", versioned, false},
		{"read", "secret/data/a/*", "read", "secret/data/a/b/c", versioned, true},
		{"read", "secret/data/a/*", "read", "secret/data/a", versioned, false},
		{"list", "secret/metadata/a", "list", "secret/metadata/a/", versioned, true},
		{"list", "secret/metadata/a/*", "list", "secret/metadata/a/", versioned, true},
		{"list", "secret/metadata/a", "list", "secret/metadata/ab", versioned, false},
	} {
		granted, err := scope.New(test.action, test.path)
		if err != nil {
			t.Fatal(err)
		}
		target := opened(t)
		policy, err := target.Compile(granted, provider.Bounds{Facts: test.in.facts()})
		if err != nil {
			t.Fatal(err)
		}
		verdict, err := target.Check(policy, provider.Question{Action: test.asked, Resource: test.on})
		if err != nil || verdict.Allowed != test.allowed || verdict.Reason == "" {
			t.Errorf("%s on %s by %s on %s: %+v, %v", test.asked, test.on, test.action, test.path, verdict, err)
		}
	}
	for _, question := range []provider.Question{
		{Action: "write", Resource: "secret/data/db"}, {Action: "read", Resource: "secret/+/db"}, {Action: "read", Resource: "secret/data/*"},
		{Action: "read", Resource: "secret/data/db", ResourcePolicy: "{}"}, {Action: "read", Resource: "secret/data/db", Context: map[string][]string{"x": {"y"}}},
	} {
		if verdict, err := opened(t).Check(`{"path":{"secret/data/db":{"capabilities":["read"]}}}`, question); !errors.As(err, new(*invalid.Error)) {
			t.Errorf("%+v: %+v, %v", question, verdict, err)
		}
	}
}

// A token that is anything else than what was asked for is refused.
func TestTheAnswerIsChecked(t *testing.T) {
	asked := wish{policy: "precision-x", bound: binding{Uses: 1}}
	right := func() authAnswer {
		var answer authAnswer
		answer.Auth.Token, answer.Auth.Accessor, answer.Auth.Type, answer.Auth.Orphan = "hvs.x", "a", "service", true
		answer.Auth.Policies, answer.Auth.TokenPolicies, answer.Auth.Uses, answer.Auth.Seconds = []string{"precision-x"}, []string{"precision-x"}, 1, 9
		return answer
	}
	const life = 9500 * time.Millisecond
	if err := asked.check(right(), life); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*authAnswer){
		"no token":            func(a *authAnswer) { a.Auth.Token = "" },
		"no accessor":         func(a *authAnswer) { a.Auth.Accessor = "" },
		"the parent's":        func(a *authAnswer) { a.Auth.Policies, a.Auth.TokenPolicies = []string{"root"}, []string{"root"} },
		"default as well":     func(a *authAnswer) { a.Auth.Policies = []string{"default", "precision-x"} },
		"another":             func(a *authAnswer) { a.Auth.TokenPolicies = []string{"precision-y"} },
		"none":                func(a *authAnswer) { a.Auth.Policies, a.Auth.TokenPolicies = nil, nil },
		"an entity's as well": func(a *authAnswer) { a.Auth.IdentityPolicies = []string{"admin"} },
		"an entity":           func(a *authAnswer) { a.Auth.EntityID = "e" },
		"a child":             func(a *authAnswer) { a.Auth.Orphan = false },
		"renewable":           func(a *authAnswer) { a.Auth.Renewable = true },
		"a batch token":       func(a *authAnswer) { a.Auth.Type = "batch" },
		"any number of uses":  func(a *authAnswer) { a.Auth.Uses = 0 },
		"lives longer":        func(a *authAnswer) { a.Auth.Seconds = 11 },
		"lives shorter":       func(a *authAnswer) { a.Auth.Seconds = 8 },
	} {
		answer := right()
		spoil(&answer)
		if err := asked.check(answer, life); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMarks(t *testing.T) {
	at := time.Unix(2_000_000_000, 0).UTC()
	mount, ledger, expiresAt := readMark(mark(testMount, testLedger, at))
	if mount != testMount || ledger != testLedger || !expiresAt.Equal(at) {
		t.Errorf("read back as %s, %s, %s", mount, ledger, expiresAt)
	}
	for _, text := range []string{"", "x", "a.b", "a.b.c", "a.b.1.2"} {
		if mount, ledger, expiresAt := readMark(text); mount != "" || ledger != "" || !expiresAt.IsZero() {
			t.Errorf("%q is read as %s, %s, %s", text, mount, ledger, expiresAt)
		}
	}
}

// FuzzPath: what is taken as a path stands in the policy for itself, and holds nothing
// that a policy reads as more.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"secret/data/db", "secret/data/*", "secret/data/+", `secret/data/"`, "secret/data/{{x}}", "kv1/a b", "secret/data/x\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		granted, err := scope.New("read", path)
		if err != nil {
			return
		}
		asked, err := parse(granted, provider.Bounds{})
		if err != nil {
			if !errors.As(err, new(*invalid.Error)) {
				t.Fatalf("%q: %v", path, err)
			}
			return
		}
		text, err := compile(asked, plain).text()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"`+path+`"`) {
			t.Fatalf("%q became %s", path, text)
		}
		literal := strings.TrimSuffix(path, "/*")
		if strings.ContainsAny(literal, "*\"\\{}$%?#\n\x00") || strings.Contains("/"+literal, "/+") || strings.Contains("/"+literal+"/", "/../") || strings.Contains(literal, "//") {
			t.Fatalf("%q was taken", path)
		}
		read, err := read(text)
		if err != nil {
			t.Fatal(err)
		}
		if only, capability := read.only(); only != path || capability != "read" {
			t.Fatalf("%q is read back as %s on %q", path, capability, only)
		}
	})
}
