// Command dev starts the servers that the tests use, with a mount of the engine
// that is ready for use, and leaves them running until it is interrupted.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dev PLUGIN")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, plugin string) error {
	plugin, err := filepath.Abs(plugin)
	if err != nil {
		return err
	}
	servers, err := lab.Start(ctx, lab.Options{Plugin: plugin, Moto: true, Said: func(what string) { fmt.Println("...", what) }})
	if err != nil {
		return err
	}
	defer servers.Close()
	vault, store, cloud := servers.Vault, servers.Store, servers.Cloud
	for _, arguments := range [][]string{
		{"secrets", "enable", "-path=precision", lab.PluginName},
		{"write", "precision/config/store", "type=minio", "endpoint=" + store.Endpoint, "access_key=" + store.Engine.Access, "secret_key=" + store.Engine.Secret},
		{"write", "precision/config/prod", "type=aws", "region=" + lab.Region, "iam_endpoint=" + cloud.API, "sts_endpoint=" + cloud.API, "access_key=" + cloud.Engine.Access, "secret_key=" + cloud.Engine.Secret},
		{"write", "precision/roles/upload", "target=store", "action=s3:PutObject", "resource=arn:aws:s3:::releases/app/*", "ttl=10m", "max_ttl=30m"},
		{"write", "precision/roles/publish", "target=prod", "action=s3:PutObject", "resource=arn:aws:s3:::releases/app/*", "ttl=10m", "max_ttl=30m"},
	} {
		if output, err := vault.Command(ctx, arguments...).CombinedOutput(); err != nil {
			return fmt.Errorf("vault %s: %w\n%s", arguments[0], err, output)
		}
	}
	fmt.Printf(guide, vault.Address, vault.Root, filepath.Dir(vault.Binary), store.Endpoint, store.Root.Access, store.Root.Secret, cloud.Endpoint, servers.Folder)
	<-ctx.Done()
	fmt.Println("\nstopping")
	return nil
}

const guide = `
Vault, MinIO and moto are running. In another terminal:

  export VAULT_ADDR=%s
  export VAULT_TOKEN=%s
  export PATH="$PATH:%s"

  vault read  precision/creds/upload/JIRA-123      # a session on MinIO
  vault read  precision/creds/publish/JIRA-123     # an IAM user on moto
  vault lease revoke -sync -prefix precision/creds/upload/JIRA-123
  vault path-help precision/roles/x

  MinIO  %s  (%s / %s)
  moto   %s
  logs   %s

Ctrl-C stops everything and removes what it wrote.
`
