package kubernetes

import (
	"cmp"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Config fields, named as in Vault's own Kubernetes engine.
const (
	fieldHost         = "kubernetes_host"
	fieldCA           = "kubernetes_ca_cert"
	fieldToken        = "service_account_jwt"
	fieldDisableLocal = "disable_local_ca_jwt"
	fieldNamespace    = "namespace"

	defaultNamespace = "precision"
)

// pod is where a pod finds its cluster and its own account.
// https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
type pod struct {
	folder string
	env    func(string) string
}

func localPod() pod {
	return pod{folder: "/var/run/secrets/kubernetes.io/serviceaccount", env: os.Getenv}
}

// host is the API server's URL, empty outside of a cluster.
func (p pod) host() string {
	host := p.env("KUBERNETES_SERVICE_HOST")
	if host == "" {
		return ""
	}
	return "https://" + net.JoinHostPort(host, cmp.Or(p.env("KUBERNETES_SERVICE_PORT_HTTPS"), p.env("KUBERNETES_SERVICE_PORT"), "443"))
}

// connection is how a target is reached.
type connection struct {
	config    *rest.Config
	authority string
	namespace string
}

// connect reads a target's settings. The errors are *invalid.Error.
func connect(settings provider.Settings, local pod) (connection, error) {
	useLocal := !settings.True(fieldDisableLocal)
	host := settings.Text(fieldHost)
	if host == "" {
		host = local.host()
	}
	endpoint, err := provider.ParseEndpoint(fieldHost, host)
	if err != nil {
		return connection{}, err
	}
	made := connection{
		config:    &rest.Config{Host: endpoint.String(), BearerToken: strings.TrimSpace(settings.Text(fieldToken))},
		authority: settings.Text(fieldCA), namespace: cmp.Or(settings.Text(fieldNamespace), defaultNamespace),
	}
	if !isLabel(made.namespace) {
		return connection{}, invalid.Field(fieldNamespace, made.namespace, "not the name of a namespace", "write small letters, digits and \"-\"")
	}
	if made.authority == "" && useLocal {
		text, err := os.ReadFile(filepath.Join(local.folder, "ca.crt"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return connection{}, invalid.Hidden(fieldCA, "the pod's own certificates can't be read: "+err.Error(), "give it")
		}
		made.authority = string(text)
	}
	if made.authority != "" {
		if !x509.NewCertPool().AppendCertsFromPEM([]byte(made.authority)) {
			return connection{}, invalid.Hidden(fieldCA, "it holds no certificate", "give it in PEM: -----BEGIN CERTIFICATE-----…")
		}
		made.config.CAData = []byte(made.authority)
	}
	if made.config.BearerToken == "" {
		file := filepath.Join(local.folder, "token")
		if _, err := os.Stat(file); err != nil || !useLocal {
			return connection{}, invalid.Hidden(fieldToken, "missing", "give a token of the service account that the engine works as")
		}
		made.config.BearerTokenFile = file
	}
	return made, nil
}
