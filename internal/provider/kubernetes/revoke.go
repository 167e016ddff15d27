package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

// place is where a grant's binding and account are.
type place struct{ name, accounts, namespace string }

func placeOf(handle provider.Handle) (place, error) {
	found := place{name: handle[handleName], accounts: handle[handleAccounts], namespace: handle[handleNamespace]}
	if found.name == "" || found.accounts == "" || found.namespace == "" {
		return place{}, errors.New("kubernetes: deleting the role binding: the handle names none")
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
// subject. Where even that is refused, Kill waits until the API server no longer takes the
// token of the deleted account. Bindings that others have made for the account end too.
func (c *cluster) Kill(ctx context.Context, handle provider.Handle) (left bool, err error) {
	at, err := placeOf(handle)
	if err != nil {
		return false, err
	}
	var unbound, deleted, asked error
	var others []binding
	_ = sideBySide(
		func() error { unbound = c.client.deleteObject(ctx, bindingKind, at.bindingPath()); return nil },
		func() error { deleted = c.client.deleteObject(ctx, accountKind, at.accountPath()); return nil },
		func() error { others, asked = c.bindingsOf(ctx, at); return nil },
	)
	if asked != nil && !forbidden(asked) {
		return false, errors.Join(asked, unbound, deleted)
	}
	cut := true // whether nothing gives the account rights
	for _, other := range others {
		cut = c.cutOff(ctx, other, at) == nil && cut
	}
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
	if errors.As(deleted, &kept) && cut {
		return true, nil
	}
	if deleted != nil {
		return false, errors.Join(unbound, deleted)
	}
	if cut {
		return left, nil
	}
	select {
	case <-time.After(authenticationCache):
		return left, nil
	case <-ctx.Done():
		return false, errors.Join(fmt.Errorf("kubernetes: waiting until the token of the deleted account is not taken any longer: %w", ctx.Err()), unbound)
	}
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

// bindingsOf lists the bindings to a grant's account that are not the grant's own. Who may
// make bindings in a namespace can make one for any account. There is one list under way
// at a time, which all revokes share.
func (c *cluster) bindingsOf(ctx context.Context, at place) ([]binding, error) {
	all, err := c.bound.ask(ctx, lookLimit, func(ctx context.Context) (map[string][]binding, error) {
		found := map[string][]binding{}
		for _, resource := range []string{"rolebindings", "clusterrolebindings"} {
			some, err := c.listBindings(ctx, resource, "")
			if err != nil {
				return nil, err
			}
			for _, one := range some {
				for _, subject := range one.Subjects {
					if c.isAccount(subject, "") {
						found[subject.Name] = append(found[subject.Name], one)
					}
				}
			}
		}
		return found, nil
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all[at.name]), func(one binding) bool {
		return one.Metadata.Name == at.name && one.Metadata.Namespace == at.namespace
	}), nil
}

// isAccount says whether a subject is the minted account of that name, or any of the
// namespace of minted accounts where the name is empty.
func (c *cluster) isAccount(subject rbac.Subject, name string) bool {
	switch subject.Kind {
	case rbac.ServiceAccountKind:
		return subject.Namespace == c.namespace && (name == "" || subject.Name == name)
	default:
		return false
	}
}

// cutOff takes a minted account out of a binding that somebody else has made. A binding of
// nothing else is deleted: no account of the engine's namespace is anybody else's to bind.
func (c *cluster) cutOff(ctx context.Context, from binding, at place) error {
	path := rbacAll + "clusterrolebindings/" + from.Metadata.Name
	if from.Metadata.Namespace != "" {
		path = rbacPath(from.Metadata.Namespace, "rolebindings") + "/" + from.Metadata.Name
	}
	rest := slices.DeleteFunc(slices.Clone(from.Subjects), func(subject rbac.Subject) bool { return c.isAccount(subject, at.name) })
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
