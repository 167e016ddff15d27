package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/hashicorp/go-cleanhttp"
	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

const (
	uploads   = "arn:aws:s3:::releases/app/*"
	putObject = "s3:PutObject"
	onStore   = "upload"  // PutObject on uploads in the store
	onCloud   = "publish" // the same in the cloud
	mounted   = "precision"
)

// world is a lab of a test's own. Between the engine and the store stands a
// proxy that remembers all sessions, those whose answer got lost among them.
type world struct {
	*lab.Lab
	t     *testing.T
	store *providertest.Faults

	mu       sync.Mutex
	sessions map[string]lab.Key // that have been opened, and not been seen dead
}

func newWorld(t *testing.T, options lab.Options) *world {
	t.Helper()
	if options.Plugin == "" {
		options.Plugin = plugin
	}
	servers, err := lab.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Lab: servers, t: t, sessions: map[string]lab.Key{}}
	t.Cleanup(func() {
		servers.Stop() // the plugin's last words are in the logs then
		for _, vault := range append([]*lab.Vault{servers.Vault}, servers.Nodes...) {
			log, err := os.ReadFile(vault.Log)
			if err != nil {
				t.Error(err)
			}
			if at := strings.Index(string(log), "DATA RACE"); at >= 0 {
				t.Errorf("the race detector found this in the plugin:\n%s", log[at:min(len(log), at+8000)])
			}
		}
		servers.Close()
	})
	if servers.Store != nil {
		w.store = providertest.NewFaults(t, servers.Store.Endpoint)
		w.store.Watch(w.opened)
	}
	return w
}

// clientOf is a client of a Vault that tries each request once and has
// connections of its own.
func clientOf(t testing.TB, vault *lab.Vault) *api.Client {
	t.Helper()
	settings := api.DefaultConfig()
	settings.Address = vault.Address
	settings.MaxRetries = 0
	settings.Timeout = 3 * time.Minute
	settings.HttpClient = &http.Client{Transport: cleanhttp.DefaultPooledTransport()}
	client, err := api.NewClient(settings)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(vault.Root)
	return client
}

// mount mounts the engine with the targets and roles that the lab has servers
// for. Credentials live for ttl.
func (w *world) mount(vault *lab.Vault, path, ttl string) {
	w.t.Helper()
	if err := vault.Client.Sys().MountWithContext(w.t.Context(), path, &api.MountInput{Type: lab.PluginName}); err != nil {
		w.t.Fatal(err)
	}
	w.configure(vault, path, ttl)
}

func (w *world) configure(vault *lab.Vault, path, ttl string) {
	w.t.Helper()
	role := func(target string) map[string]any {
		return map[string]any{"target": target, "action": putObject, "resource": uploads, "ttl": ttl, "max_ttl": "1h"}
	}
	if w.Store != nil {
		w.write(vault, path+"/config/store", w.storeConfig(w.store.URL))
		w.write(vault, path+"/roles/"+onStore, role("store"))
	}
	if w.Cloud != nil {
		w.write(vault, path+"/config/prod", w.cloudConfig(w.Cloud.API))
		w.write(vault, path+"/roles/"+onCloud, role("prod"))
	}
}

func (w *world) storeConfig(endpoint string) map[string]any {
	return map[string]any{"type": "minio", "endpoint": endpoint, "access_key": w.Store.Engine.Access, "secret_key": w.Store.Engine.Secret}
}

func (w *world) cloudConfig(endpoint string) map[string]any {
	return map[string]any{
		"type": "aws", "region": lab.Region, "iam_endpoint": endpoint, "sts_endpoint": w.Cloud.API,
		"access_key": w.Cloud.Engine.Access, "secret_key": w.Cloud.Engine.Secret,
	}
}

func (w *world) write(vault *lab.Vault, path string, data map[string]any) {
	w.t.Helper()
	if _, err := vault.Client.Logical().WriteWithContext(w.t.Context(), path, data); err != nil {
		w.t.Fatal(err)
	}
}

