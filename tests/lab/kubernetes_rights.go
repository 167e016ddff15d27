package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// The ways to give the engine its rights in a namespace, each a file of
// deploy/kubernetes.
const (
	// HeldRights let the engine grant what it may do itself, and no more.
	HeldRights = "namespace-held.yaml"
	// EscalateRights let it grant anything in the namespace, itself included.
	EscalateRights = "namespace-escalate.yaml"
)

// The engine's own account on Kubernetes, as deploy/kubernetes/engine.yaml makes it,
// and the namespace of the accounts that it mints.
const (
	EngineNamespace   = "vault"
	EngineAccount     = "precision-engine"
	AccountsNamespace = "precision"
)

// EngineRights gives the engine its account and, in each of the namespaces, its
// rights, as the documentation shows, and returns a token of the account.
func (k *Kubernetes) EngineRights(ctx context.Context, rights string, namespaces ...string) (string, error) {
	if err := k.Apply(ctx, "engine.yaml", ""); err != nil {
		return "", err
	}
	for _, namespace := range namespaces {
		if err := k.MakeNamespace(ctx, namespace); err != nil {
			return "", err
		}
		if err := k.Apply(ctx, rights, namespace); err != nil {
			return "", err
		}
	}
	return k.Token(ctx, EngineNamespace, EngineAccount, 24*time.Hour)
}

// Apply applies a file of deploy/kubernetes as the administrator. What it leaves
// without a namespace goes into the one that is given, as with kubectl.
func (k *Kubernetes) Apply(ctx context.Context, name, namespace string) error {
	root, err := Repository()
	if err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(root, "deploy", "kubernetes", name))
	if err != nil {
		return err
	}
	defer file.Close()
	groups, err := restmapper.GetAPIGroupResources(k.Discovery())
	if err != nil {
		return err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	client, err := dynamic.NewForConfig(k.Admin)
	if err != nil {
		return err
	}
	for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case len(object.Object) == 0: // a comment alone
			continue
		}
		if err := apply(ctx, client, mapper, object, namespace); err != nil {
			return fmt.Errorf("%s: %s %s: %w", name, object.GetKind(), object.GetName(), err)
		}
	}
}

func apply(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, object *unstructured.Unstructured, namespace string) error {
	kind := object.GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() == "" {
			object.SetNamespace(namespace)
		}
		resource = client.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	_, err = resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "lab", Force: true})
	return err
}
