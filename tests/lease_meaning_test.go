package tests

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// A credential lives no longer than the token that read it, whatever its lease shows:
// one that a batch token read ends with that token.
func TestACredentialEndsWithItsToken(t *testing.T) {
	m := newMount(t)
	caller := m.caller()
	policies, err := caller.Auth().Token().LookupSelfWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names, err := policies.TokenPolicies()
	if err != nil {
		t.Fatal(err)
	}
	batch, err := m.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: names, TTL: "5s", Type: "batch"})
	if err != nil {
		t.Fatal(err)
	}
	caller.SetToken(batch.Auth.ClientToken)
	minted, err := m.tryMint(caller, onStore+"/CI-1")
	if err != nil {
		t.Fatal(err)
	}
	allowed(t, "the session while its token lives", minted.inStore(t.Context()))
	if minted.LeaseDuration > 5 {
		t.Errorf("the lease is said to last %d s, longer than the token that read it", minted.LeaseDuration)
	}
	if !minted.expiresAt.After(time.Now().Add(5 * time.Minute)) {
		t.Fatal("the session would end by itself as soon")
	}
	goneSoon(t, minted.inStore)
}

// A target that does not answer keeps what it has until that ends by itself; the
// revoke fails, is tried again, and is true once it succeeds.
func TestAnUnreachableTargetKeepsWhatItHas(t *testing.T) {
	m := newMount(t)
	faults := providertest.NewFaults(t, servers.Store.Endpoint)
	m.write("config/far", with(m.storeConfig(), map[string]any{"endpoint": faults.URL}))
	m.write("roles/far", map[string]any{"target": "far", "action": putObject, "resource": uploads})
	brief, long := m.mint("far/JIRA-1", "ttl=8s"), m.mint("far/JIRA-2", "ttl=10m")
	faults.LoseFrom(0, false)
	for _, minted := range []credential{brief, long} {
		if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(minted.LeaseID)); err == nil {
			t.Error("a revoke that got nowhere is said to be done")
		}
		allowed(t, "a session whose target does not hear of its end", minted.inStore(t.Context()))
	}
	time.Sleep(time.Until(brief.expiresAt))
	denied(t, "a session whose time has passed", brief.inStore(t.Context()))
	faults.Heal()
	eventually(t, "the revoke succeeds", 90*time.Second, func() bool {
		return m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(long.LeaseID)) == nil &&
			m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(brief.LeaseID)) == nil
	})
	denied(t, "a session that was revoked at last", long.inStore(t.Context()))
}

// A sealed Vault mints nothing and ends nothing: the targets end by themselves what
// they have, and what Vault owes is done once it is unsealed.
func TestASealedVaultEndsNothing(t *testing.T) {
	sealed, err := lab.Start(t.Context(), lab.Options{Plugin: servers.Plugin, NoStore: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sealed.Close)
	m := &mount{t: t, path: "precision", Client: sealed.Vault.Client, grants: map[string]bool{}}
	if err := m.Sys().MountWithContext(t.Context(), m.path, &api.MountInput{Type: lab.PluginName}); err != nil {
		t.Fatal(err)
	}
	m.write("config/store", m.storeConfig())
	m.write("roles/"+onStore, map[string]any{"target": "store", "action": putObject, "resource": uploads})
	brief, long := m.mint(onStore+"/JIRA-1", "ttl=6s"), m.mint(onStore+"/JIRA-2", "ttl=10m")
	if err := m.Sys().SealWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.tryMint(m.Client, onStore+"/JIRA-3"); err == nil {
		t.Error("a sealed Vault mints")
	}
	allowed(t, "a session of a sealed Vault", brief.inStore(t.Context()))
	time.Sleep(time.Until(brief.expiresAt))
	denied(t, "a session whose time has passed in a sealed Vault", brief.inStore(t.Context()))
	allowed(t, "a session whose time has not passed", long.inStore(t.Context()))
	if err := sealed.Vault.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revoke succeeds", 30*time.Second, func() bool {
		return m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(long.LeaseID)) == nil
	})
	denied(t, "a session that was revoked after the unsealing", long.inStore(t.Context()))
}