// credential is what a read of creds returned.
type credential struct {
	*api.Secret
	key       lab.Key
	grant     string
	expiresAt time.Time
	cloud     bool
	object    string // that it may write
}

func mint(ctx context.Context, client *api.Client, path string) (credential, error) {
	secret, err := client.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return credential{}, err
	}
	if secret == nil {
		return credential{}, errors.New("the answer is empty")
	}
	text := func(name string) string { value, _ := secret.Data[name].(string); return value }
	minted := credential{
		Secret: secret, grant: text("grant_id"), cloud: text("session_token") == "",
		object: "app/1.tgz",
		key:    lab.Key{Access: text("access_key"), Secret: text("secret_key"), Token: text("session_token")},
	}
	if minted.expiresAt, err = time.Parse(time.RFC3339, text("expires_at")); err != nil {
		return credential{}, err
	}
	if minted.grant == "" || minted.key.Access == "" || secret.LeaseID == "" {
		return credential{}, fmt.Errorf("the answer lacks something: %v", secret.LeaseID)
	}
	return minted, nil
}

// mint demands that a credential is minted.
func (w *world) mint(client *api.Client, path string) credential {
	w.t.Helper()
	minted, err := mint(w.t.Context(), client, path)
	if err != nil {
		w.t.Fatal(err)
	}
	return minted
}

func revoke(ctx context.Context, client *api.Client, lease string) error {
	return client.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: lease, Sync: true})
}

// use does what the credential is for. It is nil where the target let it.
func (w *world) use(ctx context.Context, minted credential) error {
	if minted.cloud {
		return lab.Put(ctx, w.Cloud.S3(minted.key), "releases", minted.object)
	}
	return lab.Put(ctx, w.Store.S3(minted.key), "releases", minted.object)
}

func (w *world) allowed(what string, minted credential) {
	w.t.Helper()
	if err := w.use(w.t.Context(), minted); err != nil {
		w.t.Errorf("%s is not allowed: %v", what, err)
	}
}

func (w *world) denied(what string, minted credential) {
	w.t.Helper()
	if err := w.use(w.t.Context(), minted); !refused(err) {
		w.t.Errorf("%s is not refused: %v", what, err)
	}
}

// refused is true where a target answered and said no.
func refused(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.ErrorCode() {
	case "AccessDenied", "InvalidAccessKeyId", "InvalidTokenId", "InvalidClientTokenId", "ExpiredToken":
		return true
	default:
		return false
	}
}

// eventually waits until the condition holds, or else says what it has last
// complained of. It has all the time that a busy machine may need.
func (w *world) eventually(what string, holds func() error) {
	w.t.Helper()
	// Vault tries a revocation again after pauses that grow to five minutes.
	const longest = 12 * time.Minute
	var err error
	for end := time.Now().Add(longest); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	w.t.Fatalf("%s: not within %s: %v", what, longest, err)
}

// ledger reads what a mount has stored of its grants.
func (w *world) ledger(vault *lab.Vault, path string) ([]ledger.Grant, error) {
	mounts, err := vault.Client.Sys().ListMountsWithContext(w.t.Context())
	if err != nil {
		return nil, err
	}
	folder := "sys/raw/logical/" + mounts[path+"/"].UUID + "/" + ledger.Prefix
	buckets, err := keys(w.t.Context(), vault.Client, folder)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var grants []ledger.Grant
	var all errgroup.Group
	all.SetLimit(16)
	for _, bucket := range buckets {
		ids, err := keys(w.t.Context(), vault.Client, folder+bucket)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			all.Go(func() error {
				grant, err := stored(w.t.Context(), vault.Client, folder+bucket+id)
				mu.Lock()
				defer mu.Unlock()
				if grant != nil {
					grants = append(grants, *grant)
				}
				return err
			})
		}
	}
	err = all.Wait()
	return grants, err
}
