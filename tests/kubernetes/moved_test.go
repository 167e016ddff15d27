package kubernetes

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// double is what looks like another cluster: the same API server, whose kube-system has
// another UID.
type double struct {
	url string

	mu      sync.Mutex
	deleted []string // paths of what was to be deleted
}

func newDouble(t *testing.T) *double {
	t.Helper()
	upstream, err := url.Parse(servers.Kubernetes.Host)
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := servers.Kubernetes.CoreV1().Namespaces().Get(t.Context(), "kube-system", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own, other := []byte(namespace.UID), []byte("00000000-1111-2222-3333-444444444444")
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM([]byte(servers.Kubernetes.CA)) {
		t.Fatal("the API server's authority is none")
	}
	d := &double{}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(upstream)
			if request.In.Method == http.MethodDelete {
				d.mu.Lock()
				d.deleted = append(d.deleted, request.In.URL.Path)
				d.mu.Unlock()
			}
		},
		ModifyResponse: func(response *http.Response) error {
			if response.Request.URL.Path != "/api/v1/namespaces/kube-system" {
				return nil
			}
			body, err := io.ReadAll(response.Body)
			if err != nil {
				return err
			}
			body = bytes.ReplaceAll(body, own, other)
			response.Body = io.NopCloser(bytes.NewReader(body))
			response.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}, DisableCompression: true},
	})
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

// A target is pointed to another cluster under live grants by force only, which closes
// them as lost and says what is left; without live grants it just moves.
func TestClustersThatMove(t *testing.T) {
	const namespace = "moved"
	ctx := t.Context()
	jwt := needEngine(t, namespace)
	m := newMountWith(t, jwt)
	m.role("read", "read", namespace+"/configmaps")
	other := newDouble(t)
	before, after := config(jwt), with(config(jwt), fields{"kubernetes_host": other.url})
	revoke := func(minted credential) {
		t.Helper()
		if err := m.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: minted.LeaseID, Sync: true}); err != nil {
			t.Errorf("a lease can't be revoked: %v", err)
		}
	}
	minted := m.mint("read/CHG-1")

	m.refuses("config/"+target, after, "live grants on it: 1", "force=true closes them as lost")
	if _, err := minted.client(t).CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Errorf("a move that was refused has ended a grant: %v", err)
	}
	moved := m.write("config/"+target, with(after, fields{"force": true}))
	told := strings.Join(moved.Warnings, "\n")
	for _, text := range []string{"grant " + minted.text("grant_id") + " is lost", minted.account, "for you to remove", namespace} {
		if !strings.Contains(told, text) {
			t.Errorf("the answer does not say %q: %s", text, told)
		}
	}
	if strings.Contains(told, jwt) || strings.Contains(told, minted.token) {
		t.Error("the answer shows a token")
	}
	if state := m.read("grants/" + minted.text("grant_id")).Data["state"]; state != "lost" {
		t.Errorf("the ledger says %v", state)
	}
	// Its lease lapses in peace, and on the other cluster nothing of that name is touched.
	revoke(minted)
	m.write("tidy", nil)
	if _, err := minted.client(t).CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Errorf("the credential on the cluster that was left: %v", err)
	}
	other.mu.Lock()
	for _, path := range other.deleted {
		if strings.HasSuffix(path, "/"+minted.account) {
			t.Errorf("the other cluster was to delete %s", path)
		}
	}
	other.mu.Unlock()
	// What a person has to clean up is what was said.
	for _, err := range []error{
		servers.Kubernetes.RbacV1().RoleBindings(namespace).Delete(ctx, minted.account, meta.DeleteOptions{}),
		servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).Delete(ctx, minted.account, meta.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}

	m.write("config/"+target, before) // back, without live grants
	again := m.mint("read/CHG-2")
	if _, err := again.client(t).CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{}); err != nil {
		t.Errorf("a credential of the target that is back: %v", err)
	}
	// Another way to the same cluster is no move.
	m.write("config/"+target, with(before, fields{"kubernetes_host": plainly(t)}))
	revoke(again)
	m.nothingLeft(again, namespace)
	m.write("config/"+target, before)
	figures.Log(t, "1 move refused, 1 forced with 1 grant lost, 3 without live grants or to the same cluster")
}
