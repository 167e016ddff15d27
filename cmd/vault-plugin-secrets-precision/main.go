// Command vault-plugin-secrets-precision is the plugin that Vault runs.
package main

import (
	"errors"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	precision "github.com/precision-access/vault-plugin-secrets-precision"
)

func main() {
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		fail(err)
	}
	go endWithParent()
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: precision.Factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
	}); err != nil {
		fail(err)
	}
}

// endWithParent ends the process when Vault is gone. Vault ends its plugins when
// it stops, but not when it is killed.
func endWithParent() {
	const interval = time.Second
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(interval)
	}
	fail(errors.New("vault is gone"))
}

func fail(err error) {
	hclog.Default().Error("plugin shutting down", "error", err)
	os.Exit(1)
}
