package kubernetes

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	stdbase64 "encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// claimsOf reads a token's claims.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	text, err := stdbase64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// instant is a claim that is a time.
func instant(t *testing.T, claims map[string]any, name string) time.Time {
	t.Helper()
	number, _ := claims[name].(json.Number)
	seconds, err := number.Int64()
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(seconds, 0)
}

// shifted is the token as it will look after some time, signed by the cluster's own
// key: nobody waits ten minutes for it.
func shifted(t *testing.T, token string, by time.Duration) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servers.Folder, "kubernetes", "service-accounts.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("the cluster's key is no PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	claims := claimsOf(t, token)
	for _, name := range []string{"exp", "iat", "nbf"} {
		claims[name] = instant(t, claims, name).Add(-by).Unix()
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(token, ".")
	signed := header + "." + stdbase64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + stdbase64.RawURLEncoding.EncodeToString(signature)
}

// Where Vault is lost, the API server ends a credential at expires_at by itself: it
// takes a token for a minute longer than the token says, and the token says so much
// less. (It keeps what it has taken for some seconds, which the test does not use.)
func TestTokenEndsWithItsGrant(t *testing.T) {
	const namespace = "lapsing"
	ctx := t.Context()
	m := newMount(t, namespace)
	m.role("read", "read", namespace+"/configmaps", fields{"ttl": "20m"})
	minted := m.mint("read/CHG-1")
	defer m.revoke(minted)
	expires, err := time.Parse(time.RFC3339, minted.text("expires_at"))
	if err != nil {
		t.Fatal(err)
	}
	end := time.Until(expires)
	for _, test := range []struct {
		after time.Duration // from now on
		dead  bool
	}{{0, false}, {end - 10*time.Second, false}, {end, true}, {end + time.Minute, true}} {
		err := listConfigMaps(ctx, namespace, shifted(t, minted.token, test.after))
		if refused(err) != test.dead || (err != nil && !refused(err)) {
			t.Errorf("%s before its end: %v, want refused %v", (end - test.after).Round(time.Second), err, test.dead)
		}
	}
	says := instant(t, claimsOf(t, minted.token), "exp")
	figures.Log(t, "a token says that it ends %s before its grant does, and is refused from the grant's end on", expires.Sub(says))
}
