package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	authorization "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// discovered is a resource or a subresource that the server says it has.
type discovered struct {
	group, version, resource, subresource string
	namespaced                            bool
}

// String is how RBAC and kubectl name it.
func (d discovered) String() string {
	text := d.resource
	if d.group != "" {
		text += "." + d.group
	}
	if d.subresource != "" {
		text += "/" + d.subresource
	}
	return text
}

// discover asks the server for all that it has, in every group and version.
func discover(t *testing.T) []discovered {
	t.Helper()
	_, lists, err := servers.Kubernetes.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var all []discovered
	for _, list := range lists {
		group, version, found := strings.Cut(list.GroupVersion, "/")
		if !found {
			group, version = "", list.GroupVersion
		}
		for _, entry := range list.APIResources {
			resource, subresource, _ := strings.Cut(entry.Name, "/")
			all = append(all, discovered{group, version, resource, subresource, entry.Namespaced})
		}
	}
	if len(all) < 100 {
		t.Fatalf("the server has %d resources only", len(all))
	}
	return all
}

// verbs are those that the authorizer is asked about: of all requests, and those that
// stand for a power. https://kubernetes.io/docs/reference/access-authn-authz/authorization/
var verbs = []string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
	"bind", "escalate", "impersonate", "use", "*",
}

// right is one pair of a verb and a resource, in one namespace; of one object where
// it has a name.
type right struct {
	verb, resource, namespace, name string
}

// expectation says what is granted beyond the floor.
type expectation func(right) bool

// floor is what every account of a default server may do: ask about itself, and read
// the certificates that the cluster trusts.
func floor(r right) bool {
	if r.resource == "clustertrustbundles.certificates.k8s.io" {
		return slices.Contains([]string{"get", "list", "watch"}, r.verb)
	}
	return r.verb == "create" && slices.Contains([]string{
		"selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io", "selfsubjectreviews.authentication.k8s.io",
	}, r.resource)
}

// floorPaths are the paths beside the resources that every account may get.
// https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
var floorPaths = []string{
	"/healthz", "/livez", "/readyz", "/version", "/version/", "/api", "/api/v1", "/apis", "/apis/apps/v1",
	"/openapi", "/openapi/v2", "/openapi/v3", "/.well-known/openid-configuration", "/openid/v1/jwks", "/openid/v1/jwks/",
}

var otherPaths = []string{"/", "/metrics", "/metrics/slis", "/logs", "/logs/", "/debug/pprof/", "/debug/flags/v", "/configz", "/statusz", "/flagz", "/readyz/etcd", "/healthz/etcd", "/livez/etcd", "/proxy/"}

// review asks the server's authorizer about an account, as its token would be seen.
func review(ctx context.Context, account string, spec authorization.SubjectAccessReviewSpec) (bool, error) {
	spec.User = "system:serviceaccount:" + lab.AccountsNamespace + ":" + account
	spec.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + lab.AccountsNamespace, "system:authenticated"}
	answer, err := servers.Kubernetes.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorization.SubjectAccessReview{Spec: spec}, meta.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// each calls do for all items, some side by side.
