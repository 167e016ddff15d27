package kubernetes

import (
	"strings"

	"sigs.k8s.io/yaml"

	clientcmd "k8s.io/client-go/tools/clientcmd/api/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// fields are the answer's, named as those of Vault's own Kubernetes engine.
func (c *cluster) fields(handle provider.Handle, token string) map[string]any {
	return map[string]any{
		"service_account_token":     token,
		"service_account_name":      handle[handleName],
		"service_account_namespace": handle[handleAccounts],
		"kubernetes_host":           c.host,
		"kubernetes_ca_cert":        c.authority,
		"kubeconfig":                c.kubeconfig(handle[handleNamespace], token),
	}
}

// kubeconfig is a file that kubectl takes as it is.
// https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
func (c *cluster) kubeconfig(namespace, token string) string {
	const name = "precision"
	text, err := yaml.Marshal(clientcmd.Config{
		APIVersion:     "v1",
		Kind:           "Config",
		Clusters:       []clientcmd.NamedCluster{{Name: name, Cluster: clientcmd.Cluster{Server: c.host, CertificateAuthorityData: []byte(strings.TrimSpace(c.authority))}}},
		AuthInfos:      []clientcmd.NamedAuthInfo{{Name: name, AuthInfo: clientcmd.AuthInfo{Token: token}}},
		Contexts:       []clientcmd.NamedContext{{Name: name, Context: clientcmd.Context{Cluster: name, AuthInfo: name, Namespace: namespace}}},
		CurrentContext: name,
	})
	if err != nil {
		panic(err) // texts can always be written
	}
	return string(text)
}
