package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	stdbase64 "encoding/base64"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

func base64(text string) string { return stdbase64.StdEncoding.EncodeToString([]byte(text)) }

// standIn does what the documentation asks of kubectl, with the library that kubectl is
// made of: for machines that have none.
type standIn struct {
	client    dynamic.Interface
	typed     *kubernetes.Clientset
	namespace string
}

func runStandIn(arguments []string) int {
	if err := kubectl(context.Background(), arguments); err != nil {
		fmt.Fprintln(os.Stderr, "Error from server:", err)
		return 1
	}
	return 0
}

func kubectl(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("kubectl", flag.ContinueOnError)
	config, file := flags.String("kubeconfig", os.Getenv("KUBECONFIG"), ""), flags.String("f", "", "")
	namespace, patch := flags.String("n", "", ""), flags.String("p", "", "")
	life := flags.Duration("duration", time.Hour, "")
	flags.Bool("server-side", false, "")
	var words []string // flags may stand between them
	for rest := arguments; len(rest) > 0; {
		if err := flags.Parse(rest); err != nil {
			return err
		}
		if rest = flags.Args(); len(rest) > 0 {
			words, rest = append(words, rest[0]), rest[1:]
		}
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: *config}, &clientcmd.ConfigOverrides{})
	settings, err := loaded.ClientConfig()
	if err != nil {
		return err
	}
	k := standIn{namespace: *namespace}
	if k.namespace == "" {
		if k.namespace, _, err = loaded.Namespace(); err != nil {
			return err
		}
	}
	if k.typed, err = kubernetes.NewForConfig(settings); err != nil {
		return err
	}
	if k.client, err = dynamic.NewForConfig(settings); err != nil {
		return err
	}
	groups, err := restmapper.GetAPIGroupResources(k.typed.Discovery())
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	named := func(name string) (schema.GroupVersionResource, error) {
		return mapper.ResourceFor(schema.GroupVersionResource{Resource: name})
	}
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case command == "apply":
		return k.apply(ctx, *file, func(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
			kind := object.GroupVersionKind()
			mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
			if err != nil {
				return nil, err
			}
			if mapping.Scope.Name() != "namespace" {
				return k.client.Resource(mapping.Resource), nil
			}
			where := object.GetNamespace()
			if where == "" {
				where = k.namespace
			}
			return k.client.Resource(mapping.Resource).Namespace(where), nil
		})
	case command == "create token":
		seconds := int64(*life / time.Second)
		made, err := k.typed.CoreV1().ServiceAccounts(k.namespace).CreateToken(ctx, words[2], &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: &seconds}}, meta.CreateOptions{})
		if err == nil {
			fmt.Println(made.Status.Token)
		}
		return err
	case command == "create serviceaccount":
		_, err := k.typed.CoreV1().ServiceAccounts(k.namespace).Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: words[2]}}, meta.CreateOptions{})
		return err
	case len(words) == 2 && words[0] == "get":
		of, err := named(words[1])
		if err != nil {
			return err
		}
		_, err = k.client.Resource(of).Namespace(k.namespace).List(ctx, meta.ListOptions{})
		return err
	case len(words) == 3 && (words[0] == "delete" || words[0] == "patch"), len(words) == 4 && command == "rollout restart":
		of, err := named(words[len(words)-2])
		if err != nil {
			return err
		}
		return k.change(ctx, words[0], of, words[len(words)-1], *patch)
	default:
		return fmt.Errorf("the stand-in for kubectl has no %q", command)
	}
}

// change is what kubectl does to one object.
func (k standIn) change(ctx context.Context, how string, of schema.GroupVersionResource, name, patch string) error {
	there := k.client.Resource(of).Namespace(k.namespace)
	if how == "delete" {
		return there.Delete(ctx, name, meta.DeleteOptions{})
	}
	if how == "rollout" {
		text, err := json.Marshal(annotated(fields{restartedAt: time.Now().UTC().Format(time.RFC3339)}))
		if err != nil {
			return err
		}
		patch = string(text)
	}
	if _, err := there.Get(ctx, name, meta.GetOptions{}); err != nil { // as kubectl does first
		return err
	}
	_, err := there.Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), meta.PatchOptions{})
	return err
}

func (k standIn) apply(ctx context.Context, path string, at func(*unstructured.Unstructured) (dynamic.ResourceInterface, error)) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(object.Object) == 0:
			continue
		}
		where, err := at(object)
		if err != nil {
			return err
		}
		if _, err := where.Apply(ctx, object.GetName(), object, meta.ApplyOptions{FieldManager: "kubectl", Force: true}); err != nil {
			return err
		}
	}
}
