package chaos

import (
	"fmt"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/docs"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// baseDenies says whether the base role denies a session of that access key.
func (w *world) baseDenies(key string) bool {
	w.t.Helper()
	session, known := w.Cloud.Session(key)
	if !known {
		w.t.Fatalf("the cloud knows no session %s", key)
	}
	policies, err := w.Cloud.Policies(w.t.Context(), lab.RoleARN(lab.BaseRole))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, document := range policies {
		if !strings.HasPrefix(name, "precision-revoked-") {
			continue
		}
		_, name, _ := strings.Cut(session.UserID, ":")
		for length := 8; length <= len(name); length++ {
			if strings.Contains(document, `"*:`+name[:length]+`*"`) {
				return true
			}
		}
	}
	return false
}

// The procedures of docs/operations.md are what a person does: after a snapshot from before a revocation was restored,
// beside a copy of Vault, and when a clock was wrong. Nothing that was revoked works again.
func TestRestoresAndCopiesAsTheDocsSay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Moto: true})
	w.mount(w.Vault, mounted, "30m")
	w.write(w.Vault, mounted+"/roles/"+onCloud, map[string]any{
		"target": "prod", "action": putObject, "resource": uploads, "ttl": "30m", "max_ttl": "1h",
		"credential_type": "assumed_role", "role_arn": lab.RoleARN(lab.BaseRole),
	})
	ctx := t.Context()
	session := func(vault *lab.Vault, task string) (key, lease string) {
		t.Helper()
		secret, err := vault.Client.Logical().ReadWithContext(ctx, mounted+"/creds/"+onCloud+"/"+task)
		if err != nil {
			t.Fatal(err)
		}
		return secret.Data["access_key"].(string), secret.LeaseID
	}
	before, lease := session(w.Vault, "T-1")
	other, _ := session(w.Vault, "T-2")
	snapshot, err := w.SnapshotVault(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := revoke(ctx, w.Vault.Client, lease); err != nil {
		t.Fatal(err)
	}
	after, lease := session(w.Vault, "T-3") // which the snapshot does not know
	if err := revoke(ctx, w.Vault.Client, lease); err != nil {
		t.Fatal(err)
	}
	revoked := []string{before, after}
	verify := func(when string) {
		t.Helper()
		for _, key := range revoked {
			if !w.baseDenies(key) {
				t.Errorf("%s, a revoked session works again", when)
			}
		}
	}
	suspects := func(vault *lab.Vault) error {
		status, err := vault.Client.Logical().ReadWithContext(ctx, mounted+"/tidy-status")
		if err != nil {
			return err
		}
		if restored, _ := status.Data["restored"].(map[string]any); restored["suspected"] != true {
			return fmt.Errorf("the status says %v", status.Data["restored"])
		}
		return nil
	}

	stage := docs.Stage{Environment: docs.Vault(w.Vault), People: map[string][]string{"": {"VAULT_TOKEN=" + w.Vault.Root}}}
	stage.Scenes = map[string]func(*testing.T){"a snapshot from before a revocation is restored": func(t *testing.T) {
		verify("before the restore")
		if err := w.RestoreVault(ctx, snapshot); err != nil {
			t.Fatal(err)
		}
		w.eventually("the engine notices that its storage is older", func() error { return suspects(w.Vault) })
		verify("after the restore")
		if w.baseDenies(other) {
			t.Error("a session is denied that nobody has revoked")
		}
	}}
	docs.Play(t, "operations.md#Restoring a snapshot", stage)
	revoked = append(revoked, other) // by the bulk revocation
	verify("after the procedure")

	var copied *lab.Vault
	stage.Scenes = map[string]func(*testing.T){"a copy of Vault is started within reach of the targets, and the original revokes": func(t *testing.T) {
		if copied, err = w.CopyVault(ctx); err != nil {
			t.Fatal(err)
		}
		stage.People["copy"] = []string{"VAULT_TOKEN=" + copied.Root, "VAULT_ADDR=" + copied.Address}
		key, lease := session(w.Vault, "T-4")
		if err := revoke(ctx, w.Vault.Client, lease); err != nil {
			t.Fatal(err)
		}
		revoked = append(revoked, key)
		w.write(copied, mounted+"/tidy", nil)
		w.eventually("the copy notices that its storage is older", func() error { return suspects(copied) })
		verify("beside a copy")
	}}
	stage.People["copy"] = nil
	docs.Play(t, "operations.md#A second copy of Vault", stage)
	verify("after the copy was cut off")
	stage.Scenes = nil
	docs.Play(t, "operations.md#Clocks", stage)
	figures.Log(t, "sessions revoked before, beside and after a restore and a copy: %d; working again: 0", len(revoked))
}
