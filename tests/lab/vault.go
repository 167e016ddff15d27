package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

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
	start  func() (*process, error)
	unseal string // the key
	data   string // the folder of file storage; empty for another storage
}

// PID is the server's process; its plugins are others.
func (v *Vault) PID() int { return v.server.command.Process.Pid }

// The raw endpoint lets a test read, as root, what a mount has stored.
const vaultConfig = `
disable_mlock        = true
raw_storage_endpoint = true
api_addr             = "http://127.0.0.1:%[1]d"
cluster_addr         = "https://127.0.0.1:%[2]d"
plugin_directory     = %[3]q
%[4]s
listener "tcp" {
  address         = "127.0.0.1:%[1]d"
  cluster_address = "127.0.0.1:%[2]d"
  tls_disable     = true
}
`

const fileStorage = `storage "file" {
  path = %q
}
`

func (l *Lab) startVault(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	data := filepath.Join(l.Folder, "vault")
	if l.Vault, err = l.newVault("vault", ports, fmt.Sprintf(fileStorage, data)); err != nil {
		return err
	}
	l.Vault.data = data
	if err := l.Vault.up(ctx); err != nil {
		return err
	}
	return l.Vault.setUp(ctx, l.Plugin)
}

// newVault prepares a server that is to listen on two ports, the API's and the
// cluster's, and to keep what it stores as storage says.
func (l *Lab) newVault(name string, ports []int, storage string) (*Vault, error) {
	binary, err := tool("vault")
	if err != nil {
		return nil, err
	}
	folder, err := filepath.EvalSymlinks(l.Folder)
	if err != nil {
		return nil, err
	}
	plugins := filepath.Join(folder, "plugins")
	if err := makeFolder(plugins); err != nil {
		return nil, err
	}
	config := filepath.Join(l.Folder, name+".hcl")
	if err := os.WriteFile(config, fmt.Appendf(nil, vaultConfig, ports[0], ports[1], plugins, storage), 0o600); err != nil {
		return nil, err
	}
	environment, err := l.vaultEnvironment()
	if err != nil {
		return nil, err
	}
	settings := api.DefaultConfig()
	settings.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	client, err := api.NewClient(settings)
	if err != nil {
		return nil, err
	}
	client.ClearToken() // whatever the environment says
	return &Vault{
		Address: settings.Address, Client: client, Binary: binary, Plugins: plugins,
		Audit: filepath.Join(l.Folder, "audit.log"), Log: filepath.Join(l.Folder, name+".log"),
		start: func() (*process, error) {
			// A plugin's own words, the race detector's among them, are logged as debug.
			return l.run(name, binary, environment, "server", "-config="+config, "-log-level=debug")
		},
	}, nil
}

// up starts the server and waits until it answers.
func (v *Vault) up(ctx context.Context) error {
	server, err := v.start()
	if err != nil {
		return err
	}
	v.server = server
	return server.ready(ctx, v.Address+"/v1/sys/init")
}

// Kill ends the server as a crash would, and it alone: its plugins live on until
// they notice.
func (v *Vault) Kill() { v.server.crash() }

// Stop ends the server in order.
func (v *Vault) Stop() { v.server.stop() }

// unfinished is the name of a file that a killed Vault was writing a lease to: the lease's
// own name, and digits. Vault's file storage lists it as a lease, can't decrypt it, and
// shuts Vault down.
var unfinished = regexp.MustCompile(`^_[0-9A-Za-z]{24}[0-9]+$`)

// removeUnfinished removes such files, as an operator of file storage has to.
func (v *Vault) removeUnfinished() error {
	if v.data == "" {
		return nil
	}
	leases := filepath.Join(v.data, "sys", "expire", "id")
	return filepath.WalkDir(leases, func(path string, file fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || file.IsDir() || !unfinished.MatchString(file.Name()):
			return err
		}
		return os.Remove(path)
	})
}

// Restart starts a server that has been killed or stopped, with what it has
// stored, and unseals it.
func (v *Vault) Restart(ctx context.Context) error {
	if err := v.removeUnfinished(); err != nil {
		return err
	}
	if err := v.up(ctx); err != nil {
		return err
	}
	return v.open(ctx)
}

