// Command bench measures the engine and Vault's own AWS engine side by side: in
// one Vault, against one endpoint, in one run, in turns. It prints ratios; the
// times beside them hold for this machine only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

var (
	reads   = flag.Int("reads", 300, "reads a row and engine")
	callers = flag.Int("callers", 32, "callers at once")
	rounds  = flag.Int("rounds", 3, "rounds; the median of them counts")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: bench [flags] PLUGIN")
		os.Exit(2)
	}
	if err := run(ctx, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// engine is one of the two: where it mints the same kind of credential, and where
// the leases of these are.
type engine struct{ read, leases string }

// row is a kind of credential at one latency of AWS.
type row struct {
	kind          string
	delay         time.Duration
	ours, builtIn engine
}

func run(ctx context.Context, plugin string) error {
	plugin, err := filepath.Abs(plugin)
	if err != nil {
		return err
	}
	servers, err := lab.Start(ctx, lab.Options{Plugin: plugin, Said: func(what string) { fmt.Println("...", what) }})
	if err != nil {
		return err
	}
	defer servers.Close()
	aws := startEndpoint()
	defer aws.Close()
	client := servers.Vault.Client
	if err := configure(ctx, client, aws.URL); err != nil {
		return err
	}

	table := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Printf("\n%d reads, %d callers, median of %d rounds; ratio: ours / Vault's own engine\n\n", *reads, *callers, *rounds)
	fmt.Fprintln(table, "credential\tAWS answers in\tmint p50\tratio\tmints/s\tratio\tcalls/mint\trevoke all\tratio\tcalls in all\t")
	users := []engine{{"precision/creds/user/T-1", "precision/creds/user/T-1"}, {"aws/creds/user", "aws/creds/user"}}
	sessions := []engine{{"precision/creds/session/T-1", "precision/creds/session/T-1"}, {"aws/creds/session", "aws/creds/session"}}
	for _, row := range []row{
		{"iam_user", 0, users[0], users[1]},
		{"iam_user", 25 * time.Millisecond, users[0], users[1]},
		{"assumed_role", 0, sessions[0], sessions[1]},
		{"assumed_role", 25 * time.Millisecond, sessions[0], sessions[1]},
	} {
		aws.delay.Store(int64(row.delay))
		var ours, builtIn []figures
		for range *rounds {
			mine, err := measure(ctx, client, aws, row.ours)
			if err != nil {
				return fmt.Errorf("%s, ours: %w", row.kind, err)
			}
			theirs, err := measure(ctx, client, aws, row.builtIn)
			if err != nil {
				return fmt.Errorf("%s, Vault's: %w", row.kind, err)
			}
			ours, builtIn = append(ours, mine), append(builtIn, theirs)
		}
		mine, theirs := median(ours), median(builtIn)
		fmt.Fprintf(table, "%s\t%s\t%s / %s\t%.2f\t%.0f / %.0f\t%.2f\t%.1f / %.1f\t%s / %s\t%.2f\t%.0f / %.0f\t\n", row.kind, row.delay,
			mine.p50.Round(time.Millisecond), theirs.p50.Round(time.Millisecond), ratio(mine.p50, theirs.p50),
			mine.rate, theirs.rate, mine.rate/theirs.rate, mine.mintCalls, theirs.mintCalls,
			mine.revoke.Round(time.Millisecond), theirs.revoke.Round(time.Millisecond), ratio(mine.revoke, theirs.revoke), mine.revokeCalls, theirs.revokeCalls)
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Println("A session that is revoked without a call lives on until its own end: Vault's own engine forgets it, and no more.")
	return nil
}

// configure sets both engines up for the same endpoint, with the same rights.
func configure(ctx context.Context, client *api.Client, endpoint string) error {
	for path, kind := range map[string]string{"precision": lab.PluginName, "aws": "aws"} {
		if err := client.Sys().MountWithContext(ctx, path, &api.MountInput{Type: kind}); err != nil {
			return err
		}
	}
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::releases/app/*"}]}`
	for _, write := range []struct {
		path string
		data map[string]any
	}{
		{"precision/config/prod", map[string]any{"type": "aws", "region": lab.Region, "iam_endpoint": endpoint, "sts_endpoint": endpoint, "access_key": "AKIAENGINE", "secret_key": "secret"}},
		{"precision/roles/user", map[string]any{"target": "prod", "action": "s3:PutObject", "resource": "arn:aws:s3:::releases/app/*", "ttl": "1h"}},
		{"precision/roles/session", map[string]any{"target": "prod", "action": "s3:PutObject", "resource": "arn:aws:s3:::releases/app/*", "ttl": "1h",
			"credential_type": "assumed_role", "role_arn": "arn:aws:iam::123456789012:role/base"}},
		{"aws/config/root", map[string]any{"region": lab.Region, "iam_endpoint": endpoint, "sts_endpoint": endpoint, "access_key": "AKIAENGINE", "secret_key": "secret", "sts_region": lab.Region}},
		{"aws/config/lease", map[string]any{"lease": "1h", "lease_max": "2h"}},
		{"aws/roles/user", map[string]any{"credential_type": "iam_user", "policy_document": policy}},
		{"aws/roles/session", map[string]any{"credential_type": "assumed_role", "policy_document": policy, "role_arns": "arn:aws:iam::123456789012:role/base", "default_sts_ttl": "1h"}},
	} {
		if _, err := client.Logical().WriteWithContext(ctx, write.path, write.data); err != nil {
			return fmt.Errorf("%s: %w", write.path, err)
		}
	}
	return nil
}

// figures are what one round of one engine measured.
type figures struct {
	p50, revoke            time.Duration
	rate                   float64 // mints a second
	mintCalls, revokeCalls float64 // calls of AWS, for each mint and for all revokes
}

// measure reads credentials from all callers at once, and revokes them all by
// one asynchronous prefix, as "vault lease revoke -prefix" does.
func measure(ctx context.Context, client *api.Client, aws *endpoint, of engine) (figures, error) {
	var taken figures
	before := aws.calls.Load()
	times, elapsed, err := readAll(ctx, client, of.read)
	if err != nil {
		return taken, err
	}
	slices.Sort(times)
	taken.p50, taken.rate = times[len(times)/2], float64(len(times))/elapsed.Seconds()
	taken.mintCalls = float64(aws.calls.Load()-before) / float64(len(times))

	before = aws.calls.Load()
	started := time.Now()
	if err := client.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: of.leases, Prefix: true}); err != nil {
		return taken, err
	}
	for {
		left, err := client.Logical().ListWithContext(ctx, "sys/leases/lookup/"+of.leases)
		if err != nil {
			return taken, err
		}
		if left == nil {
			break
		}
		if time.Since(started) > 10*time.Minute {
			return taken, errors.New("leases are left after the revoke")
		}
		time.Sleep(5 * time.Millisecond)
	}
	taken.revoke = time.Since(started)
	taken.revokeCalls = float64(aws.calls.Load() - before)
	return taken, nil
}

func readAll(ctx context.Context, client *api.Client, path string) (times []time.Duration, elapsed time.Duration, err error) {
	work := make(chan struct{}, *reads)
	for range *reads {
		work <- struct{}{}
	}
	close(work)
	var mu sync.Mutex
	var all sync.WaitGroup
	started := time.Now()
	for range *callers {
		all.Go(func() {
			for range work {
				begun := time.Now()
				_, failed := client.Logical().ReadWithContext(ctx, path)
				took := time.Since(begun)
				mu.Lock()
				times, err = append(times, took), errors.Join(err, failed)
				mu.Unlock()
				if failed != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return times, time.Since(started), err
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// median takes the middle of each figure.
func median(all []figures) figures {
	middle := func(of func(figures) float64) float64 {
		values := make([]float64, len(all))
		for i, one := range all {
			values[i] = of(one)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return figures{
		p50:         time.Duration(middle(func(f figures) float64 { return float64(f.p50) })),
		revoke:      time.Duration(middle(func(f figures) float64 { return float64(f.revoke) })),
		rate:        middle(func(f figures) float64 { return f.rate }),
		mintCalls:   middle(func(f figures) float64 { return f.mintCalls }),
		revokeCalls: middle(func(f figures) float64 { return f.revokeCalls }),
	}
}
