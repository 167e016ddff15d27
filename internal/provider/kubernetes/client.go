package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// maxRetries is how often a call is made again that the API server asks to be made
// later; see https://kubernetes.io/docs/concepts/cluster-administration/flow-control/.
const maxRetries = 2

// client is what the engine asks of an API server. All its calls are bounded by their
// contexts; the errors are *apierrors.StatusError where the server says no.
type client struct{ rest rest.Interface }

func newClient(config *rest.Config) (*client, error) {
	// Only answers that say no are decoded by the library.
	known := runtime.NewScheme()
	meta.AddToGroupVersion(known, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	config.ContentType = runtime.ContentTypeJSON
	config.QPS = -1 // the server knows better how much it can take
	config.WarningHandler = rest.NoWarnings{}
	config.UserAgent = "vault-plugin-secrets-precision"
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	made, err := rest.UnversionedRESTClientForConfigAndClient(config, transport)
	if err != nil {
		return nil, err
	}
	return &client{rest: made}, nil
}

// call is one request. What is zero is left out.
type call struct {
	verb, path string
	query      url.Values
	accept     string
	token      string // of whoever asks, where that is not the engine
	// contentType is the body's; empty for JSON.
	contentType string
	body        any
}

// do makes a call and reads its answer into answer, where that is not nil.
func (c *client) do(ctx context.Context, made call, answer any) error {
	body, err := c.raw(ctx, made)
	if err != nil || answer == nil {
		return err
	}
	return unread(json.Unmarshal(body, answer))
}

// raw makes a call and returns its answer as it came.
func (c *client) raw(ctx context.Context, made call) ([]byte, error) {
	request := c.rest.Verb(made.verb).AbsPath(made.path).MaxRetries(maxRetries)
	for name, values := range made.query {
		for _, value := range values {
			request = request.Param(name, value)
		}
	}
	if made.accept != "" {
		request = request.SetHeader("Accept", made.accept)
	}
	if made.token != "" {
		request = request.SetHeader("Authorization", "Bearer "+made.token)
	}
	if made.body != nil {
		text, err := json.Marshal(made.body)
		if err != nil {
			return nil, err
		}
		request = request.SetHeader("Content-Type", cmp.Or(made.contentType, runtime.ContentTypeJSON)).Body(text)
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil { // which Raw would not read from the answer
		return nil, err
	}
	return result.Raw()
}

// binaryForm begins an answer in the API server's binary form.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
var binaryForm = []byte("k8s\x00")

// listBinary reads all objects at a path at once, in the API server's binary form: in a list
// of thousands, which a revocation waits for, reading JSON would take most of the time. The
// function list reads page by page.
func (c *client) listBinary(ctx context.Context, path string, query url.Values, into listOf) error {
	made := call{verb: http.MethodGet, path: path, query: query, accept: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON}
	body, err := c.raw(ctx, made)
	if err != nil {
		return err
	}
	encoded, binary := bytes.CutPrefix(body, binaryForm)
	if !binary {
		return unread(json.Unmarshal(body, into))
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(encoded); err != nil {
		return unread(err)
	}
	return unread(into.Unmarshal(envelope.Raw))
}

// listOf is a list of one of Kubernetes' own kinds.
type listOf interface{ Unmarshal(encoded []byte) error }

func unread(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the answer can't be read: %w", err)
}

// wrapped says in an error which call it was.
func wrapped(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kubernetes: %s: %w", what, err)
}

func accountsPath(namespace string) string {
	return "/api/v1/namespaces/" + namespace + "/serviceaccounts"
}

func rbacPath(namespace, resource string) string {
	return "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace + "/" + resource
}

func (c *client) createAccount(ctx context.Context, account core.ServiceAccount) error {
	account.TypeMeta = meta.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}
	return wrapped("creating the service account", c.do(ctx, call{verb: http.MethodPost, path: accountsPath(account.Namespace), body: account}, nil))
}

func (c *client) createBinding(ctx context.Context, binding rbac.RoleBinding) error {
	binding.TypeMeta = meta.TypeMeta{APIVersion: rbac.SchemeGroupVersion.String(), Kind: "RoleBinding"}
	return wrapped("creating the role binding", c.do(ctx, call{verb: http.MethodPost, path: rbacPath(binding.Namespace, "rolebindings"), body: binding}, nil))
}

// createToken asks for a token of an account that lives for some seconds.
func (c *client) createToken(ctx context.Context, namespace, account string, audiences []string, seconds int64) (authentication.TokenRequest, error) {
	answer := authentication.TokenRequest{}
	err := c.do(ctx, call{verb: http.MethodPost, path: accountsPath(namespace) + "/" + account + "/token", body: authentication.TokenRequest{
		TypeMeta: meta.TypeMeta{APIVersion: authentication.SchemeGroupVersion.String(), Kind: "TokenRequest"},
		Spec:     authentication.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &seconds},
	}}, &answer)
	if err == nil && answer.Status.Token == "" {
		err = errors.New("the answer holds no token")
	}
	return answer, wrapped("requesting a token", err)
}

// deleteObject deletes an object, and says what of it is gone: that it was not there
// is as good. An object that somebody holds on to with a finalizer is still there.
func (c *client) deleteObject(ctx context.Context, what, path string) error {
	now, background := int64(0), meta.DeletePropagationBackground
	answer := meta.PartialObjectMetadata{}
	err := c.do(ctx, call{verb: http.MethodDelete, path: path, body: meta.DeleteOptions{
		TypeMeta:           meta.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		GracePeriodSeconds: &now, PropagationPolicy: &background,
	}}, &answer)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err == nil && len(answer.Finalizers) > 0:
		err = &heldError{what: what, finalizers: answer.Finalizers}
	}
	return wrapped("deleting the "+what, err)
}

