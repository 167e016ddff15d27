// Package kubernetes mints service accounts on a Kubernetes cluster: for each grant an
// account in a namespace of the engine's own, bound to a Role that all grants with the
// same rules share, and a token of it. Deleting the binding ends a grant.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/framework"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Facts that Verify learns of a cluster.
const (
	factCluster = "cluster_uid" // of the namespace kube-system, which lives as long as the cluster
	factVersion = "version"
	factEngine  = "engine" // who the engine is, as the API server says
)

// Type describes the provider to the registry.
func Type() provider.Type {
	return provider.Type{
		Name: "kubernetes",
		Config: map[string]*framework.FieldSchema{
			fieldHost: {
				Type:         framework.TypeString,
				Description:  "URL of the API server, such as https://10.0.0.1:6443. Default: that of the cluster that Vault runs in.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Kubernetes host"},
			},
			fieldCA: {
				Type:         framework.TypeString,
				Description:  "Certificates, in PEM, of the authorities that the API server's certificate is signed by. Default: those of the pod that Vault runs in, else the machine's.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Kubernetes CA certificate"},
			},
			fieldToken: {
				Type:         framework.TypeString,
				Description:  "Token of the service account that the engine works as. Default: that of the pod that Vault runs in, which is read anew as it changes. Never read back.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Service account JWT", Sensitive: true},
			},
			fieldDisableLocal: {
				Type:         framework.TypeBool,
				Description:  "Don't use the certificates and the token of the pod that Vault runs in.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Disable local CA and JWT"},
			},
			fieldNamespace: {
				Type:         framework.TypeString,
				Description:  "Namespace that the minted accounts live in, with nothing else in it. Default: precision.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Namespace"},
			},
		},
		Role:   roleFields(),
		Tagged: []string{fieldLabels},
		Open: func(settings provider.Settings, facts provider.Facts) (provider.Provider, error) {
			return open(settings, facts, localPod())
		},
	}
}

// cluster is an opened target.
type cluster struct {
	client    *client
	namespace string // of the minted accounts
	host      string
	authority string // PEM; may be empty
	facts     provider.Facts

	canary canary
	looks  looks
	bound  gathered[bindings]
}

func open(settings provider.Settings, facts provider.Facts, local pod) (*cluster, error) {
	connection, err := connect(settings, local)
	if err != nil {
		return nil, err
	}
	client, err := newClient(connection.config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return &cluster{client: client, namespace: connection.namespace, host: connection.config.Host, authority: connection.authority, facts: maps.Clone(facts)}, nil
}

// Compile implements provider.Provider.
func (c *cluster) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	made, err := c.newGrant(granted, bounds)
	if err != nil {
		return "", err
	}
	return made.policy.policy()
}

// Prepare implements provider.Provider.
func (c *cluster) Prepare(_ context.Context, grant provider.Grant) (provider.Handle, error) {
	policy, err := parsePolicy(grant.Policy)
	if err != nil {
		return nil, err
	}
	name := accountPrefix + grant.ID
	if policy.AdmissionPolicy == restartPolicy {
		name = restartPrefix + grant.ID
	}
	handle := markOf(grant)
	handle[handleName] = name
	handle[handleAccounts] = c.namespace
	handle[handleNamespace] = policy.Namespace
	if len(policy.TolerateAmbient) > 0 {
		handle[handleTolerated] = strings.Join(policy.TolerateAmbient, "\n")
	}
	return handle, nil
}

// Names of accounts start so. The admission policies know accounts by them.
const (
	accountPrefix = "precision-"
	restartPrefix = "precision-restart-"
)

// Handle keys. Those that start with markPrefix are marks.
const (
	handleName      = "name"               // of the account and of its binding; of a Role for what is installed
	handleAccounts  = "accounts_namespace" // that the account is in
	handleNamespace = "namespace"          // that the binding and the Role are in
	handleTolerated = "tolerate_ambient"   // what everybody may do that a revoke need not wait for, in lines
)

// Identity implements provider.Identified.
func (c *cluster) Identity() string { return c.facts[factCluster] }

// Throttled implements provider.Throttler.
func (c *cluster) Throttled(err error) bool { return apierrors.IsTooManyRequests(err) }

// forbidden says whether the API server says that whoever asked lacks a right.
func forbidden(err error) bool { return apierrors.IsForbidden(err) }

// sideBySide does several things at once and waits for all of them: a call still under
// way could outlive what cleans up after it.
func sideBySide(work ...func() error) error {
	errs := make([]error, len(work))
	var all sync.WaitGroup
	for i, one := range work {
		all.Go(func() { errs[i] = one() })
	}
	all.Wait()
	return errors.Join(errs...)
}
