package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"time"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// shortestToken is the least that TokenRequest gives.
// https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
const shortestToken = 600 * time.Second

// tokenLeeway is how long after its end an API server still takes a token; a test
// measures it. A token says so much less, so that it is not taken after its grant's end.
const tokenLeeway = time.Minute

// Mint implements provider.Provider, in two round trips: the account and its binding
// are made side by side, then the token; whether what the grant hangs on is as it was
// is looked at meanwhile. A third round trip waits until the API server has seen the
// binding.
func (c *cluster) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	needed, err := parsePolicy(policy)
	if err != nil {
		return provider.Credential{}, &provider.NotMade{Reason: err}
	}
	if handle[handleName] == "" || handle[handleAccounts] == "" || handle[handleNamespace] != needed.Namespace {
		return provider.Credential{}, &provider.NotMade{Reason: errors.New("kubernetes: the handle is of another policy")}
	}
	made := mint{cluster: c, handle: handle, needed: needed, role: roleName(needed, handle[markMount], handle[markLedger])}
	if err := made.run(ctx, expiresAt); err != nil {
		return provider.Credential{}, made.undone(ctx, err)
	}
	return provider.Credential{
		Fields:   c.fields(handle, made.token.Status.Token),
		Handle:   handle,
		Warnings: made.warnings(expiresAt),
	}, nil
}

// mint is one mint under way.
type mint struct {
	*cluster
	handle  provider.Handle
	needed  document
	role    string
	seconds int64 // that the token is to live for
	token   authentication.TokenRequest
	ambient rights // that are tolerated, and there
	untried string // why no other change than a restart was tried; empty where one was
}

func (m *mint) run(ctx context.Context, expiresAt time.Time) error {
	m.seconds = int64(max(time.Until(expiresAt)-tokenLeeway, shortestToken) / time.Second)
	work := []func() error{
		func() error {
			if err := m.client.createAccount(ctx, core.ServiceAccount{ObjectMeta: m.metadata(m.handle[handleAccounts])}); err != nil {
				return err
			}
			var err error
			m.token, err = m.client.createToken(ctx, m.handle[handleAccounts], m.handle[handleName], m.needed.Audiences, m.seconds)
			return err
		},
		func() error { return m.client.createBinding(ctx, m.binding()) },
		func() error { return m.checkRole(ctx) },
		func() error {
			var err error
			m.ambient, err = m.checkAmbient(ctx, m.needed)
			return err
		},
	}
	if m.needed.AdmissionPolicy != "" {
		work = append(work, func() error { return m.checkAdmission(ctx) })
	}
	if err := sideBySide(work...); err != nil {
		return err
	}
	if m.needed.WaitReady {
		if err := m.awaitReady(ctx); err != nil {
			return err
		}
	}
	if m.needed.AdmissionPolicy != "" {
		return m.tryAnotherChange(ctx)
	}
	return nil
}

func (m *mint) metadata(namespace string) meta.ObjectMeta {
	return labelled(metaOf(m.handle, namespace), m.needed.Labels)
}

func (m *mint) binding() rbac.RoleBinding {
	return rbac.RoleBinding{
		ObjectMeta: m.metadata(m.needed.Namespace),
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: m.role},
		Subjects:   []rbac.Subject{{Kind: rbac.ServiceAccountKind, Name: m.handle[handleName], Namespace: m.handle[handleAccounts]}},
	}
}

// checkRole sees to it that the Role grants what it is to, and no more: somebody may
// have changed it since it was installed.
func (m *mint) checkRole(ctx context.Context) error {
	role, err := m.client.getRole(ctx, m.needed.Namespace, m.role)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("kubernetes: the role %s: %w", m.role, provider.ErrNotInstalled)
	case err != nil:
		return err
	case !sameRules(role.Rules, m.needed.Rules):
		return fmt.Errorf("kubernetes: the role %s has other rules: %w", m.role, provider.ErrNotInstalled)
	}
	return nil
}

// checkAdmission sees to it that what RBAC can't say is still said.
func (m *mint) checkAdmission(ctx context.Context) error {
	problem, err := m.policyProblem(ctx, restartPolicy)
	if err == nil && problem != "" {
		err = noRestartPolicy(problem)
	}
	return err
}

