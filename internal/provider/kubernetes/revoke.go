package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// authenticationCache is how long an API server may take a token whose account is gone:
// it keeps successful authentications for 10 s, and hears of the deletion a moment later.
const authenticationCache = 11 * time.Second

// Kinds of what a grant has at the cluster, for messages.
const (
	bindingKind = "role binding"
	accountKind = "service account"
)

// heldError is an object that was deleted and is still there, since somebody keeps it with
// finalizers.
type heldError struct {
	what       string
	finalizers []string
}

func (e *heldError) Error() string {
	return fmt.Sprintf("the %s is still there until its finalizers are removed: %q", e.what, e.finalizers)
}

// place is where a grant's binding and account are, and what everybody may do there that
// the grant's role tolerates.
type place struct {
	name, accounts, namespace string
	tolerated                 rights
}

func placeOf(handle provider.Handle) (place, error) {
	found := place{name: handle[handleName], accounts: handle[handleAccounts], namespace: handle[handleNamespace]}
	if found.name == "" || found.accounts == "" || found.namespace == "" {
		return place{}, errors.New("kubernetes: deleting the role binding: the handle names none")
	}
	if text := handle[handleTolerated]; text != "" {
		found.tolerated, _ = parseRights(strings.Split(text, "\n")) // what can't be read is not tolerated
	}
	return found, nil
}

func (p place) bindingPath() string { return rbacPath(p.namespace, "rolebindings") + "/" + p.name }

func (p place) accountPath() string { return accountsPath(p.accounts) + "/" + p.name }

// Revoke implements provider.Provider.
func (c *cluster) Revoke(ctx context.Context, handle provider.Handle) error {
	left, err := c.Kill(ctx, handle)
	if err != nil || !left {
		return err
	}
	return c.Tidy(ctx, handle)
}

// Kill implements provider.Killer. It deletes the binding and the account concurrently:
// without its binding an account may do nothing at once. A binding that is kept loses its
// subject. Bindings that others have made for the account end too. Where something still
// gives the account rights, Kill waits until the API server no longer takes its token.
func (c *cluster) Kill(ctx context.Context, handle provider.Handle) (left bool, err error) {
	at, err := placeOf(handle)
	if err != nil {
		return false, err
	}
	var unbound, deleted, asked error
	var others bindings
	_ = sideBySide(
		func() error { unbound = c.client.deleteObject(ctx, bindingKind, at.bindingPath()); return nil },
		func() error { deleted = c.client.deleteObject(ctx, accountKind, at.accountPath()); return nil },
		func() error { others, asked = c.bindingsNow(ctx); return nil },
	)
	untaken := time.Now().Add(authenticationCache) // when the API server has stopped taking a deleted account's token
	if asked != nil && !forbidden(asked) {
		return false, errors.Join(asked, unbound, deleted)
	}
	cut := asked == nil // whether nothing gives the account rights
	var kept *heldError
	switch {
	case unbound == nil:
	case errors.As(unbound, &kept):
		left = true
		cut = c.dropSubject(ctx, at.bindingPath(), nil, "") == nil && cut
	case forbidden(unbound): // somebody has taken the engine's right to delete it
		left, cut = true, false
	default:
		return false, errors.Join(unbound, deleted)
	}
	cut = c.cutOthers(ctx, others, at, untaken) && cut
	if errors.As(deleted, &kept) && cut {
		return true, nil
	}
	if deleted != nil {
		return false, errors.Join(unbound, deleted)
	}
	if cut {
		return left, nil
	}
	circuit.Idle(ctx) // however many revokes wait, they keep no mint from the API server
	select {
	case <-time.After(time.Until(untaken)):
		return left, nil
	case <-ctx.Done():
		return false, errors.Join(fmt.Errorf("kubernetes: waiting until the token of the deleted account is not taken any longer: %w", ctx.Err()), unbound)
	}
}

// cutAtOnce is how many of others' bindings a revoke changes at once.
const cutAtOnce = 16

// cutOthers takes a grant's account out of all bindings that others have made for it, and
// says whether nothing gives it rights. It stops when the API server no longer takes the
// account's token: however many bindings somebody makes, a revoke takes no longer.
func (c *cluster) cutOthers(ctx context.Context, others bindings, at place, untaken time.Time) bool {
	limited, cancel := context.WithDeadline(ctx, untaken)
	defer cancel()
	cut := true
	for some := range slices.Chunk(others.of[at.name], cutAtOnce) {
		var work []func() error
		for _, other := range some {
			if other.Metadata.Name != at.name || other.Metadata.Namespace != at.namespace { // not the grant's own
				work = append(work, func() error { return c.cutOff(limited, other, at) })
			}
		}
		cut = sideBySide(work...) == nil && cut
	}
	if !slices.Contains(others.open, at.namespace) {
		return cut
	}
	// Somebody has bound a group there that the account is in.
	found, _, err := c.everybodys(limited, at.namespace)
	return cut && err == nil && len(found.except(at.tolerated.within(at.namespace))) == 0
}

