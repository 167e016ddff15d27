package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hashicorp/vault/api"
)

// Vault is a real Vault server: initialised, unsealed, with a file audit log,
// and with the plugin in its catalog.
type Vault struct {
	Address string
	Client  *api.Client // as root
	Root    string      // the root token
	Binary  string
	Audit   string // path of the audit log
	Log     string // path of the server's log
	Plugins string // the plugin folder

	server *process
}

// PID is the server's process; its plugins are others.
func (v *Vault) PID() int { return v.server.command.Process.Pid }

const vaultConfig = `
disable_mlock    = true
api_addr         = "http://127.0.0.1:%[1]d"
plugin_directory = %[2]q
storage "file" {
  path = %[3]q
}
listener "tcp" {
  address     = "127.0.0.1:%[1]d"
  tls_disable = true
}
`

func (l *Lab) startVault(ctx context.Context) error {
	binary, err := tool("vault")
	if err != nil {
		return err
	}
	ports, err := freePorts(2) // the cluster's port is the API's plus one unless it is named
	if err != nil {
		return err
	}
	plugins, err := filepath.EvalSymlinks(l.Folder)
	if err != nil {
		return err
	}
	plugins = filepath.Join(plugins, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf(vaultConfig, ports[0], plugins, filepath.Join(l.Folder, "vault"))
	text += fmt.Sprintf("cluster_addr = \"http://127.0.0.1:%d\"\n", ports[1])
	config := filepath.Join(l.Folder, "vault.hcl")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	environment, err := l.vaultEnvironment()
	if err != nil {
		return err
	}
	// A plugin's own words, the race detector's among them, are logged as debug.
	server, err := l.run("vault", binary, environment, "server", "-config="+config, "-log-level=debug")
	if err != nil {
		return err
	}
	address := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if err := server.ready(ctx, address+"/v1/sys/init"); err != nil {
		return err
	}
	settings := api.DefaultConfig()
	settings.Address = address
	client, err := api.NewClient(settings)
	if err != nil {
		return err
	}
	client.ClearToken() // whatever the environment says
	l.Vault = &Vault{Address: address, Client: client, Binary: binary, Audit: filepath.Join(l.Folder, "audit.log"), Log: server.log.Name(), Plugins: plugins, server: server}
	return l.Vault.setUp(ctx, l.Plugin)
}

// vaultEnvironment gives Vault, and so the plugin, a folder for sockets that goes
// with the lab, and the cloud's key as the machine's AWS credentials.
func (l *Lab) vaultEnvironment() ([]string, error) {
	sockets := filepath.Join(l.Folder, "s")
	if err := os.Mkdir(sockets, 0o700); err != nil {
		return nil, err
	}
	environment := []string{"VAULT_PLUGIN_TMPDIR=" + sockets, "AWS_EC2_METADATA_DISABLED=true"}
	if l.Cloud != nil {
		environment = append(environment, "AWS_ACCESS_KEY_ID="+l.Cloud.Engine.Access, "AWS_SECRET_ACCESS_KEY="+l.Cloud.Engine.Secret, "AWS_SESSION_TOKEN=")
	}
	return environment, nil
}

func (v *Vault) setUp(ctx context.Context, plugin string) error {
	keys, err := v.Client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialising Vault: %w", err)
	}
	if _, err := v.Client.Sys().UnsealWithContext(ctx, keys.Keys[0]); err != nil {
		return fmt.Errorf("unsealing Vault: %w", err)
	}
	v.Root = keys.RootToken
	v.Client.SetToken(v.Root)
	if err := v.Client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": v.Audit}}); err != nil {
		return fmt.Errorf("enabling the audit log: %w", err)
	}
	return v.RegisterPlugin(ctx, plugin, "")
}

// RegisterPlugin puts a plugin's binary into the plugin folder and the catalog,
// under a version or, with an empty one, under none.
func (v *Vault) RegisterPlugin(ctx context.Context, plugin, version string) error {
	command := PluginName + version
	sum, err := copyBinary(plugin, filepath.Join(v.Plugins, command))
	if err != nil {
		return err
	}
	if err := v.Client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: PluginName, Type: api.PluginTypeSecrets, Command: command, SHA256: sum, Version: version,
	}); err != nil {
		return fmt.Errorf("registering the plugin: %w", err)
	}
	return nil
}

func copyBinary(from, to string) (sum string, err error) {
	source, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(target, hash), source)
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, target.Close())
}

// Command is Vault's command-line tool, as root on this server.
func (v *Vault) Command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, v.Binary, arguments...)
	command.Env = append(os.Environ(), "VAULT_ADDR="+v.Address, "VAULT_TOKEN="+v.Root, "VAULT_CLI_NO_COLOR=1")
	return command
}
