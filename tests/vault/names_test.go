package vault

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// What can't stand in a policy for itself alone is refused when the role is written,
// with what would be right.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, path := range []string{
		"*", "/*", "+/*", "secret", "secret/", "/secret/data/x", "secret/data/x/", "secret/data/x*", "secret/data/*x", "secret/data/*/x", "secret/*/x", "secret/data/a/**", "secret/data/x/*/", "*/data/x", "sec*",
		"secret/data/+", "secret/data/+/db", "secret/+/x", "+/data/x", "secret/data/+x", "secret/data/a/+*", "secret/data/+/*",
		"secret/data/{{identity.entity.id}}x", "secret/data/{{identity.entity.policies}}", "secret/data/{{", "secret/data/}}", "secret/data/{x}", "secret/data/{", "secret/data/${x}", "secret/data/$x", "{{identity.entity.name}}/data/x", "secret/{{task}}/x", "{{task}}/x",
		`secret/data/"x`, `secret/data/x" { capabilities = ["sudo"] } path "y`, `secret/data/x\`, `secret/data/\u002a`, "secret/data/x`", "secret/data/x\n", "secret/data/x\npath \"*\" {}", "secret/data/x\r", "secret/data/x\x00", "secret/data/\tx", "secret/data/x ", " secret/data/x", "secret/data/x /y",
		"secret/data//x", "secret//data/x", "secret/data/./x", "secret/data/../x", "secret/data/x/..", "secret/data/%2a", "secret/data/x%2F", "secret/data/x?list=true", "secret/data/x#y", "secret/data/é", "secret/data/х", "secret/data/\u200bx", "secret/data/x|y", "secret/data/<x>", "secret/data/x^",
		"nowhere/data/x", "deep/data/x", "cubbyhole/x", "secret/data/" + strings.Repeat("x", 5000),
	} {
		_, err := m.tryWrite("roles/hostile", roleOf("update", path, nil))
		if err == nil || !strings.Contains(err.Error(), "Code: 400") || !strings.Contains(err.Error(), "invalid ") {
			t.Errorf("%.60q: %v", path, err)
		}
	}
	for _, action := range []string{"", "*", "sudo", "deny", "root", "subscribe", "recover", "write", "UPDATE", "read,update", "read update", "[\"read\"]", "s3:GetObject", "help"} {
		if _, err := m.tryWrite("roles/hostile", roleOf(action, "secret/data/x", nil)); err == nil || !strings.Contains(err.Error(), "Code: 400") {
			t.Errorf("action %q: %v", action, err)
		}
	}
	for field, value := range map[string]any{
		"uses": -1, "conditions": map[string]any{"Bool": map[string]any{"aws:SecureTransport": true}}, "companion_resources": "secret/data/y", "renewable": true,
	} {
		if _, err := m.tryWrite("roles/hostile", roleOf("update", "secret/data/x", map[string]any{field: value})); err == nil || !strings.Contains(err.Error(), "invalid "+field) {
			t.Errorf("%s %v: %v", field, value, err)
		}
	}
}

// What a reader gives stays in its segment, and means itself.
func TestHostileParameters(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.role("one", "read", "secret/data/given/{{key}}/db", map[string]any{"parameters": map[string]any{"key": ".+"}})
	m.role("last", "read", "secret/data/given/{{key}}", map[string]any{"parameters": map[string]any{"key": ".+"}})
	for _, key := range []string{"+", "+x", "*", "a/*", "a*", "..", ".", "a/../b", "/a", "a/", "a//b", "{{x}}", `a"b`, "a\nb", "a b", "%2e%2e", "$a", "a\\b", "é", "a?b", "", "a/+/b"} {
		for _, role := range []string{"one", "last"} {
			if _, err := m.tryMint(role+"/INC-7", "key="+key); err == nil || !strings.Contains(err.Error(), "Code: 400") {
				t.Errorf("key %q of %s: %v", key, role, err)
			}
		}
	}
	if _, err := m.tryMint("one/INC-7", "key=a/b"); err == nil || !strings.Contains(err.Error(), "several segments") {
		t.Errorf("two segments in the place of one: %v", err)
	}
	put(t, "secret/data/given/a/b", "old")
	allowed(t, "a path of two segments at the end", m.mint("last/INC-7", "key=a/b").ask(t.Context(), http.MethodGet, "secret/data/given/a/b", ""))
	for _, resource := range []string{"secret/data/x-{{key}}", "secret/data/{{key}}.x/db", "secret/{{key}}/db", "{{key}}/data/db", "deep/{{key}}/data/x"} {
		if _, err := m.tryWrite("roles/x", roleOf("read", resource, map[string]any{"parameters": map[string]any{"key": "[a-z]+"}})); err == nil || !strings.Contains(err.Error(), "Code: 400") {
			t.Errorf("%s: %v", resource, err)
		}
	}
}

// A name with every character that is taken stands for itself, and for nothing else.
func TestOddNamesAreLiteral(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	const odd = "odd/a!b&c'(d),e-f.g:h;i=j@k_l~m+n/o p/[q]"
	paths := []string{"secret/data/" + odd}
	for _, char := range "!&'(),-.:;=@_~+[] " {
		paths = append(paths, "secret/data/odd/x"+string(char)+"y")
	}
	for i, path := range paths {
		escaped := strings.ReplaceAll(url.PathEscape(path), "%2F", "/")
		put(t, escaped, "old")
		role := "odd-" + string(rune('a'+i))
		m.role(role, "read", path, nil)
		token := m.mint(role + "/INC-7")
		allowed(t, path, token.ask(t.Context(), http.MethodGet, escaped, ""))
		for _, other := range paths {
			if other != path {
				denied(t, other+" with a token for "+path, token.ask(t.Context(), http.MethodGet, strings.ReplaceAll(url.PathEscape(other), "%2F", "/"), ""))
			}
		}
	}
	figures.Log(t, "odd names: %d, each of which opens itself and none of the others", len(paths))
}

// A path of KV version 2 that forgets what is asked of the secret is refused with the
// right one; so are requests that its paths never take.
func TestVersionedPaths(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, test := range []struct{ action, path, says string }{
		{"update", "secret/payments/db", "write secret/data/payments/db"},
		{"read", "secret/payments/*", "write secret/data/payments/*"},
		{"read", "secret/*", "write secret/data/*"},
		{"read", "deep/er/db", "write deep/er/data/db"},
		{"list", "secret/payments", "write secret/metadata/payments"},
		{"list", "secret/data/payments", "write secret/metadata/payments"},
		{"list", "secret/data", "write secret/metadata/"},
		{"read", "secret/data", "KV version 2"},
		{"read", "secret/config/x", "KV version 2"},
		{"read", "secret/undelete/x", "name update"},
		{"create", "secret/destroy/x", "name update"},
		{"patch", "secret/config", "name read or update"},
		{"update", "secret/subkeys/x", "name read"},
		{"patch", "kv1/x", "KV version 1"},
	} {
		_, err := m.tryWrite("roles/forgetful", roleOf(test.action, test.path, nil))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s on %s: %v, want it to say %q", test.action, test.path, err, test.says)
		}
	}
	for _, test := range [][2]string{{"update", "secret/data/x"}, {"read", "deep/er/data/x"}, {"list", "secret/metadata"}, {"list", "secret/metadata/x"}, {"read", "secret/config"}, {"update", "kv1/x"}, {"list", "kv1/x"}, {"read", "kv1/*"}, {"update", "secret/undelete/x"}} {
		m.role("right", test[0], test[1], nil)
	}
}