func each[T any](t *testing.T, items []T, do func(T) error) {
	t.Helper()
	const callers = 8
	work, failures := make(chan T), make(chan error, callers)
	var callersDone sync.WaitGroup
	for range callers {
		callersDone.Go(func() {
			var failed []error
			for item := range work {
				if len(failed) < 20 {
					if err := do(item); err != nil {
						failed = append(failed, err)
					}
				}
			}
			failures <- errors.Join(failed...)
		})
	}
	for _, item := range items {
		work <- item
	}
	close(work)
	callersDone.Wait()
	for range callers {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
}

// judge asks the authorizer about every pair of a verb and a resource that the server
// has, in namespaces and, where one of them is empty, in all of them and outside, with
// names, and compares the answers with what is expected.
func judge(t *testing.T, account string, all []discovered, namespaces, names []string, granted expectation) (asked, allowed int) {
	t.Helper()
	type question struct {
		discovered
		right
	}
	var questions []question
	for _, one := range all {
		for _, namespace := range namespaces {
			if namespace != "" && !one.namespaced {
				continue
			}
			for _, name := range names {
				for _, verb := range verbs {
					questions = append(questions, question{one, right{verb, one.String(), namespace, name}})
				}
			}
		}
	}
	var mutex sync.Mutex
	each(t, questions, func(q question) error {
		yes, err := review(t.Context(), account, authorization.SubjectAccessReviewSpec{ResourceAttributes: &authorization.ResourceAttributes{
			Verb: q.verb, Group: q.group, Version: q.version, Resource: q.discovered.resource, Subresource: q.subresource, Namespace: q.namespace, Name: q.name,
		}})
		if err != nil {
			return err
		}
		mutex.Lock()
		defer mutex.Unlock()
		asked++
		if yes {
			allowed++
		}
		if want := granted(q.right) || floor(q.right); yes != want {
			return fmt.Errorf("%+v: allowed is %v, want %v", q.right, yes, want)
		}
		return nil
	})
	paths := map[string]bool{}
	for _, path := range floorPaths {
		paths[path] = true
	}
	for _, path := range otherPaths {
		paths[path] = false
	}
	each(t, slices.Sorted(maps.Keys(paths)), func(path string) error {
		for _, verb := range []string{"get", "post", "put", "delete"} {
			yes, err := review(t.Context(), account, authorization.SubjectAccessReviewSpec{NonResourceAttributes: &authorization.NonResourceAttributes{Path: path, Verb: verb}})
			if err != nil {
				return err
			}
			mutex.Lock()
			asked++
			mutex.Unlock()
			if want := paths[path] && verb == "get"; yes != want {
				return fmt.Errorf("%s %s: allowed is %v, want %v", verb, path, yes, want)
			}
		}
		return nil
	})
	return asked, allowed
}

// request is how a verb is asked of the server, so that nothing changes.
func request(client rest.Interface, d discovered, r right) *rest.Request {
	path := "/apis/" + d.group + "/" + d.version
	if d.group == "" {
		path = "/api/" + d.version
	}
	if r.namespace != "" {
		path += "/namespaces/" + r.namespace
	}
	path += "/" + d.resource
	name := r.name
	if name == "" {
		name = "absent"
	}
	one, dry := path+"/"+name, func(request *rest.Request) *rest.Request { return request.Param("dryRun", "All") }
	if d.subresource != "" {
		one += "/" + d.subresource
		path = one // there is no list of subresources
	}
	patch := func() *rest.Request {
		return dry(client.Verb(http.MethodPatch)).SetHeader("Content-Type", "application/merge-patch+json").Body([]byte("{}"))
	}
	switch r.verb {
	case "get":
		return client.Get().AbsPath(one)
	case "list":
		return client.Get().AbsPath(path)
	case "watch":
		return client.Get().AbsPath(path).Param("watch", "true").Param("timeoutSeconds", "1")
	case "create":
		return dry(client.Post()).AbsPath(path).Body([]byte("{}")).SetHeader("Content-Type", "application/json")
	case "update":
		return dry(client.Put()).AbsPath(one).Body([]byte("{}")).SetHeader("Content-Type", "application/json")
	case "patch":
		return patch().AbsPath(one)
	case "delete":
		return dry(client.Delete()).AbsPath(one)
	case "deletecollection":
		return dry(client.Delete()).AbsPath(path)
	default:
		return nil // is asked of nobody but the authorizer
	}
}

// try sends a real request for every pair that can be sent, as the account, and
// compares what the server forbids with what is expected.
func try(t *testing.T, secret string, all []discovered, namespaces []string, names []string, granted expectation) (sent, passed int) {
	t.Helper()
	config := servers.Kubernetes.As(secret)
	config.NegotiatedSerializer = serializer
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	type attempt struct {
		discovered
		right
	}
	var attempts []attempt
	for _, one := range all {
		where := []string{""}
		if one.namespaced {
			where = slices.Clone(namespaces)
			if one.subresource == "" {
				where = append(where, "")
			}
		}
		for _, namespace := range where {
			for _, name := range names {
				for _, verb := range verbs[:8] {
					listed := verb == "list" || verb == "watch" || verb == "deletecollection" || (verb == "create" && one.subresource == "")
					if listed && (name != names[0] || one.subresource != "") {
						continue // has no name, or there is no such request
					}
					if one.namespaced && namespace == "" && (!listed || verb == "create" || verb == "deletecollection") {
						continue // there is no such request
					}
					attempts = append(attempts, attempt{one, right{verb, one.String(), namespace, name}})
				}
			}
		}
	}
	var mutex sync.Mutex
	each(t, attempts, func(a attempt) error {
		err := request(client, a.discovered, a.right).Do(t.Context()).Error()
		if apierrors.IsUnauthorized(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) {
			return err
		}
		mutex.Lock()
		defer mutex.Unlock()
		sent++
		if !apierrors.IsForbidden(err) {
			passed++
		}
		asked := a.right
		if a.verb == "list" || a.verb == "watch" || a.verb == "deletecollection" || (a.verb == "create" && a.subresource == "") {
			asked.name = "" // the server judges it without one
		}
		if want := granted(asked) || floor(asked); want == apierrors.IsForbidden(err) {
			return fmt.Errorf("%+v: %v, want it allowed: %v", a.right, err, want)
		}
		return nil
	})
	return sent, passed
}
