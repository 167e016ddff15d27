package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The provider proves what the contract demands of all.
func TestProviderContract(t *testing.T) {
	const namespace = "conformance"
	ctx := t.Context()
	jwt := needEngine(t, namespace)
	faults := providertest.NewFaults(t, plainly(t))
	granted, err := scope.New("read", namespace+"/configmaps")
	if err != nil {
		t.Fatal(err)
	}
	providertest.Run(t, providertest.Subject{
		Provider: openProvider(t, provider.Settings{"kubernetes_host": faults.URL, "service_account_jwt": jwt, "disable_local_ca_jwt": true}),
		Faults:   faults,
		Scope:    granted,
		Use: func(ctx context.Context, fields map[string]any) error {
			return listConfigMaps(ctx, namespace, fields["service_account_token"].(string))
		},
		Refused: refused,
		Lag:     time.Second, // of the authorizer's view of bindings; some milliseconds, as measured
		Left: func(ctx context.Context, grantID string, swallowed [][]byte) ([]string, error) {
			return grantLeft(ctx, namespace, grantID, swallowed)
		},
		Installed: func(ctx context.Context, handle provider.Handle) ([]string, error) {
			role, err := servers.Kubernetes.RbacV1().Roles(handle["namespace"]).Get(ctx, handle["name"], meta.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil, nil
			}
			return []string{role.Name}, err
		},
		// KeepsTime is not: no token lives for less than ten minutes.
	})

	// Nothing of all the grants is left, and no Role.
	accounts, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).List(ctx, meta.ListOptions{LabelSelector: "precision/mount=11111111-2222-3333-4444-555555555555"})
	if err != nil {
		t.Fatal(err)
	}
	if len(accounts.Items) > 0 {
		t.Errorf("%d accounts are left, the first is %s", len(accounts.Items), accounts.Items[0].Name)
	}
}

// kubernetesType is the type of target as the engine knows it.
func kubernetesType() provider.Type {
	at := slices.IndexFunc(registry.Types(), func(kind provider.Type) bool { return kind.Name == "kubernetes" })
	return registry.Types()[at]
}

// openProvider opens a target as a verified config write does.
func openProvider(t *testing.T, settings provider.Settings) provider.Provider {
	t.Helper()
	kind := kubernetesType()
	opened, err := kind.Open(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	verification, err := opened.(provider.Verifier).Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if opened, err = kind.Open(settings, verification.Facts); err != nil {
		t.Fatal(err)
	}
	return opened
}

// plainly is the API server without TLS, for what looks into its calls.
func plainly(t *testing.T) string {
	t.Helper()
	upstream, err := url.Parse(servers.Kubernetes.Host)
	if err != nil {
		t.Fatal(err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM([]byte(servers.Kubernetes.CA)) {
		t.Fatal("the API server's authority is none")
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(request *httputil.ProxyRequest) { request.SetURL(upstream) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true},
	})
	t.Cleanup(server.Close)
	return server.URL
}

func listConfigMaps(ctx context.Context, namespace, token string) error {
	client, err := kubernetes.NewForConfig(servers.Kubernetes.As(token))
	if err != nil {
		return err
	}
	_, err = client.CoreV1().ConfigMaps(namespace).List(ctx, meta.ListOptions{})
	return err
}

// grantLeft finds a grant's account and binding, and tokens that the provider never
// got and that work.
func grantLeft(ctx context.Context, namespace, grantID string, swallowed [][]byte) (left []string, err error) {
	mark := meta.ListOptions{LabelSelector: "precision/grant=" + grantID}
	accounts, err := servers.Kubernetes.CoreV1().ServiceAccounts(lab.AccountsNamespace).List(ctx, mark)
	if err != nil {
		return nil, err
	}
	for _, account := range accounts.Items {
		left = append(left, "account "+account.Name)
	}
	bindings, err := servers.Kubernetes.RbacV1().RoleBindings(namespace).List(ctx, mark)
	if err != nil {
		return nil, err
	}
	for _, binding := range bindings.Items {
		left = append(left, "binding "+binding.Name)
	}
	for i, body := range swallowed {
		var answer authentication.TokenRequest
		if json.Unmarshal(body, &answer) != nil || answer.Status.Token == "" {
			continue // the answer to another call
		}
		if !refused(listConfigMaps(ctx, namespace, answer.Status.Token)) {
			left = append(left, fmt.Sprintf("token %d", i))
		}
	}
	return left, nil
}
