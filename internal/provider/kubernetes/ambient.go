package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// canary keeps a token of an account that nothing is bound to: what it may do, every
// account of the engine's namespace may.
type canary struct {
	mu    sync.Mutex
	token string
	until time.Time // when a new one is asked for
}

// The canary's account, which all mounts share, and how long its token lives and is
// used.
const (
	canaryName = "precision-canary"
	canaryLife = time.Hour
	canaryUse  = canaryLife / 2
)

// canaryToken is a token of the canary's account, which is made where it is missing.
func (c *cluster) canaryToken(ctx context.Context) (string, error) {
	c.canary.mu.Lock()
	token, until := c.canary.token, c.canary.until
	c.canary.mu.Unlock()
	if time.Now().Before(until) {
		return token, nil
	}
	made, err := c.client.createToken(ctx, c.namespace, canaryName, nil, int64(canaryLife/time.Second))
	if apierrors.IsNotFound(err) {
		if err = c.makeCanary(ctx); err == nil {
			made, err = c.client.createToken(ctx, c.namespace, canaryName, nil, int64(canaryLife/time.Second))
		}
	}
	if err != nil {
		return "", err
	}
	c.canary.mu.Lock()
	c.canary.token, c.canary.until = made.Status.Token, time.Now().Add(canaryUse)
	c.canary.mu.Unlock()
	return made.Status.Token, nil
}

func (c *cluster) makeCanary(ctx context.Context) error {
	err := c.client.createAccount(ctx, core.ServiceAccount{ObjectMeta: meta.ObjectMeta{
		Name: canaryName, Namespace: c.namespace, Labels: map[string]string{managedBy: engineName},
		Annotations: map[string]string{markPrefix + "about": "asks what every account may do; bind nothing to it"},
	}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// forgetCanary drops a token that the API server takes no more.
func (c *cluster) forgetCanary(token string) {
	c.canary.mu.Lock()
	defer c.canary.mu.Unlock()
	if c.canary.token == token {
		c.canary.token, c.canary.until = "", time.Time{}
	}
}

// everybodys are the rights beyond the floor that every account has in a namespace,
// and what the API server says of rights that it can't list.
func (c *cluster) everybodys(ctx context.Context, namespace string) (found rights, unlisted string, err error) {
	const attempts = 2 // somebody may have deleted the account that the token is of
	for range attempts {
		var token string
		if token, err = c.canaryToken(ctx); err != nil {
			return nil, "", err
		}
		status, asked := c.client.rules(ctx, token, namespace)
		if err = asked; err == nil {
			if status.Incomplete {
				unlisted = status.EvaluationError
			}
			return rightsIn(namespace, rulesIn(status)).beyondFloor(), unlisted, nil
		}
		if !apierrors.IsUnauthorized(err) {
			break
		}
		c.forgetCanary(token)
	}
	return nil, "", err
}

// checkAmbient looks for what every account may do in the policy's namespace. It
// returns what of it is tolerated; anything else is an *invalid.Error.
func (c *cluster) checkAmbient(ctx context.Context, needed document) (rights, error) {
	tolerated, err := parseRights(needed.TolerateAmbient)
	if err != nil {
		return nil, err
	}
	found, _, err := c.everybodys(ctx, needed.Namespace)
	if err != nil {
		return nil, err
	}
	if rest := found.except(tolerated); len(rest) > 0 {
		return nil, c.untolerated(ctx, rest)
	}
	return found, nil
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

// everybody are the groups that every minted account is in.
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
func (c *cluster) everybody() []string {
	return []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + c.namespace}
}

// binding is a RoleBinding or a ClusterRoleBinding; that has no namespace.
type binding struct {
	Metadata meta.ObjectMeta `json:"metadata"`
	Subjects []rbac.Subject  `json:"subjects"`
	RoleRef  rbac.RoleRef    `json:"roleRef"`
}

func (b binding) String() string {
	kind := "ClusterRoleBinding"
	if b.Metadata.Namespace != "" {
		kind = "RoleBinding " + b.Metadata.Namespace + "/"
		return fmt.Sprintf("the %s%s to %s", kind, b.Metadata.Name, b.subjects())
	}
	return fmt.Sprintf("the %s %s to %s", kind, b.Metadata.Name, b.subjects())
}

func (b binding) subjects() string {
	var names []string
	for _, subject := range b.Subjects {
		names = append(names, subject.Name)
	}
	return invalid.Clip(strings.Join(names, ", "))
}

const rbacAll = "/apis/rbac.authorization.k8s.io/v1/"

// toEverybody lists the bindings that every minted account comes under.
func (c *cluster) toEverybody(ctx context.Context) ([]binding, error) {
	everybody := c.everybody()
	var found []binding
	for _, path := range []string{rbacAll + "clusterrolebindings", rbacAll + "rolebindings"} {
		err := list(ctx, c.client, path, "", func(page []binding) bool {
			for _, one := range page {
				if slices.ContainsFunc(one.Subjects, func(subject rbac.Subject) bool {
					return subject.Kind == rbac.GroupKind && slices.Contains(everybody, subject.Name) ||
						subject.Kind == rbac.ServiceAccountKind && subject.Name == canaryName && subject.Namespace == c.namespace
				}) {
					found = append(found, one)
				}
			}
			return true
		})
		if err != nil {
			return nil, wrapped("listing bindings", err)
		}
	}
	return found, nil
}

// givers names the bindings that give everybody some of the rights.
func (c *cluster) givers(ctx context.Context, of rights) ([]string, error) {
	candidates, err := c.toEverybody(ctx)
	if err != nil {
		return nil, err
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
	return role.Rules, wrapped("reading a role", c.client.do(ctx, call{verb: "GET", path: path}, &role))
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
	return of.both(given)
}