// How long, and how often, a mint waits until its credential works. An API server's
// view of bindings lags by some milliseconds.
const (
	readyTimeout = 5 * time.Second
	readyFirst   = 2 * time.Millisecond
	readyMost    = 100 * time.Millisecond
)

// awaitReady asks as the account, until the answer is yes.
func (m *mint) awaitReady(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	question := probe(m.needed)
	for pause := readyFirst; ; pause = min(2*pause, readyMost) {
		allowed, err := m.client.may(limited, m.token.Status.Token, question)
		switch {
		case apierrors.IsUnauthorized(err) && len(m.needed.Audiences) > 0:
			return noAudience(m.needed.Audiences)
		case err != nil && limited.Err() == nil:
			return err
		case err == nil && allowed:
			return nil
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("kubernetes: waiting for the credential to work: %w", ctx.Err())
			}
			return fmt.Errorf("kubernetes: the API server does not let the account do what is granted after %s: %w", readyTimeout, provider.ErrUnavailable)
		case <-time.After(pause):
		}
	}
}

// probe is a request that the policy allows, and that nothing else does where there is
// such a one.
func probe(needed document) authorization.ResourceAttributes {
	tolerated, _ := parseRights(needed.TolerateAmbient) // Compile has read them
	tolerated = tolerated.within(needed.Namespace)
	var first *authorization.ResourceAttributes
	for _, rule := range needed.Rules {
		for _, text := range rule.Resources {
			asked := parseKind(text) // without its group
			for _, verb := range rule.Verbs {
				made := authorization.ResourceAttributes{Namespace: needed.Namespace, Verb: verb, Group: rule.APIGroups[0], Resource: asked.resource, Subresource: asked.subresource}
				if len(rule.ResourceNames) > 0 {
					made.Name = rule.ResourceNames[0]
				}
				one := rbac.PolicyRule{Verbs: []string{verb}, APIGroups: rule.APIGroups, Resources: []string{text}, ResourceNames: rule.ResourceNames}
				if first == nil {
					first = &made
				}
				if len(rightsIn(needed.Namespace, []rbac.PolicyRule{one}).except(tolerated)) > 0 {
					return made
				}
			}
		}
	}
	return *first // a policy has rules
}

func noAudience(audiences []string) error {
	return invalid.Field(fieldAudiences, invalid.OneOf(audiences), "the API server takes a token for none of them", "leave it out, name the API server's own, too, or, for a service that the token is shown to, say "+fieldWaitReady+"=false")
}

// undone removes what a mint has made that somebody can mend, and says so; what else
// has gone wrong is left to Revoke. Nobody has the token: it need not be waited for.
func (m *mint) undone(ctx context.Context, err error) error {
	var mendable *invalid.Error
	if !errors.As(err, &mendable) && !errors.Is(err, provider.ErrNotInstalled) {
		if !forbidden(err) {
			return err
		}
		mendable = invalid.Hidden("target", "the engine may not mint in the namespace "+m.needed.Namespace+": "+saysNo(err), "give it the rights that the documentation lists")
		err = mendable
	}
	if ending := m.Tidy(ctx, m.handle); ending != nil {
		return errors.Join(err, ending)
	}
	return &provider.NotMade{Reason: err}
}

// warnings are to who reads the credential.
func (m *mint) warnings(expiresAt time.Time) []string {
	var warnings []string
	end := m.token.Status.ExpirationTimestamp.Add(tokenLeeway).UTC().Format(time.RFC3339)
	if given := m.token.Spec.ExpirationSeconds; given != nil && *given < m.seconds {
		warnings = append(warnings, "the API server cuts the lives of tokens: this one ends at "+end+", before its lease")
	} else if time.Until(expiresAt) < shortestToken+tokenLeeway {
		warnings = append(warnings, fmt.Sprintf("the end of the lease ends the credential; if Vault could not, the API server would at %s, since it gives no token for less than %d s and takes it for %d s more", end, shortestToken/time.Second, tokenLeeway/time.Second))
	}
	if warning := provider.AmbientWarning(m.ambient.texts()); warning != "" {
		warnings = append(warnings, warning)
	}
	if m.untried != "" {
		warnings = append(warnings, "whether the API server asks its admission policies was not tried: "+m.untried+
			"; if it does not, this credential can change all of what it restarts")
	}
	return warnings
}
