package vault

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The engine's own token outlives more than three of its periods although nobody uses
// it, and is the same one all the while.
func TestTheEnginesTokenIsKeptUp(t *testing.T) {
	t.Parallel()
	const period = 4 * time.Second
	token, err := lab.EngineToken(t.Context(), servers.Other.Client, "4s")
	if err != nil {
		t.Fatal(err)
	}
	idle, err := lab.EngineToken(t.Context(), servers.Other.Client, "4s")
	if err != nil {
		t.Fatal(err)
	}
	m := newMountWith(t, map[string]any{"token": token})
	put(t, "secret/data/kept/db", "old")
	m.role("reset", "update", "secret/data/kept/db", nil)
	time.Sleep(3*period + 2*time.Second)
	if err := request(t.Context(), servers.Other.Address, idle, http.MethodGet, "auth/token/lookup-self", ""); !refused(err) {
		t.Errorf("a token that nobody renews lives longer than its period: %v", err)
	}
	made := m.mint("reset/INC-7")
	allowed(t, "a token that was minted after it", made.ask(t.Context(), http.MethodPut, "secret/data/kept/db", reset))
	m.revoke(made)
	about, err := servers.Other.Client.Auth().Token().LookupWithContext(t.Context(), token)
	if err != nil {
		t.Fatalf("the engine's own token is gone: %v", err)
	}
	created, err := about.Data["creation_time"].(interface{ Int64() (int64, error) }).Int64()
	if err != nil {
		t.Fatal(err)
	}
	figures.Log(t, "the engine's own token, of a period of %s, is %s old", period, time.Since(time.Unix(created, 0)).Round(time.Second))
}

// With an AppRole the engine logs in again before the longest life of its token is
// over, and at once where the token is taken from it.
func TestTheEngineLogsInAgain(t *testing.T) {
	t.Parallel()
	client := servers.Other.Client
	if _, err := client.Logical().WriteWithContext(t.Context(), "auth/approle/role/brief", map[string]any{"token_policies": "engine", "token_no_default_policy": true, "token_ttl": "3s", "token_max_ttl": "5s"}); err != nil {
		t.Fatal(err)
	}
	role, err := client.Logical().ReadWithContext(t.Context(), "auth/approle/role/brief/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := client.Logical().WriteWithContext(t.Context(), "auth/approle/role/brief/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	m := newMountWith(t, map[string]any{"role_id": role.Data["role_id"], "secret_id": secret.Data["secret_id"]})
	put(t, "secret/data/again/db", "old")
	m.role("reset", "update", "secret/data/again/db", nil)
	first := m.mint("reset/INC-7")
	for range 3 {
		time.Sleep(4 * time.Second)
		made := m.mint("reset/INC-7")
		allowed(t, "a token that was minted meanwhile", made.ask(t.Context(), http.MethodPut, "secret/data/again/db", reset))
		m.revoke(made)
	}
	allowed(t, "the first one, whose maker's token is gone", first.ask(t.Context(), http.MethodPut, "secret/data/again/db", reset))

	if err := client.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: "auth/approle/login", Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	allowed(t, "the first one, once all logins have been revoked", first.ask(t.Context(), http.MethodPut, "secret/data/again/db", reset))
	m.revoke(first)
	denied(t, "a token that was revoked with a new login", first.ask(t.Context(), http.MethodPut, "secret/data/again/db", reset))
}

// An AppRole whose secret ID is taken away is left alone, whatever is asked of the engine:
// others who log in with the role are not locked out. The status says what is wrong, and
// another secret ID mends it at once.
func TestALoginThatIsTakenAway(t *testing.T) {
	t.Parallel()
	client := servers.Other.Client
	if _, err := client.Logical().WriteWithContext(t.Context(), "auth/approle/role/shared", map[string]any{"token_policies": "engine", "token_no_default_policy": true, "token_ttl": "3s", "token_max_ttl": "3s"}); err != nil {
		t.Fatal(err)
	}
	role, err := client.Logical().ReadWithContext(t.Context(), "auth/approle/role/shared/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secretID := func() string {
		secret, err := client.Logical().WriteWithContext(t.Context(), "auth/approle/role/shared/secret-id", nil)
		if err != nil {
			t.Fatal(err)
		}
		return secret.Data["secret_id"].(string)
	}
	first := secretID()
	m := newMountWith(t, map[string]any{"role_id": role.Data["role_id"], "secret_id": first})
	put(t, "secret/data/taken/db", "old")
	m.role("reset", "update", "secret/data/taken/db", nil)
	m.revoke(m.mint("reset/INC-7"))
	if _, err := client.Logical().WriteWithContext(t.Context(), "auth/approle/role/shared/secret-id/destroy", map[string]any{"secret_id": first}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second) // by when the engine's token has ended
	for range 10 {
		if _, err := m.tryMint("reset/INC-7"); err == nil || !strings.Contains(err.Error(), "logging in was refused") || strings.Contains(err.Error(), first) {
			t.Fatalf("a mint without a login says %v", err)
		}
	}
	eventually(t, "the status says what is wrong", 10*time.Second, func() bool {
		access, _ := m.read("tidy-status").Data["access"].(map[string]any)
		said, _ := access["other"].(string)
		return strings.Contains(said, "logging in was refused")
	})
	second := secretID()
	if err := request(t.Context(), servers.Other.Address, "", http.MethodPost, "auth/approle/login", `{"role_id":"`+role.Data["role_id"].(string)+`","secret_id":"`+second+`"}`); err != nil {
		t.Errorf("another one who uses the AppRole is locked out: %v", err)
	}
	m.write("config/other", map[string]any{"type": "vault", "address": servers.Other.Address, "role_id": role.Data["role_id"], "secret_id": second})
	made := m.mint("reset/INC-8")
	allowed(t, "a token after it was mended", made.ask(t.Context(), http.MethodPut, "secret/data/taken/db", reset))
	m.revoke(made)
}
