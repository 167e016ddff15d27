// Command soak lets callers mint and revoke at full load for a while, on real
// servers, and fails if the plugin's process grows meanwhile:
//
//	soak <plugin> <duration>
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const (
	callers = 32
	ttl     = 20 // seconds; one credential of four is left to its lease
	// What a process may grow by after it has warmed up: the collector's own play,
	// and no more. A leak of 1 kB a grant would be beyond it within minutes.
	growth      = 1.4
	growthBytes = 16 << 20
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: soak <plugin> <duration>")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	duration, err := time.ParseDuration(os.Args[2])
	if err == nil {
		err = run(ctx, os.Args[1], duration)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, plugin string, duration time.Duration) error {
	plugin, err := filepath.Abs(plugin)
	if err != nil {
		return err
	}
	servers, err := lab.Start(ctx, lab.Options{Plugin: plugin, Moto: true, Said: func(what string) { fmt.Println("...", what) }})
	if err != nil {
		return err
	}
	defer servers.Close()
	if err := configure(ctx, servers); err != nil {
		return err
	}

	var done counters
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	for caller := range callers {
		client, err := api.NewClient(&api.Config{Address: servers.Vault.Address, MaxRetries: 0, Timeout: time.Minute})
		if err != nil {
			return err
		}
		client.SetToken(servers.Vault.Root)
		all.Go(func() { done.load(loading, client, caller) })
	}
	var seen []process
	for _, part := range []struct {
		name string
		at   time.Duration
	}{{"warmed up", duration / 4}, {"middle", duration * 5 / 8}, {"end", duration}} {
		wait := part.at
		if len(seen) > 0 {
			wait -= seen[len(seen)-1].at
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		now, err := look(ctx, servers.Vault)
		if err != nil {
			return err
		}
		now.at = part.at
		seen = append(seen, now)
		fmt.Printf("%-9s  %6s  %5d MB  %3d threads  %3d files  minted %d, revoked %d, failed %d\n", part.name, part.at.Truncate(time.Second),
			now.memory>>20, now.threads, now.files, done.minted.Load(), done.revoked.Load(), done.failed.Load())
	}
	stop()
	all.Wait()
	first, last := seen[0], seen[len(seen)-1]
	switch {
	case last.pid != first.pid:
		return errors.New("the plugin's process is another than at the start")
	case float64(last.memory) > growth*float64(first.memory)+growthBytes:
		return fmt.Errorf("the plugin has grown from %d MB to %d MB", first.memory>>20, last.memory>>20)
	case last.threads > 2*first.threads:
		return fmt.Errorf("the plugin has gone from %d threads to %d", first.threads, last.threads)
	case last.files > 2*first.files+callers:
		return fmt.Errorf("the plugin has gone from %d open files to %d", first.files, last.files)
	case done.failed.Load() > 0:
		return fmt.Errorf("%d requests failed, the last with: %w", done.failed.Load(), *done.failure.Load())
	}
	return nil
}

func configure(ctx context.Context, servers *lab.Lab) error {
	client, store, cloud := servers.Vault.Client, servers.Store, servers.Cloud
	if err := client.Sys().MountWithContext(ctx, "precision", &api.MountInput{Type: lab.PluginName}); err != nil {
		return err
	}
	role := func(target string) map[string]any {
		return map[string]any{"target": target, "action": "s3:PutObject", "resource": "arn:aws:s3:::releases/app/*", "ttl": ttl}
	}
	for _, write := range []struct {
		path string
		data map[string]any
	}{
		{"config/store", map[string]any{"type": "minio", "endpoint": store.Endpoint, "access_key": store.Engine.Access, "secret_key": store.Engine.Secret}},
		{"config/prod", map[string]any{"type": "aws", "region": lab.Region, "iam_endpoint": cloud.API, "sts_endpoint": cloud.API, "access_key": cloud.Engine.Access, "secret_key": cloud.Engine.Secret}},
		{"roles/upload", role("store")},
		{"roles/publish", role("prod")},
	} {
		if _, err := client.Logical().WriteWithContext(ctx, "precision/"+write.path, write.data); err != nil {
			return err
		}
	}
	return nil
}

// counters count what callers did.
type counters struct {
	minted, revoked, failed atomic.Int64
	failure                 atomic.Pointer[error]
}

// load mints and revokes, on one of the targets, until ctx ends.
func (c *counters) load(ctx context.Context, client *api.Client, caller int) {
	role := []string{"upload", "publish"}[caller%2]
	failed := func(err error) {
		if ctx.Err() == nil {
			c.failed.Add(1)
			c.failure.Store(&err)
		}
	}
	for turn := 0; ctx.Err() == nil; turn++ {
		secret, err := client.Logical().ReadWithContext(ctx, fmt.Sprintf("precision/creds/%s/T-%d", role, turn%100))
		if err != nil {
			failed(err)
			continue
		}
		c.minted.Add(1)
		if turn%4 == 0 {
			continue
		}
		if err := client.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: secret.LeaseID, Sync: true}); err != nil {
			failed(err)
			continue
		}
		c.revoked.Add(1)
	}
}

// process is what a process takes.
type process struct {
	at             time.Duration
	pid            int
	memory         int64 // resident, bytes
	threads, files int
}

// look reads what the plugin's one process takes, from /proc.
func look(ctx context.Context, vault *lab.Vault) (process, error) {
	pids, err := vault.PluginPIDs(ctx)
	if err != nil {
		return process{}, err
	}
	if len(pids) != 1 {
		return process{}, fmt.Errorf("the plugin has %d processes, want one", len(pids))
	}
	folder := fmt.Sprintf("/proc/%d", pids[0])
	status, err := os.ReadFile(folder + "/status")
	if err != nil {
		return process{}, err
	}
	seen := process{pid: pids[0]}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		number, _ := strconv.Atoi(fields[0]) // most lines are other things
		switch name {
		case "VmRSS":
			seen.memory = int64(number) << 10
		case "Threads":
			seen.threads = number
		}
	}
	open, err := os.ReadDir(folder + "/fd")
	if err != nil {
		return process{}, err
	}
	seen.files = len(open)
	if seen.memory == 0 || seen.threads == 0 {
		return process{}, errors.New("/proc does not say what the plugin takes")
	}
	return seen, nil
}
