package vault

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// A target is pointed to another Vault under live grants by force only, which closes
// them as lost and says what is left; without live grants it just moves.
func TestATargetThatMoves(t *testing.T) {
	t.Parallel()
	if err := lab.AdmitEngine(t.Context(), servers.Vault.Client); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := lab.EngineToken(t.Context(), servers.Vault.Client, "1h")
	if err != nil {
		t.Fatal(err)
	}
	here, err := lab.EngineToken(t.Context(), servers.Other.Client, "1h")
	if err != nil {
		t.Fatal(err)
	}
	if err := servers.Vault.Client.Sys().MountWithContext(t.Context(), "moved", &api.MountInput{Type: "kv"}); err != nil {
		t.Fatal(err)
	}
	if err := servers.Other.Client.Sys().MountWithContext(t.Context(), "moved", &api.MountInput{Type: "kv"}); err != nil {
		t.Fatal(err)
	}
	before := map[string]any{"type": "vault", "address": servers.Other.Address, "token": here}
	after := map[string]any{"type": "vault", "address": servers.Vault.Address, "token": elsewhere}
	for _, vault := range []*lab.Vault{servers.Vault, servers.Other.Vault} {
		if err := request(t.Context(), vault.Address, vault.Root, http.MethodPut, "moved/db", `{"password":"old"}`); err != nil {
			t.Fatal(err)
		}
	}
	m := newMountWith(t, map[string]any{"token": here})
	m.role("reset", "update", "moved/db", nil)
	useAt := func(vault *lab.Vault, made minted) error {
		return request(t.Context(), vault.Address, made.token, http.MethodPut, "moved/db", `{"password":"new"}`)
	}

	lost := m.mint("reset/INC-7")
	if _, err := m.tryWrite("config/other", after); err == nil || !strings.Contains(err.Error(), "live grants on it: 1") || !strings.Contains(err.Error(), "force=true closes them as lost") {
		t.Fatalf("the target was moved under a live grant: %v", err)
	}
	m.revoke(m.mint("reset/INC-8")) // it is where it was

	forced := maps.Clone(after)
	forced["force"] = true
	moved := m.write("config/other", forced)
	if told := strings.Join(moved.Warnings, "\n"); !strings.Contains(told, "grant "+lost.grant()+" is lost") {
		t.Errorf("the answer does not say what is lost: %s", told)
	}
	if record := m.grantRead(lost.grant()); record["state"] != "lost" || record["at_end"] != nil && len(record["at_end"].(map[string]any)) > 0 {
		t.Errorf("the ledger says %v, and of its end %v", record["state"], record["at_end"])
	}
	m.revoke(lost) // its lease lapses in peace, and nothing is touched
	allowed(t, "the token at the Vault that was left", useAt(servers.Other.Vault, lost))
	denied(t, "the token where the target is now", useAt(servers.Vault, lost))

	made := m.mint("reset/INC-9")
	allowed(t, "a token that was minted where the target is now", useAt(servers.Vault, made))
	m.revoke(made)
	denied(t, "that token once revoked", useAt(servers.Vault, made))

	m.write("config/other", before) // back, without live grants
	again := m.mint("reset/INC-10")
	allowed(t, "a token of the Vault that the target has come back to", useAt(servers.Other.Vault, again))
	m.revoke(again)
	if state := m.grantRead(again.grant())["state"]; state != "revoked" {
		t.Errorf("the ledger says %v", state)
	}
	// Another token of the same Vault takes over what the first one has made.
	kept := m.mint("reset/INC-11")
	m.write("config/other", map[string]any{"type": "vault", "address": servers.Other.Address, "role_id": servers.Other.RoleID, "secret_id": servers.Other.SecretID})
	m.revoke(kept)
	denied(t, "a token that another of the engine's has revoked", useAt(servers.Other.Vault, kept))
}
