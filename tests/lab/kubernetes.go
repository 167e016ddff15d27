package lab

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// KubernetesVersion is the environment variable that chooses the Kubernetes that is
// started, as a module of tests/tools has it: 1.34 or 1.37.
const KubernetesVersion = "PRECISION_KUBERNETES"

const defaultKubernetes = "1.37"

// kubernetesTool finds a program of the chosen Kubernetes.
func kubernetesTool(name string) (string, error) {
	return tool(filepath.Join("kubernetes-"+cmp.Or(os.Getenv(KubernetesVersion), defaultKubernetes), name))
}

// Kubernetes is a real API server with its etcd, RBAC and admission. There is no
// controller but those of StartControllers, and no node: no container runs.
type Kubernetes struct {
	Host                 string       // the API server's URL
	CA                   string       // PEM of what its certificate is signed by
	Admin                *rest.Config // of the administrator, without a limit of its own
	kubernetes.Interface              // as the administrator

	server *process
	start  func(more ...string) (*process, error)
	run    func(name, binary string, environment []string, arguments ...string) (*process, error)
	folder string
}

// administrator is a token that the server takes for the group that may do all.
const administrator = "lab-administrator-token"

func (l *Lab) startKubernetes(ctx context.Context) error {
	folder := filepath.Join(l.Folder, "kubernetes")
	if err := makeFolder(folder); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if err := l.startEtcd(ctx, folder, etcd, fmt.Sprintf("http://127.0.0.1:%d", ports[1])); err != nil {
		return err
	}
	binary, err := kubernetesTool("kube-apiserver")
	if err != nil {
		return err
	}
	key, tokens := filepath.Join(folder, "service-accounts.key"), filepath.Join(folder, "tokens.csv")
	if err := writeKey(key); err != nil {
		return err
	}
	if err := os.WriteFile(tokens, []byte(administrator+",administrator,administrator,system:masters\n"), 0o600); err != nil {
		return err
	}
	cluster := &Kubernetes{Host: fmt.Sprintf("https://127.0.0.1:%d", ports[2]), run: l.run, folder: folder}
	certificates := filepath.Join(folder, "certificates")
	cluster.start = func(more ...string) (*process, error) {
		return l.run("kube-apiserver", binary, nil, append([]string{
			"--etcd-servers=" + etcd,
			"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[2]),
			"--cert-dir=" + certificates,
			"--authorization-mode=RBAC",
			"--token-auth-file=" + tokens,
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
			"--service-cluster-ip-range=10.0.0.0/24",
			"--endpoint-reconciler-type=none", // which takes no loopback address
			"--allow-privileged=true",         // as every cluster does: what stops a privileged pod is admission
			"--profiling=false",
		}, more...)...)
	}
	server, err := cluster.start()
	if err != nil {
		return err
	}
	cluster.server = server
	if err := cluster.ready(ctx, filepath.Join(certificates, "apiserver.crt")); err != nil {
		return err
	}
	l.Kubernetes = cluster
	return nil
}

func (l *Lab) startEtcd(ctx context.Context, folder, client, peer string) error {
	binary, err := tool("etcd")
	if err != nil {
		return err
	}
	server, err := l.run("etcd", binary, nil,
		"--data-dir="+filepath.Join(folder, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	if err != nil {
		return err
	}
	return server.ready(ctx, client+"/health")
}

// writeKey makes the key that service accounts' tokens are signed with.
func writeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// ready waits for the server, which makes its certificate first, and with it the
// roles that every cluster has.
func (k *Kubernetes) ready(ctx context.Context, certificate string) error {
	return k.server.until(ctx, func(ctx context.Context) bool {
		if k.Interface == nil {
			authority, err := os.ReadFile(certificate)
			if err != nil {
				return false
			}
			admin := k.As(administrator)
			admin.CAData, k.CA = authority, string(authority)
			brief := rest.CopyConfig(admin)
			brief.ContentType = runtime.ContentTypeProtobuf // tests ask a great deal
			client, err := kubernetes.NewForConfig(brief)
			if err != nil {
				return false // half written
			}
			k.Admin, k.Interface = admin, client
		}
		var status int
		k.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&status)
		return status == http.StatusOK
	})
}

// Stop stops the API server; Restart starts it again, with what etcd has.
func (k *Kubernetes) Stop() { k.server.stop() }

// Restart stops the API server, if it runs, and starts it again, with further arguments.
func (k *Kubernetes) Restart(ctx context.Context, more ...string) error {
	k.server.stop()
	server, err := k.start(more...)
	if err != nil {
		return err
	}
	k.server = server
	return k.ready(ctx, "")
}

// As is how a client reaches the server with a token.
func (k *Kubernetes) As(token string) *rest.Config {
	return &rest.Config{Host: k.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: []byte(k.CA)}, QPS: -1, WarningHandler: rest.NoWarnings{}}
}

// MakeNamespace makes a namespace with the account that its pods run as, which a
// controller would make.
func (k *Kubernetes) MakeNamespace(ctx context.Context, name string) error {
	if _, err := k.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name}}, meta.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err := k.CoreV1().ServiceAccounts(name).Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "default", Namespace: name}}, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// Token is a token of a service account.
func (k *Kubernetes) Token(ctx context.Context, namespace, account string, life time.Duration) (string, error) {
	seconds := int64(life / time.Second)
	made, err := k.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: &seconds}}, meta.CreateOptions{})
	if err != nil {
		return "", err
	}
	return made.Status.Token, nil
}

// StartControllers starts the controller manager with some of its controllers, and returns
// what stops it.
func (k *Kubernetes) StartControllers(controllers ...string) (stop func(), err error) {
	binary, err := kubernetesTool("kube-controller-manager")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(k.folder, "controllers.kubeconfig")
	if err := os.WriteFile(config, []byte(k.Kubeconfig(k.Admin.BearerToken, "default")), 0o600); err != nil {
		return nil, err
	}
	manager, err := k.run("kube-controller-manager", binary, nil,
		"--kubeconfig="+config, "--controllers="+strings.Join(controllers, ","), "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file="+filepath.Join(k.folder, "service-accounts.key"))
	if err != nil {
		return nil, err
	}
	return manager.stop, nil
}

// Kubeconfig is a client's configuration with a token.
func (k *Kubernetes) Kubeconfig(token, namespace string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"lab",
"clusters":[{"name":"lab","cluster":{"server":%q,"certificate-authority-data":%q}}],
"users":[{"name":"lab","user":{"token":%q}}],"contexts":[{"name":"lab","context":{"cluster":"lab","user":"lab","namespace":%q}}]}`,
		k.Host, base64.StdEncoding.EncodeToString([]byte(k.CA)), token, namespace)
}

// Kubectl is the path of kubectl.
func (k *Kubernetes) Kubectl() (string, error) { return kubernetesTool("kubectl") }

// Helm is the path of helm.
func (k *Kubernetes) Helm() (string, error) { return tool("helm") }