// Tidy implements provider.Killer.
func (c *cluster) Tidy(ctx context.Context, handle provider.Handle) error {
	at, err := placeOf(handle)
	if err != nil {
		return err
	}
	return sideBySide(
		func() error {
			return blocked(c.client.deleteObject(ctx, bindingKind, at.bindingPath()), "rolebinding", at.namespace, at.name)
		},
		func() error {
			return blocked(c.client.deleteObject(ctx, accountKind, at.accountPath()), "serviceaccount", at.accounts, at.name)
		},
	)
}

// blocked says what an operator can run where an object is kept.
func blocked(err error, resource, namespace, name string) error {
	var kept *heldError
	object := fmt.Sprintf("%s %s -n %s", resource, name, namespace)
	switch {
	case errors.As(err, &kept):
		return &provider.CleanupBlocked{
			Reason: fmt.Sprintf("somebody keeps the %s %s in the namespace %s with the finalizers %q", kept.what, name, namespace, kept.finalizers),
			Remedy: "kubectl patch " + object + ` --type=merge -p '{"metadata":{"finalizers":null}}'`,
		}
	case forbidden(err):
		return &provider.CleanupBlocked{
			Reason: fmt.Sprintf("the engine may not delete the %s %s in the namespace %s: %s", resource, name, namespace, saysNo(err)),
			Remedy: "kubectl delete " + object + ", or give the engine the rights that the documentation lists",
		}
	default:
		return err
	}
}

// bindings are those that concern minted accounts.
type bindings struct {
	of   map[string][]binding // by the account that they bind
	open []string             // namespaces where a RoleBinding binds a group that every account is in
}

// bindingsNow lists the bindings that concern minted accounts. Who may make bindings in a
// namespace can make one for any account. There is one list under way at a time, which all
// revokes share.
func (c *cluster) bindingsNow(ctx context.Context) (bindings, error) {
	return c.bound.ask(ctx, lookLimit, func(ctx context.Context) (bindings, error) {
		found := bindings{of: map[string][]binding{}}
		for _, resource := range []string{"rolebindings", "clusterrolebindings"} {
			some, err := c.listBindings(ctx, resource, "")
			if err != nil {
				return bindings{}, err
			}
			for _, one := range some {
				for _, name := range c.accountsOf(one) {
					found.of[name] = append(found.of[name], one)
				}
				if one.Metadata.Namespace != "" && c.bindsEverybody(one) {
					found.open = append(found.open, one.Metadata.Namespace)
				}
			}
		}
		return found, nil
	})
}

// accountsOf are the names of the minted accounts that a binding binds, each once.
func (c *cluster) accountsOf(one binding) []string {
	var names []string
	for _, subject := range one.Subjects {
		if name, is := c.accountOf(subject); is {
			names = append(names, name)
		}
	}
	return inOrder(names)
}

// accountOf is the name of the minted account that a subject is. RBAC takes an account's
// user name for the account.
func (c *cluster) accountOf(subject rbac.Subject) (name string, is bool) {
	switch subject.Kind {
	case rbac.ServiceAccountKind:
		return subject.Name, subject.Namespace == c.namespace
	case rbac.UserKind:
		return strings.CutPrefix(subject.Name, "system:serviceaccount:"+c.namespace+":")
	default:
		return "", false
	}
}

// cutOff takes a minted account out of a binding that somebody else has made. A binding of
// nothing else is deleted: no account of the engine's namespace is anybody else's to bind.
func (c *cluster) cutOff(ctx context.Context, from binding, at place) error {
	path := rbacAll + "clusterrolebindings/" + from.Metadata.Name
	if from.Metadata.Namespace != "" {
		path = rbacPath(from.Metadata.Namespace, "rolebindings") + "/" + from.Metadata.Name
	}
	rest := slices.DeleteFunc(slices.Clone(from.Subjects), func(subject rbac.Subject) bool {
		name, is := c.accountOf(subject)
		return is && name == at.name
	})
	version := from.Metadata.ResourceVersion
	if len(rest) == 0 {
		err := c.client.deleteObject(ctx, bindingKind, path)
		if err == nil {
			return nil
		}
		if kept := (*heldError)(nil); errors.As(err, &kept) {
			version = "" // it is being deleted, which has changed its version
		}
	}
	return c.dropSubject(ctx, path, rest, version)
}

// dropSubject leaves the subjects of a binding that are given, none for nil, unless it has
// changed since the version that is given. What is gone needs nothing.
func (c *cluster) dropSubject(ctx context.Context, path string, rest []rbac.Subject, version string) error {
	change := map[string]any{"subjects": rest}
	if version != "" {
		change["metadata"] = meta.ObjectMeta{ResourceVersion: version}
	}
	err := c.client.do(ctx, call{verb: http.MethodPatch, path: path, contentType: string(types.MergePatchType), body: change}, nil)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return wrapped("taking the account out of the role binding", err)
}
