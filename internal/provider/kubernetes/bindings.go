package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// everybody are the groups that every minted account is in.
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
func (c *cluster) everybody() []string {
	return []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + c.namespace}
}

// binding is a RoleBinding or a ClusterRoleBinding; that has no namespace.
type binding struct {
	Metadata meta.ObjectMeta
	Subjects []rbac.Subject
	RoleRef  rbac.RoleRef
}

func (b binding) String() string {
	if b.Metadata.Namespace == "" {
		return fmt.Sprintf("the ClusterRoleBinding %s to %s", b.Metadata.Name, b.subjects())
	}
	return fmt.Sprintf("the RoleBinding %s in %s to %s", b.Metadata.Name, b.Metadata.Namespace, b.subjects())
}

func (b binding) subjects() string {
	var names []string
	for _, subject := range b.Subjects {
		names = append(names, subject.Name)
	}
	return invalid.Clip(strings.Join(names, ", "))
}

const rbacAll = "/apis/rbac.authorization.k8s.io/v1/"

// notOurs selects what bears no grant's mark: one binding for each live grant would
// have to be read for each mint.
const notOurs = "!" + markGrant

// looks are looks at the bindings of all namespaces. Anybody may give a binding a
// grant's mark, so what bears one is looked at as well, if less often. There is one
// look under way at a time.
type looks struct {
	gathered[[]string]
	marked []string  // namespaces where something marked was bound to everybody
	until  time.Time // when what is marked is looked at again
}

// How long a look takes at most, and how often what bears a grant's mark is looked at.
const (
	lookLimit   = 10 * time.Second
	markedEvery = 10 * time.Second
)

// openNamespaces lists the namespaces where something is bound to everybody.
func (c *cluster) openNamespaces(ctx context.Context) ([]string, error) {
	return c.looks.ask(ctx, lookLimit, func(ctx context.Context) ([]string, error) {
		if time.Now().After(c.looks.until) {
			marked, err := c.namespacesWith(ctx, markGrant)
			if err != nil {
				return nil, err
			}
			c.looks.marked, c.looks.until = marked, time.Now().Add(markedEvery)
		}
		unmarked, err := c.namespacesWith(ctx, notOurs)
		return inOrder(append(unmarked, c.looks.marked...)), err
	})
}

// openNamespacesNow is the same, as it is now whatever bears which mark.
func (c *cluster) openNamespacesNow(ctx context.Context) ([]string, error) {
	return c.namespacesWith(ctx, "")
}

func (c *cluster) namespacesWith(ctx context.Context, selector string) ([]string, error) {
	given, err := c.toEverybody(ctx, "rolebindings", selector)
	var namespaces []string
	for _, one := range given {
		namespaces = append(namespaces, one.Metadata.Namespace)
	}
	return inOrder(namespaces), err
}

// toEverybody lists the bindings of a kind that every minted account comes under:
// rolebindings or clusterrolebindings. The list is what the API server has in memory,
// as old as what it decides by. A selector leaves some out.
func (c *cluster) toEverybody(ctx context.Context, resource, selector string) ([]binding, error) {
	all, err := c.listBindings(ctx, resource, selector)
	return slices.DeleteFunc(all, func(one binding) bool { return !c.bindsEverybody(one) }), err
}

// bindsEverybody says whether every minted account comes under a binding.
func (c *cluster) bindsEverybody(one binding) bool {
	everybody := c.everybody()
	return slices.ContainsFunc(one.Subjects, func(subject rbac.Subject) bool {
		return subject.Kind == rbac.GroupKind && slices.Contains(everybody, subject.Name)
	})
}

// listBindings lists all bindings of a kind.
func (c *cluster) listBindings(ctx context.Context, resource, selector string) ([]binding, error) {
	query := url.Values{"resourceVersion": {"0"}, "labelSelector": {selector}}
	// Both lists have the same form. ClusterRoleBindings have no namespace.
	var all rbac.RoleBindingList
	err := c.client.listBinary(ctx, rbacAll+resource, query, &all)
	found := make([]binding, len(all.Items))
	for i, one := range all.Items {
		found[i] = binding{Metadata: one.ObjectMeta, Subjects: one.Subjects, RoleRef: one.RoleRef}
	}
	return found, wrapped("listing "+resource, err)
}

// untolerated says which rights everybody has, and by what.
func (c *cluster) untolerated(ctx context.Context, found rights) error {
	texts := found.texts()
	where := "look for bindings to " + invalid.OneOf(c.everybody()) + ": kubectl get clusterrolebindings,rolebindings -A -o wide"
	if given, err := c.givers(ctx, found); err == nil && len(given) > 0 {
		where = "remove " + strings.Join(given, ", ")
	}
	return invalid.Hidden(provider.TolerateAmbient, "the cluster gives every service account what a credential would have besides its grant: "+strings.Join(texts, "; "),
		where+"; or tolerate it: "+provider.TolerateAmbient+"="+fmt.Sprintf("%q", texts[0]))
}

// givers names the bindings that give everybody some of the rights.
func (c *cluster) givers(ctx context.Context, of rights) ([]string, error) {
	var candidates []binding
	for _, resource := range []string{"clusterrolebindings", "rolebindings"} {
		some, err := c.toEverybody(ctx, resource, "")
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, some...)
	}
	var names []string
	for _, candidate := range candidates {
		rules, err := c.rulesOfRef(ctx, candidate)
		if err != nil {
			names = append(names, candidate.String()) // it may
			continue
		}
		if len(rightsGiven(candidate, rules, of)) > 0 {
			names = append(names, candidate.String())
		}
	}
	return names, nil
}

// rulesOfRef reads the rules of what a binding refers to.
func (c *cluster) rulesOfRef(ctx context.Context, of binding) ([]rbac.PolicyRule, error) {
	path := rbacAll + "clusterroles/" + of.RoleRef.Name
	if of.RoleRef.Kind == "Role" {
		path = rbacPath(of.Metadata.Namespace, "roles") + "/" + of.RoleRef.Name
	}
	var role struct {
		Rules []rbac.PolicyRule `json:"rules"`
	}
	return role.Rules, wrapped("reading a role", c.client.do(ctx, call{verb: http.MethodGet, path: path}, &role))
}

// rightsGiven are those of the rights that a binding's rules give. A binding of one
// namespace gives nothing in another.
func rightsGiven(from binding, rules []rbac.PolicyRule, of rights) rights {
	namespaces := map[string]bool{}
	for _, one := range of {
		_, namespace, _ := strings.Cut(one.of, " in ")
		namespaces[namespace] = true // empty for a path
	}
	var given rights
	for namespace := range namespaces {
		if from.Metadata.Namespace == "" || from.Metadata.Namespace == namespace {
			given = append(given, rightsIn(namespace, rules)...)
		}
	}
	if from.Metadata.Namespace != "" { // nor any path
		given = slices.DeleteFunc(given, func(one right) bool { return strings.HasPrefix(one.of, "/") || one.of == "*" })
	}
	return of.both(given)
}
