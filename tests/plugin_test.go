package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// pluginProcesses lists the plugin's processes that run from a Vault's plugin
// folder.
func pluginProcesses(t *testing.T, vault *lab.Vault) []int {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "ps", "-A", "-o", "pid=,args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], vault.Plugins+"/") {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// killPlugin kills what there is of the plugin under the shared Vault.
func killPlugin(t *testing.T) {
	t.Helper()
	pids := pluginProcesses(t, servers.Vault)
	if len(pids) == 0 {
		t.Fatal("no plugin process to kill")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

// Vault starts a plugin that has died with the next request; the credentials
// from before die as they should.
func TestPluginKilledBetweenTwoReads(t *testing.T) {
	m := newMount(t)
	session, user := m.mint(onStore+"/JIRA-1"), m.mint(onCloud+"/JIRA-1")
	killPlugin(t)
	after := m.mint(onStore + "/JIRA-1")
	allowed(t, "a session minted after the kill", after.inStore(t.Context()))
	allowed(t, "a session minted before the kill", session.inStore(t.Context()))
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), &api.RevokeOptions{LeaseID: m.path + "/creds", Prefix: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	denied(t, "a session minted before the kill, after the revoke", session.inStore(t.Context()))
	denied(t, "a session minted after the kill, after the revoke", after.inStore(t.Context()))
	denied(t, "a user minted before the kill, after the revoke", user.inCloud(t.Context()))
}

// A new version of the plugin ends what the old one minted.
func TestPluginUpgrade(t *testing.T) {
	ctx, vault := t.Context(), servers.Vault
	newer := filepath.Join(t.TempDir(), lab.PluginName)
	if err := lab.BuildPlugin(ctx, newer, "v0.2.0"); err != nil {
		t.Fatal(err)
	}
	for version, binary := range map[string]string{"v0.1.0": servers.Plugin, "v0.2.0": newer} {
		if err := vault.RegisterPlugin(ctx, binary, version); err != nil {
			t.Fatal(err)
		}
	}
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName, Config: api.MountConfigInput{PluginVersion: "v0.1.0"}})
	m.configure()
	session, user := m.mint(onStore+"/JIRA-1"), m.mint(onCloud+"/JIRA-1")

	if err := m.Sys().TuneMountAllowNilWithContext(ctx, m.path, api.TuneMountConfigInput{PluginVersion: pointer("v0.2.0")}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Mounts: []string{m.path}}); err != nil {
		t.Fatal(err)
	}
	mounts, err := m.Sys().ListMountsWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if running := mounts[m.path+"/"].RunningVersion; running != "v0.2.0" {
		t.Errorf("the mount runs %q, want v0.2.0", running)
	}
	allowed(t, "a session of the old version", session.inStore(ctx))
	allowed(t, "a session of the new version", m.mint(onStore+"/JIRA-1").inStore(ctx))
	for _, lease := range []string{session.LeaseID, user.LeaseID} {
		if err := m.Sys().RevokeWithOptionsWithContext(ctx, revokeNow(lease)); err != nil {
			t.Fatal(err)
		}
	}
	denied(t, "a session of the old version, revoked by the new", session.inStore(ctx))
	denied(t, "a user of the old version, revoked by the new", user.inCloud(ctx))
}

// Disabling the mount ends everything that it has minted.
func TestMountDisabled(t *testing.T) {
	m := nameMount(t)
	if err := m.Sys().MountWithContext(t.Context(), m.path, &api.MountInput{Type: lab.PluginName}); err != nil {
		t.Fatal(err)
	}
	m.configure()
	var sessions, users []credential
	for task := range 5 {
		sessions = append(sessions, m.mint(fmt.Sprintf("%s/JIRA-%d", onStore, task)))
		users = append(users, m.mint(fmt.Sprintf("%s/JIRA-%d", onCloud, task)))
	}
	if err := m.Sys().UnmountWithContext(t.Context(), m.path); err != nil {
		t.Fatal(err)
	}
	for i := range sessions {
		denied(t, "a session of a disabled mount", sessions[i].inStore(t.Context()))
		denied(t, "a user of a disabled mount", users[i].inCloud(t.Context()))
	}
}

// Without Vault the store's own clock ends a session, and the plugin's process
// ends, too.
func TestVaultKilled(t *testing.T) {
	lost, err := lab.Start(t.Context(), lab.Options{Plugin: servers.Plugin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lost.Close)
	client := lost.Vault.Client.Logical()
	if err := lost.Vault.Client.Sys().MountWithContext(t.Context(), "precision", &api.MountInput{Type: lab.PluginName}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteWithContext(t.Context(), "precision/config/store", map[string]any{
		"type": "minio", "endpoint": lost.Store.Endpoint, "access_key": lost.Store.Engine.Access, "secret_key": lost.Store.Engine.Secret,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteWithContext(t.Context(), "precision/roles/upload", map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "6s"}); err != nil {
		t.Fatal(err)
	}
	secret, err := client.ReadWithContext(t.Context(), "precision/creds/upload/JIRA-1")
	if err != nil {
		t.Fatal(err)
	}
	minted, err := readCredential(secret)
	if err != nil {
		t.Fatal(err)
	}
	if len(pluginProcesses(t, lost.Vault)) == 0 {
		t.Fatal("no plugin process runs")
	}
	if err := syscall.Kill(lost.Vault.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	upload := func() error { return lab.Put(t.Context(), lost.Store.S3(minted.key), "releases", "app/1.tgz") }
	allowed(t, "the session without Vault", upload())
	time.Sleep(time.Until(minted.expiresAt))
	denied(t, "the session at expires_at without Vault", upload())
	eventually(t, "the plugin's process ends", 10*time.Second, func() bool { return len(pluginProcesses(t, lost.Vault)) == 0 })
}

// No secret is in what is written down: the audit log has hashes, Vault's and
// the plugin's log have grant ids.
func TestNoSecretIsWrittenDown(t *testing.T) {
	m := newMount(t)
	session, user := m.mint(onStore+"/JIRA-1"), m.mint(onCloud+"/JIRA-1")
	eventually(t, "the grant is logged", 10*time.Second, func() bool {
		log, err := os.ReadFile(servers.Vault.Log)
		return err == nil && strings.Contains(string(log), user.grant())
	})
	for _, path := range []string{servers.Vault.Log, servers.Vault.Audit} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, secret := range map[string]string{
			"the session's secret": session.key.Secret, "the session's token": session.key.Token, "the user's secret": user.key.Secret,
			"the store's secret": servers.Store.Engine.Secret, "the cloud's secret": servers.Cloud.Engine.Secret,
		} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s is in %s", name, filepath.Base(path))
			}
		}
	}
}
