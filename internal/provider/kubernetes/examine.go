package kubernetes

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	authorization "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Examine implements provider.Examiner: it asks the cluster what it has, what the
// engine may do in the namespace, and what every account may do there anyway.
func (c *cluster) Examine(ctx context.Context, granted scope.Scope, bounds provider.Bounds) (provider.Findings, error) {
	asked, err := c.newRequest(granted, bounds)
	if err != nil {
		return provider.Findings{}, err
	}
	look := examination{cluster: c, asked: asked}
	if err := sideBySide(
		func() error { return look.inventory(ctx) },
		func() error { return look.namespaceThere(ctx) },
		func() error { return look.engine(ctx) },
		func() error { return look.policies(ctx) },
		func() error { return look.audiences(ctx) },
	); err != nil {
		return provider.Findings{}, first(err)
	}
	// Last: what is ambient is only of interest where the rest is right.
	if look.seen, err = c.ambient(ctx, asked.on.namespace, c.openNamespacesNow); err != nil {
		return provider.Findings{}, err
	}
	if look.seen.found, err = c.tolerable(ctx, look.seen.found, asked.options.tolerated); err != nil {
		return provider.Findings{}, err
	}
	facts := provider.Facts{factOffers: look.offers.fact()}
	if asked.action.name == actionRestart {
		if look.restarts == "" {
			facts[factRestart] = "true"
		} else {
			facts[factRestartProblem] = look.restarts
		}
	}
	return provider.Findings{Facts: facts, Warnings: look.warnings()}, nil
}

// first is what somebody can mend of several errors, or all of them.
func first(err error) error {
	var mendable *invalid.Error
	if errors.As(err, &mendable) {
		return mendable
	}
	return err
}

// examination is a look at a cluster for one role. Its parts are side by side, each
// with fields of its own.
type examination struct {
	*cluster
	asked    request
	offers   offers
	restarts string   // why the admission policy for restarts is not in force; empty where it is
	heldBack string   // the same of the one for what is revoked, where the role changes something
	slow     bool     // whether the engine may not patch bindings
	lacks    []string // what the engine may not do, and would be better able to
	inert    bool     // whether the API server takes no token for the role's audiences
	seen     ambience
}

func (e *examination) inventory(ctx context.Context) error {
	found, err := e.client.discover(ctx)
	if err != nil {
		return err
	}
	if err := found.check(e.asked); err != nil {
		return err
	}
	e.offers = found.about(e.asked)
	return nil
}

// namespaceThere refuses a namespace that the cluster does not have, where the engine
// may know.
func (e *examination) namespaceThere(ctx context.Context) error {
	err := e.client.do(ctx, call{verb: http.MethodGet, path: namespacePath(e.asked.on.namespace)}, nil)
	switch {
	case apierrors.IsNotFound(err):
		return invalid.Field("resource", e.asked.on.String(), "the cluster has no namespace "+e.asked.on.namespace, "name one that it has")
	case forbidden(err): // installing the Role says so, too
		return nil
	}
	return wrapped("reading the namespace", err)
}

func namespacePath(name string) string { return "/api/v1/namespaces/" + name }

// engine looks at what the engine may do in the namespace.
func (e *examination) engine(ctx context.Context) error {
	ask := func(verb, resource string) (bool, error) {
		return e.client.may(ctx, "", authorization.ResourceAttributes{Namespace: e.asked.on.namespace, Verb: verb, Group: "rbac.authorization.k8s.io", Resource: resource})
	}
	needed := []struct{ verb, resource string }{{"create", "rolebindings"}, {"delete", "rolebindings"}, {"delete", "roles"}, {"patch", "rolebindings"}}
	lacks := make([]bool, len(needed))
	var work []func() error
	for i, one := range needed {
		work = append(work, func() error {
			may, err := ask(one.verb, one.resource)
			lacks[i] = !may
			return err
		})
	}
	if err := sideBySide(work...); err != nil {
		return err
	}
	for i, one := range needed {
		switch what := one.verb + " " + one.resource; {
		case lacks[i] && one.verb == "patch":
			e.slow = true
		case lacks[i] && one.resource == "rolebindings":
			return invalid.Hidden("target", "the engine may not "+what+" in the namespace "+e.asked.on.namespace, "give it the rights that the documentation lists")
		case lacks[i]:
			e.lacks = append(e.lacks, what)
		}
	}
	return nil
}

// policies looks at the admission policies that the role relies on.
func (e *examination) policies(ctx context.Context) (err error) {
	if e.asked.action.name == actionRestart {
		if e.restarts, err = e.policyProblem(ctx, restartPolicy); err != nil {
			return err
		}
	}
	if anyOf(e.asked.action.verbs, slices.Concat(changing, deleting)) {
		e.heldBack, err = e.policyProblem(ctx, revokedPolicy)
	}
	return err
}

// audiences tries whether the API server takes a token for the role's audiences. A role
// whose credentials are not tried either may have others.
func (e *examination) audiences(ctx context.Context) error {
	if len(e.asked.options.audiences) == 0 {
		return nil
	}
	if _, err := e.canaryToken(ctx); err != nil { // which makes the account
		return err
	}
	made, err := e.client.createToken(ctx, e.namespace, canaryName, e.asked.options.audiences, int64(shortestToken.Seconds()))
	if err != nil {
		return err
	}
	_, err = e.client.rules(ctx, made.Status.Token, e.asked.on.namespace)
	if !apierrors.IsUnauthorized(err) {
		return err
	}
	e.inert = true
	if e.asked.options.waitReady {
		return noAudience(e.asked.options.audiences)
	}
	return nil
}

func (e *examination) warnings() []string {
	var warnings []string
	if warning := provider.AmbientWarning(e.seen.found.texts()); warning != "" {
		warnings = append(warnings, warning)
	}
	if len(e.lacks) > 0 {
		warnings = append(warnings, "the engine may not "+strings.Join(e.lacks, ", ")+" in "+e.asked.on.namespace+": what it makes there can't all be removed")
	}
	if e.slow {
		warnings = append(warnings, "the engine may not patch rolebindings in "+e.asked.on.namespace+": where somebody keeps a binding with a finalizer, a revoke takes 11 s, as long as the API server takes the account's token")
	}
	if e.heldBack != "" {
		warnings = append(warnings, "a request whose body its holder holds back over the revoke is carried out up to 34 s later, unless the ValidatingAdmissionPolicy "+revokedPolicy+" of the documentation is in force: "+e.heldBack)
	}
	if e.seen.blind {
		warnings = append(warnings, "the engine may not list bindings: what other namespaces give to every account was not looked for, "+
			"and a revoke takes 11 s, as long as the API server takes the account's token")
	}
	if e.inert {
		warnings = append(warnings, "the API server takes a token for none of the role's audiences: a credential is of use only to services that ask it whose token it is")
	}
	if e.seen.unlisted != "" {
		warnings = append(warnings, "the API server can't list all rights, so some that every account has may not have been seen: "+invalid.Clip(e.seen.unlisted))
	}
	return warnings
}
