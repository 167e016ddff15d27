package kubernetes

import (
	"context"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ambience is what every account of the engine's namespace may do in a cluster, as seen
// from one namespace.
type ambience struct {
	found    rights // beyond the floor
	unlisted string // what the API server says of rights that it can't list
	blind    bool   // whether the engine may not list what is bound in other namespaces
}

// ambient looks for what every account may do: in a namespace and cluster-wide, and in
// the other namespaces where something is bound to everybody, which elsewhere lists.
// What holds in all namespaces is named so: it is more than the same in one of them.
func (c *cluster) ambient(ctx context.Context, namespace string, elsewhere func(context.Context) ([]string, error)) (ambience, error) {
	var seen ambience
	var here, wide rights
	var others []string
	if err := sideBySide(
		func() (err error) { here, seen.unlisted, err = c.everybodys(ctx, namespace); return err },
		func() (err error) {
			if others, err = elsewhere(ctx); forbidden(err) {
				seen.blind, others = true, []string{c.namespace}
				return nil
			}
			return err
		},
	); err != nil {
		return ambience{}, err
	}
	if len(here) > 0 {
		var err error
		if wide, _, err = c.everybodys(ctx, everywhere); err != nil {
			return ambience{}, err
		}
	}
	known := map[right]bool{}
	for _, one := range wide {
		known[one.bare()] = true
	}
	seen.found = wide
	narrower := func(some rights) {
		for _, one := range some {
			if !known[one.bare()] {
				seen.found = append(seen.found, one)
			}
		}
	}
	narrower(here)
	for _, other := range others {
		if other == namespace {
			continue
		}
		there, _, err := c.everybodys(ctx, other)
		if err != nil {
			return ambience{}, err
		}
		narrower(there)
	}
	return seen, nil
}

// bare is a right without the namespace that it was seen in.
func (r right) bare() right {
	thing, _, _ := strings.Cut(r.of, " in ")
	return right{verb: r.verb, of: thing}
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

// checkAmbient looks for what every account may do besides what a policy grants. It
// returns what of it is tolerated; anything else is an *invalid.Error.
func (c *cluster) checkAmbient(ctx context.Context, needed document) (rights, error) {
	tolerated, err := parseRights(needed.TolerateAmbient)
	if err != nil {
		return nil, err
	}
	seen, err := c.ambient(ctx, needed.Namespace, c.openNamespaces)
	if err != nil {
		return nil, err
	}
	return c.tolerable(ctx, seen.found, tolerated)
}

// tolerable are those of the rights that every account has which are tolerated. Any other
// is an *invalid.Error, once a further account that nobody can have bound has it too.
func (c *cluster) tolerable(ctx context.Context, found, tolerated rights) (rights, error) {
	rest := found.except(tolerated)
	if len(rest) > 0 {
		var err error
		if rest, err = c.asAnotherCanary(ctx, rest); err != nil {
			return nil, err
		}
	}
	if len(rest) > 0 {
		return nil, c.untolerated(ctx, rest)
	}
	return found.both(tolerated), nil
}
