package tests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// mount is one mount of the engine in the shared Vault, with the targets
// "store" (MinIO) and "prod" (moto) and a role on each.
type mount struct {
	t    *testing.T
	path string
	*api.Client
	grants map[string]bool // the ids of what it has minted
}

const (
	uploads      = "arn:aws:s3:::releases/app/*"
	putObject    = "s3:PutObject"
	onStore      = "upload"  // PutObject on uploads in the store
	onCloud      = "publish" // the same in the cloud
	shortestWait = 20 * time.Millisecond
)

func newMount(t *testing.T) *mount {
	t.Helper()
	m := nameMount(t)
	m.enable(&api.MountInput{Type: lab.PluginName})
	m.configure()
	return m
}

func nameMount(t *testing.T) *mount {
	return &mount{t: t, path: strings.ToLower(t.Name()), Client: servers.Vault.Client, grants: map[string]bool{}}
}

func (m *mount) enable(input *api.MountInput) {
	m.t.Helper()
	if err := m.Sys().MountWithContext(m.t.Context(), m.path, input); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := m.Sys().UnmountWithContext(context.Background(), m.path); err != nil {
			m.t.Errorf("disabling the mount: %v", err)
		}
		// A mount's Deny outlives it. All mounts have the same user, whose policies have
		// little room.
		if err := servers.Cloud.RemoveDenies(context.Background()); err != nil {
			m.t.Error(err)
		}
	})
}

func (m *mount) configure() {
	m.t.Helper()
	m.write("config/store", m.storeConfig())
	m.write("config/prod", m.cloudConfig())
	m.write("roles/"+onStore, map[string]any{"target": "store", "action": putObject, "resource": uploads, "ttl": "10m", "max_ttl": "30m"})
	m.write("roles/"+onCloud, map[string]any{"target": "prod", "action": putObject, "resource": uploads, "ttl": "10m", "max_ttl": "30m"})
}

func (m *mount) storeConfig() map[string]any {
	return map[string]any{"type": "minio", "endpoint": servers.Store.Endpoint, "access_key": servers.Store.Engine.Access, "secret_key": servers.Store.Engine.Secret}
}

func (m *mount) cloudConfig() map[string]any {
	return map[string]any{
		"type": "aws", "region": lab.Region, "iam_endpoint": servers.Cloud.API, "sts_endpoint": servers.Cloud.API,
		"access_key": servers.Cloud.Engine.Access, "secret_key": servers.Cloud.Engine.Secret,
	}
}

// with is fields with some of them changed; nil takes one out.
func with(fields map[string]any, changes map[string]any) map[string]any {
	changed := maps.Clone(fields)
	for name, value := range changes {
		if value == nil {
			delete(changed, name)
		} else {
			changed[name] = value
		}
	}
	return changed
}

func (m *mount) write(path string, data map[string]any) *api.Secret {
	m.t.Helper()
	secret, err := m.Logical().WriteWithContext(m.t.Context(), m.path+"/"+path, data)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret
}

func (m *mount) read(path string) *api.Secret {
	m.t.Helper()
	secret, err := m.Logical().ReadWithContext(m.t.Context(), m.path+"/"+path)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret
}

// credential is what a read of creds returned.
type credential struct {
	*api.Secret
	key       lab.Key
	expiresAt time.Time
}

func (m *mount) mint(path string, parameters ...string) credential {
	m.t.Helper()
	minted, err := m.tryMint(m.Client, path, parameters...)
	if err != nil {
		m.t.Fatal(err)
	}
	return minted
}

func (m *mount) tryMint(client *api.Client, path string, parameters ...string) (credential, error) {
	query := map[string][]string{}
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		query[name] = append(query[name], value)
	}
	secret, err := client.Logical().ReadWithDataWithContext(m.t.Context(), m.path+"/creds/"+path, query)
	if err != nil {
		return credential{}, err
	}
	minted, err := readCredential(secret)
	if err == nil {
		m.grants[minted.grant()] = true
	}
	return minted, err
}

func (c credential) grant() string { return c.Data["grant_id"].(string) }

func readCredential(secret *api.Secret) (credential, error) {
	text := map[string]string{}
	for _, name := range []string{"access_key", "secret_key", "session_token", "action", "resource", "task", "grant_id", "expires_at", "policy"} {
		value, ok := secret.Data[name].(string)
		if !ok {
			return credential{}, fmt.Errorf("the answer has no %s", name)
		}
		text[name] = value
	}
	expiresAt, err := time.Parse(time.RFC3339, text["expires_at"])
	if err != nil {
		return credential{}, err
	}
	return credential{secret, lab.Key{Access: text["access_key"], Secret: text["secret_key"], Token: text["session_token"]}, expiresAt}, nil
}

// inStore is nil where the store lets the credential write what it may.
func (c credential) inStore(ctx context.Context) error {
	return lab.Put(ctx, servers.Store.S3(c.key), "releases", "app/1.tgz")
}

// inStoreAs is the same for any key.
func (c credential) inStoreAs(ctx context.Context, key string) error {
	return lab.Put(ctx, servers.Store.S3(c.key), "releases", key)
}

// inCloud is the same for the cloud.
func (c credential) inCloud(ctx context.Context) error {
	return lab.Put(ctx, servers.Cloud.S3(c.key), "releases", "app/1.tgz")
}

// refused is true where a server answered and said no.
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

func allowed(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s is not allowed: %v", what, err)
	}
}

func denied(t *testing.T, what string, err error) {
	t.Helper()
	if !refused(err) {
		t.Errorf("%s is not refused: %v", what, err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, within time.Duration, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(shortestWait) {
		if holds() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

// goneSoon waits until the targets refuse the credentials.
func goneSoon(t *testing.T, use func(context.Context) error) {
	t.Helper()
	eventually(t, "the credential is dead", 20*time.Second, func() bool { return refused(use(t.Context())) })
}

// users lists the IAM users that the mount has made.
func (m *mount) users() []string {
	m.t.Helper()
	var own []string
	users, err := servers.Cloud.Users(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, user := range users {
		if m.grants[user.Tags["precision:grant"]] {
			own = append(own, user.Name)
		}
	}
	return own
}

// refusal is the text of a 400.
func refusal(t *testing.T, err error) string {
	t.Helper()
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		t.Fatalf("not an answer of Vault: %v", err)
	}
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d, want 400: %v", answer.StatusCode, answer.Errors)
	}
	return strings.Join(answer.Errors, "\n")
}