func (c *client) getRole(ctx context.Context, namespace, name string) (rbac.Role, error) {
	role := rbac.Role{}
	return role, wrapped("reading the role", c.do(ctx, call{verb: http.MethodGet, path: rbacPath(namespace, "roles") + "/" + name}, &role))
}

// putRole creates a role, or replaces one that has been read.
func (c *client) putRole(ctx context.Context, role rbac.Role) error {
	role.TypeMeta = meta.TypeMeta{APIVersion: rbac.SchemeGroupVersion.String(), Kind: "Role"}
	if role.ResourceVersion == "" {
		return wrapped("creating the role", c.do(ctx, call{verb: http.MethodPost, path: rbacPath(role.Namespace, "roles"), body: role}, nil))
	}
	return wrapped("changing the role", c.do(ctx, call{verb: http.MethodPut, path: rbacPath(role.Namespace, "roles") + "/" + role.Name, body: role}, nil))
}

// rules are the rights of whoever has a token, in a namespace.
func (c *client) rules(ctx context.Context, token, namespace string) (authorization.SubjectRulesReviewStatus, error) {
	answer := authorization.SelfSubjectRulesReview{}
	err := c.do(ctx, call{verb: http.MethodPost, path: "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", token: token, body: authorization.SelfSubjectRulesReview{
		TypeMeta: meta.TypeMeta{APIVersion: authorization.SchemeGroupVersion.String(), Kind: "SelfSubjectRulesReview"},
		Spec:     authorization.SelfSubjectRulesReviewSpec{Namespace: namespace},
	}}, &answer)
	return answer.Status, wrapped("asking what every account may do", err)
}

// may says whether whoever has a token may do something; the engine where the token
// is empty.
func (c *client) may(ctx context.Context, token string, something authorization.ResourceAttributes) (bool, error) {
	answer := authorization.SelfSubjectAccessReview{}
	err := c.do(ctx, call{verb: http.MethodPost, path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", token: token, body: authorization.SelfSubjectAccessReview{
		TypeMeta: meta.TypeMeta{APIVersion: authorization.SchemeGroupVersion.String(), Kind: "SelfSubjectAccessReview"},
		Spec:     authorization.SelfSubjectAccessReviewSpec{ResourceAttributes: &something},
	}}, &answer)
	return answer.Status.Allowed, wrapped("asking what an account may do", err)
}

// pageSize is how many objects are listed at once.
const pageSize = 500

// list calls each with the page's objects, until there are no more or each says no.
// The list is read in pages: what is made meanwhile may be missing.
func list[T any](ctx context.Context, c *client, path, selector string, each func([]T) bool) error {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if selector != "" {
		query.Set("labelSelector", selector)
	}
	for {
		var page struct {
			Metadata meta.ListMeta `json:"metadata"`
			Items    []T           `json:"items"`
		}
		if err := c.do(ctx, call{verb: http.MethodGet, path: path, query: query}, &page); err != nil {
			return err
		}
		if !each(page.Items) || page.Metadata.Continue == "" {
			return nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}