// Unseal unseals a server that was sealed.
func (v *Vault) Unseal(ctx context.Context) error { return v.open(ctx) }

// open unseals the server and waits until it takes requests, itself or through
// the cluster's leader.
func (v *Vault) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := v.tryOpen(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("unsealing Vault: %w", err)
		case <-time.After(pollInterval):
		}
	}
}

func (v *Vault) tryOpen(ctx context.Context) error {
	state, err := v.Client.Sys().SealStatusWithContext(ctx)
	if err != nil {
		return err
	}
	if state.Sealed {
		if _, err := v.Client.Sys().UnsealWithContext(ctx, v.unseal); err != nil {
			return err
		}
	}
	_, err = v.Client.Auth().Token().LookupSelfWithContext(ctx)
	return err
}

// vaultEnvironment gives Vault, and so the plugin, a folder for sockets that goes
// with the lab, and the cloud's key as the machine's AWS credentials.
func (l *Lab) vaultEnvironment() ([]string, error) {
	sockets := filepath.Join(l.Folder, "s")
	if err := makeFolder(sockets); err != nil {
		return nil, err
	}
	environment := []string{"VAULT_PLUGIN_TMPDIR=" + sockets, "AWS_EC2_METADATA_DISABLED=true"}
	if l.Cloud != nil {
		environment = append(environment, "AWS_ACCESS_KEY_ID="+l.Cloud.Engine.Access, "AWS_SECRET_ACCESS_KEY="+l.Cloud.Engine.Secret, "AWS_SESSION_TOKEN=")
	}
	return environment, nil
}

func makeFolder(path string) error { return os.MkdirAll(path, 0o700) }

func (v *Vault) setUp(ctx context.Context, plugin string) error {
	if err := v.initialise(ctx); err != nil {
		return err
	}
	return v.RegisterPlugin(ctx, plugin, "")
}

func (v *Vault) initialise(ctx context.Context) error {
	keys, err := v.Client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialising Vault: %w", err)
	}
	v.unseal, v.Root = keys.Keys[0], keys.RootToken
	v.Client.SetToken(v.Root)
	if err := v.open(ctx); err != nil {
		return err
	}
	if err := v.Client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": v.Audit}}); err != nil {
		return fmt.Errorf("enabling the audit log: %w", err)
	}
	return nil
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

// SnapshotVault keeps what Vault has stored, in a folder that RestoreVault takes. Vault is stopped meanwhile.
func (l *Lab) SnapshotVault(ctx context.Context) (folder string, err error) {
	l.Vault.Stop()
	if folder, err = os.MkdirTemp(l.Folder, "snapshot-"); err != nil {
		return "", err
	}
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(l.Folder, "vault"))); err != nil {
		return "", fmt.Errorf("copying Vault's storage: %w", err)
	}
	return folder, l.Vault.Restart(ctx)
}

// RestoreVault puts a snapshot in the place of what Vault has stored since.
func (l *Lab) RestoreVault(ctx context.Context, snapshot string) error {
	l.Vault.Stop()
	folder := filepath.Join(l.Folder, "vault")
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("removing Vault's storage: %w", err)
	}
	if err := os.CopyFS(folder, os.DirFS(snapshot)); err != nil {
		return fmt.Errorf("restoring Vault's storage: %w", err)
	}
	return l.Vault.Restart(ctx)
}

// CopyVault starts a second Vault from a copy of what the first has stored. The
// first is stopped while it is copied.
func (l *Lab) CopyVault(ctx context.Context) (*Vault, error) {
	l.Vault.Stop()
	folder := filepath.Join(l.Folder, "copy")
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(l.Folder, "vault"))); err != nil {
		return nil, fmt.Errorf("copying Vault's storage: %w", err)
	}
	if err := l.Vault.Restart(ctx); err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	copied, err := l.newVault("copied", ports, fmt.Sprintf(fileStorage, folder))
	if err != nil {
		return nil, err
	}
	copied.unseal, copied.Root = l.Vault.unseal, l.Vault.Root
	copied.Client.SetToken(copied.Root)
	return copied, copied.Restart(ctx)
}
