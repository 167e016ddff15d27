package chaos

import (
	"fmt"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Two mounts in one process of the plugin end their own grants and no others.
func TestTwoMounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Moto: true})
	var minted []credential
	for _, path := range []string{"one", "two"} {
		w.mount(w.Vault, path, "30m")
		for _, role := range []string{onStore, onCloud} {
			minted = append(minted, w.mint(w.Vault.Client, path+"/creds/"+role+"/T-1"), w.mint(w.Vault.Client, path+"/creds/"+role+"/T-2"))
		}
	}
	if processes := w.plugins(); len(processes) != 1 {
		t.Errorf("%d processes serve two mounts, want one", len(processes))
	}
	one, two := minted[:4], minted[4:]
	if err := revoke(t.Context(), w.Vault.Client, one[0].LeaseID); err != nil {
		t.Fatal(err)
	}
	w.denied("a revoked credential", one[0])
	if err := w.Vault.Client.Sys().UnmountWithContext(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	for _, credential := range one {
		w.denied("a credential of a mount that is gone", credential)
	}
	for _, credential := range two {
		w.allowed("a credential of the other mount", credential)
	}
	if err := w.Vault.Client.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: "two/creds", Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is left", func() error { return w.left(w.Vault, "two") })
	t.Logf("grants minted: %d; left behind: 0", len(minted))
}

// A Vault is copied, and both run on: neither ends what the other holds, but for
// what both know and one of them is asked to end. What has expired in both is
// ended by both, and neither minds that the other was there before.
func TestCopiedVault(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Moto: true})
	w.mount(w.Vault, mounted, "30m")
	for role, target := range map[string]string{"short-" + onStore: "store", "short-" + onCloud: "prod"} {
		w.write(w.Vault, mounted+"/roles/"+role, map[string]any{"target": target, "action": putObject, "resource": uploads, "ttl": "20s"})
	}
	both := func(vault *lab.Vault, roles string) []credential {
		return []credential{
			w.mint(vault.Client, mounted+"/creds/"+roles+onStore+"/T-1"),
			w.mint(vault.Client, mounted+"/creds/"+roles+onCloud+"/T-1"),
		}
	}
	before, short := both(w.Vault, ""), both(w.Vault, "short-")
	copied, err := w.CopyVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	original, copy := both(w.Vault, ""), both(copied, "")
	for name, vault := range map[string]*lab.Vault{"the original": w.Vault, "the copy": copied} {
		w.eventually("what has expired is ended in "+name, func() error {
			grants, err := w.ledger(vault, mounted)
			if err != nil {
				return err
			}
			state := map[string]ledger.State{}
			for _, grant := range grants {
				state[grant.ID] = grant.State
			}
			for _, expired := range short {
				if state[expired.grant] != ledger.Ended {
					return fmt.Errorf("grant %s is %s", expired.grant, state[expired.grant])
				}
			}
			return nil
		})
	}
	for _, credential := range short {
		w.denied("a credential that has expired", credential)
	}
	for name, credentials := range map[string][]credential{"from before": before, "of the original": original, "of the copy": copy} {
		for _, credential := range credentials {
			w.allowed("a credential "+name, credential)
		}
	}
	for _, vault := range []*lab.Vault{w.Vault, copied} {
		if err := vault.Client.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: mounted + "/creds", Prefix: true, Sync: true}); err != nil {
			t.Fatal(err)
		}
		for _, credential := range before {
			w.denied("a credential that both know and one has revoked", credential)
		}
		if vault == w.Vault {
			for _, credential := range copy {
				w.allowed("a credential of the copy after the original has revoked all of its own", credential)
			}
		}
	}
	for _, vault := range []*lab.Vault{w.Vault, copied} {
		w.eventually("nothing is left", func() error { return w.left(vault, mounted) })
	}
	t.Logf("grants minted: %d; ended by the wrong one: 0; left behind: 0", len(before)+len(short)+len(original)+len(copy))
}
