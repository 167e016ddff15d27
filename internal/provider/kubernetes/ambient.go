package kubernetes

import (
	"context"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ambience is what every account of the engine's namespace may do in a cluster, as seen
// from one namespace.
type ambience struct {
	found    rights // beyond the floor
	unlisted string // what the API server says of rights that it can't list
	blind    bool   // whether the engine may not list what is bound in other namespaces
}

// listLimit bounds the listing of bindings.
const listLimit = 10 * time.Second

// ambient looks for what every account may do: in a namespace and cluster-wide, and in
// all other namespaces where something is bound to everybody. What holds everywhere is
// named for the first.
func (c *cluster) ambient(ctx context.Context, namespace string) (ambience, error) {
	var here, seen ambience
	var others []string
	if err := sideBySide(
		func() (err error) { here.found, here.unlisted, err = c.everybodys(ctx, namespace); return err },
		func() error {
			given, err := c.bindings.ask(ctx, listLimit, func(ctx context.Context) ([]binding, error) { return c.toEverybody(ctx, "rolebindings", notOurs) })
			if forbidden(err) {
				seen.blind, others = true, []string{c.namespace}
				return nil
			}
			for _, one := range given {
				others = append(others, one.Metadata.Namespace)
			}
			return err
		},
	); err != nil {
		return ambience{}, err
	}
	here.blind = seen.blind
	everywhere := map[right]bool{}
	for _, one := range here.found {
		everywhere[one.bare()] = true
	}
	for _, other := range inOrder(others) {
		if other == namespace {
			continue
		}
		there, _, err := c.everybodys(ctx, other)
		if err != nil {
			return ambience{}, err
		}
		for _, one := range there {
			if !everywhere[one.bare()] {
				here.found = append(here.found, one)
			}
		}
	}
	return here, nil
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
	seen, err := c.ambient(ctx, needed.Namespace)
	if err != nil {
		return nil, err
	}
	if rest := seen.found.except(tolerated); len(rest) > 0 {
		return nil, c.untolerated(ctx, rest)
	}
	return seen.found, nil
}
