package kubernetes

import (
	"context"
	"slices"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// needEngine gives the engine its account and its rights in namespaces, as the
// documentation shows, and returns the account's token.
func needEngine(t *testing.T, namespaces ...string) string {
	t.Helper()
	jwt, err := servers.Kubernetes.EngineRights(t.Context(), lab.HeldRights, namespaces...)
	if err != nil {
		t.Fatal(err)
	}
	return jwt
}

func makeAccount(t *testing.T, namespace, name string) {
	t.Helper()
	accounts := servers.Kubernetes.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(t.Context(), &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: name}}, meta.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

func account(namespace, name string) rbac.Subject {
	return rbac.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: name}
}

func group(name string) rbac.Subject {
	return rbac.Subject{APIGroup: rbac.GroupName, Kind: "Group", Name: name}
}

// bind binds a role in a namespace until the test ends.
func bind(t *testing.T, namespace, kind, role string, subjects ...rbac.Subject) *rbac.RoleBinding {
	t.Helper()
	bindings := servers.Kubernetes.RbacV1().RoleBindings(namespace)
	made, err := bindings.Create(t.Context(), &rbac.RoleBinding{
		ObjectMeta: meta.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: kind, Name: role},
		Subjects:   slices.Clone(subjects),
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(context.Background(), made.Name, meta.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return made
}

func token(t *testing.T, namespace, name string) string {
	t.Helper()
	text, err := servers.Kubernetes.Token(t.Context(), namespace, name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func dynamicAs(t *testing.T, token string) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(servers.Kubernetes.As(token))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// tokenReview asks the server whether a token is for an audience.
func tokenReview(t *testing.T, token, audience string) bool {
	t.Helper()
	answer, err := servers.Kubernetes.AuthenticationV1().TokenReviews().Create(t.Context(), &authentication.TokenReview{
		Spec: authentication.TokenReviewSpec{Token: token, Audiences: []string{audience}},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Authenticated
}
