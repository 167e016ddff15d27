package kubernetes

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// canaryOnce marks an account that is made for one question, and deleted after it.
	canaryOnce = markPrefix + "question"
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
	err := c.makeCanaryNamed(ctx, canaryName, nil)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (c *cluster) makeCanaryNamed(ctx context.Context, name string, labels map[string]string) error {
	all := map[string]string{managedBy: engineName}
	maps.Copy(all, labels)
	return c.client.createAccount(ctx, core.ServiceAccount{ObjectMeta: meta.ObjectMeta{
		Name: name, Namespace: c.namespace, Labels: all,
		Annotations: map[string]string{markPrefix + "about": "asks what every account may do; bind nothing to it"},
	}})
}

// asAnotherCanary returns those of the rights that an account has which is made for this
// question. The canary's name is known: a namespace administrator can bind it, and that
// gives no other account anything.
func (c *cluster) asAnotherCanary(ctx context.Context, of rights) (_ rights, err error) {
	name := canaryName + "-" + strings.ToLower(rand.Text())
	if err := c.makeCanaryNamed(ctx, name, map[string]string{canaryOnce: "once"}); err != nil {
		return nil, err
	}
	defer func() {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit)
		defer cancel()
		err = errors.Join(err, c.client.deleteObject(detached, accountKind, accountsPath(c.namespace)+"/"+name))
		_ = c.removeLeftCanaries(detached) // the next question tries again
	}()
	made, err := c.client.createToken(ctx, c.namespace, name, nil, int64(shortestToken/time.Second))
	if err != nil {
		return nil, err
	}
	var has rights
	asked := map[string]bool{}
	for _, one := range of {
		_, namespace, within := strings.Cut(one.of, " in ")
		if !within {
			namespace = everywhere // a path
		}
		if asked[namespace] {
			continue
		}
		asked[namespace] = true
		status, err := c.client.rules(ctx, made.Status.Token, namespace)
		if err != nil {
			return nil, err
		}
		has = append(has, rightsIn(namespace, rulesIn(status))...)
	}
	return of.both(has), nil
}

// removeLeftCanaries removes accounts of questions whose process has died before it could.
func (c *cluster) removeLeftCanaries(ctx context.Context) error {
	var left []string
	err := list(ctx, c.client, accountsPath(c.namespace), canaryOnce, func(accounts []meta.PartialObjectMetadata) bool {
		for _, one := range accounts {
			if time.Since(one.CreationTimestamp.Time) > shortestToken { // no question takes as long
				left = append(left, one.Name)
			}
		}
		return true
	})
	for _, name := range left {
		err = errors.Join(err, c.client.deleteObject(ctx, accountKind, accountsPath(c.namespace)+"/"+name))
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
