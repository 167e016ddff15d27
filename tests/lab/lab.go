// Package lab starts the real servers that the tests, the demo and the
// development environment talk to, on loopback, and stops them without a trace.
package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// PluginName is the name that the plugin has in Vault's catalog.
const PluginName = "vault-plugin-secrets-precision"

// Options choose what a lab starts.
type Options struct {
	Plugin     string            // the plugin's binary; empty to build it, with the race detector in it
	Moto       bool              // start AWS's stand-in as well
	Kubernetes bool              // start an API server and etcd as well
	PostgreSQL bool              // start a PostgreSQL server as well
	OtherVault bool              // start a second Vault, as a target, as well
	NoStore    bool              // leave MinIO out
	Nodes      int               // of Vault, with integrated storage; 0: a single one on files
	Said       func(what string) // is told of each step; nil for silence
}

// Lab is a running set of servers.
type Lab struct {
	Folder     string // everything that the servers write is in here
	Plugin     string // the plugin's binary
	Vault      *Vault
	Nodes      []*Vault    // of the cluster; Vault is the first
	Store      *Store      // nil with Options.NoStore
	Cloud      *Cloud      // nil without Options.Moto
	Kubernetes *Kubernetes // nil without Options.Kubernetes
	Other      *OtherVault // nil without Options.OtherVault
	PostgreSQL *PostgreSQL // nil without Options.PostgreSQL

	versions  map[string]*PostgreSQL // that were started, by their major version
	processes []*process
	closers   []func()
	watchdog  *watchdog
}

// Start starts the servers and waits until they answer. On an error nothing is
// left running.
func Start(ctx context.Context, options Options) (*Lab, error) {
	folder, err := os.MkdirTemp("", "precision-lab-")
	if err != nil {
		return nil, err
	}
	lab := &Lab{Folder: folder, Plugin: options.Plugin}
	if err := lab.start(ctx, options); err != nil {
		lab.Close()
		return nil, err
	}
	return lab, nil
}

func (l *Lab) start(ctx context.Context, options Options) error {
	said := options.Said
	if said == nil {
		said = func(string) {}
	}
	var err error
	if l.watchdog, err = startWatchdog(l.Folder); err != nil {
		return err
	}
	if l.Plugin == "" {
		said("building the plugin")
		l.Plugin = filepath.Join(l.Folder, PluginName)
		if err := BuildPlugin(ctx, l.Plugin, "v0.1.0"); err != nil {
			return err
		}
	}
	if !options.NoStore {
		said("starting MinIO")
		if err := l.startStore(ctx); err != nil {
			return err
		}
	}
	if options.Moto {
		said("starting moto, a stand-in for AWS")
		if err := l.startCloud(ctx); err != nil {
			return err
		}
	}
	if options.PostgreSQL {
		said("starting PostgreSQL")
		if err := l.startPostgreSQL(ctx); err != nil {
			return err
		}
	}
	if options.Kubernetes {
		said("starting a Kubernetes API server")
		if err := l.startKubernetes(ctx); err != nil {
			return err
		}
	}
	if options.OtherVault {
		said("starting the Vault that is a target")
		if err := l.startOtherVault(ctx); err != nil {
			return err
		}
	}
	said("starting Vault")
	if options.Nodes > 0 {
		return l.startCluster(ctx, options.Nodes)
	}
	return l.startVault(ctx)
}

// Stop ends the servers, the last started first.
func (l *Lab) Stop() {
	for i := len(l.closers) - 1; i >= 0; i-- {
		l.closers[i]()
	}
	for i := len(l.processes) - 1; i >= 0; i-- {
		l.processes[i].stop()
	}
	l.closers, l.processes = nil, nil
}

// Close ends the servers and removes what they wrote.
func (l *Lab) Close() {
	l.Stop()
	if l.watchdog != nil {
		l.watchdog.dismiss()
	}
	_ = os.RemoveAll(l.Folder)
}

// KillVault ends Vault alone, as a crash would.
func (l *Lab) KillVault() { l.Vault.server.kill() }

// run starts a server that belongs to the lab.
func (l *Lab) run(name, binary string, environment []string, arguments ...string) (*process, error) {
	command := exec.Command(binary, arguments...)
	command.Env = append(os.Environ(), environment...)
	return l.launch(name, command)
}

// launch is run for a command that needs more than an environment.
func (l *Lab) launch(name string, command *exec.Cmd) (*process, error) {
	started, err := startProcess(l.Folder, name, command)
	if err != nil {
		return nil, err
	}
	l.processes = append(l.processes, started)
	started.stopped = func() { l.watchdog.forget(started) }
	return started, l.watchdog.watch(started)
}

// BuildPlugin builds the plugin as it stands in this repository, with the race
// detector in it, and lets it say that it is of the given version.
func BuildPlugin(ctx context.Context, path, version string) error {
	root, err := Repository()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-race", "-o", path,
		"-ldflags", "-X github.com/precision-access/vault-plugin-secrets-precision.Version="+version,
		"./cmd/"+PluginName)
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the plugin: %w\n%s", err, output)
	}
	return nil
}
