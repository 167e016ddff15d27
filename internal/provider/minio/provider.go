// Package minio mints STS sessions on a MinIO store: AssumeRole with a session
// policy that names one action, one resource and the session's end.
package minio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// shortestSession is the least DurationSeconds that AssumeRole takes. A session
// that is to end sooner is ended by its policy.
const shortestSession = 900 * time.Second

// longestSession is the most DurationSeconds that AssumeRole takes: a year of 365 days.
const longestSession = 365 * 24 * time.Hour

// Handle keys.
const (
	handleParent     = "parent"            // the user whose session it is
	handleRevokeType = "token_revoke_type" // marks the session for RevokeTokens
	handleAccessKey  = "access_key"        // the session's; only after Mint
)

// Type describes the provider to the registry.
func Type() provider.Type {
	return provider.Type{
		Name: "minio",
		Config: map[string]*framework.FieldSchema{
			"endpoint": {
				Type:         framework.TypeString,
				Description:  "URL of the store, such as https://minio.example.com:9000.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Endpoint"},
			},
			"access_key": {
				Type:         framework.TypeString,
				Description:  "Access key of the store's user that owns the sessions. Make one for this engine, with a policy that covers what its roles may grant.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Access key"},
			},
			"secret_key": {
				Type:         framework.TypeString,
				Description:  "Secret key of that user. Never read back.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Secret key", Sensitive: true},
			},
			"region": {
				Type:         framework.TypeString,
				Description:  "Region that requests are signed for, if the store has one. Default: us-east-1.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Region"},
			},
			"isolate_roles": {
				Type:         framework.TypeBool,
				Description:  "Whether the sessions of each action and resource are of a user of their own, which the engine makes, so that no session can end those of another role. The engine's user then needs " + strings.Join(Rights(), ", ") + ", and with these it can make users that may do anything. Default: false.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Isolate roles"},
			},
		},
		Open: open,
	}
}

type minio struct {
	client   *client
	catalog  scope.Catalog
	isolates bool // sessions are of parents, see Plan
}

func open(settings provider.Settings, _ provider.Facts) (provider.Provider, error) {
	endpoint, err := provider.ParseEndpoint("endpoint", settings.Text("endpoint"))
	if err != nil {
		return nil, err
	}
	accessKey, secretKey := settings.Text("access_key"), settings.Text("secret_key")
	if accessKey == "" {
		return nil, invalid.Field("access_key", accessKey, "missing", "name the store's user that owns the sessions")
	}
	if secretKey == "" {
		return nil, invalid.Hidden("secret_key", "missing", "give the secret key of the user "+invalid.Mask(accessKey))
	}
	region := settings.Text("region")
	if region == "" {
		region = "us-east-1" // https://min.io/docs: what a store without a configured region signs with
	}
	return &minio{client: newClient(endpoint, region, accessKey, secretKey), catalog: actions(), isolates: settings.True("isolate_roles")}, nil
}

// Compile implements provider.Provider.
func (m *minio) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	if why, known := inexact[granted.Action()]; known {
		return "", invalid.Field("action", granted.Action(), "can't be granted exactly: "+why,
			"name "+invalid.OneOf(slices.Concat(Actions(), NamedActions())))
	}
	if err := checkBounds(granted, bounds); err != nil {
		return "", err
	}
	parts, arn, err := partsOf(granted, m.catalog)
	if err != nil {
		return "", err
	}
	if err := checkKey(arn); err != nil {
		return "", err
	}
	return compile(granted, parts, arn, bounds.ExpiresAt)
}

// checkBounds refuses what MinIO can't be trusted with: it looks a condition's
// key up among the request's headers first, so its holder could meet any.
func checkBounds(granted scope.Scope, bounds provider.Bounds) error {
	switch {
	case len(granted.Conditions()) > 0:
		return invalid.Hidden("conditions", "on MinIO whoever sends a request can set what a condition sees", "leave them out")
	case bounds.SourceIP.IsValid():
		return invalid.Hidden("bound_source_ip", "on MinIO whoever sends a request can set the address that a condition sees", "leave it out")
	case bounds.TTL > longestSession:
		return invalid.Field("max_ttl", bounds.TTL.String(), "longer than a session of MinIO can live", "give "+longestSession.String()+" or less")
	case len(granted.Companions()) > 0:
		return invalid.Hidden("companion_resources", "every action of MinIO works on one resource", "leave them out")
	}
	return nil
}

// Prepare implements provider.Provider.
func (m *minio) Prepare(_ context.Context, grant provider.Grant) (provider.Handle, error) {
	parent := m.client.accessKey
	if m.isolates {
		rules, err := rulesOf(grant.Policy)
		if err != nil {
			return nil, err
		}
		parent = parentName(m.client.accessKey, grant.Mount, grant.Ledger, rules)
	}
	return provider.Handle{handleParent: parent, handleRevokeType: grant.ID}, nil
}

// Mint implements provider.Provider, in one call.
func (m *minio) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	duration := min(max(time.Until(expiresAt).Truncate(time.Second)+time.Second, shortestSession), longestSession)
	parent := handle[handleParent]
	session, err := m.client.assumeRole(ctx, parent, policy, duration, handle[handleRevokeType])
	if parent != m.client.accessKey && notInstalled(err) {
		return provider.Credential{}, &provider.NotMade{Reason: fmt.Errorf("%w: user %s: %w", err, parent, provider.ErrNotInstalled)}
	}
	if err != nil {
		return provider.Credential{}, err
	}
	minted := maps.Clone(handle)
	minted[handleAccessKey] = *session.AccessKeyId
	return provider.Credential{
		Fields: map[string]any{
			"access_key":    *session.AccessKeyId,
			"secret_key":    *session.SecretAccessKey,
			"session_token": *session.SessionToken,
		},
		Handle:     minted,
		Unforeseen: true,
	}, nil
}

// Revoke implements provider.Provider: the store forgets the session, and is
// then asked whether it has. It says yes to a revocation that found nothing,
// and it finds only the sessions that it has in memory: after a restart those
// that have been asked for since.
func (m *minio) Revoke(ctx context.Context, handle provider.Handle) error {
	const attempts = 3 // the second finds what the question has loaded
	var err error
	for range attempts {
		err = m.client.revokeTokens(ctx, handle[handleParent], handle[handleRevokeType])
		if handle[handleAccessKey] == "" {
			return err // the answer to the mint was lost, so nobody holds the session
		}
		alive, asked := m.client.answersTo(ctx, handle[handleAccessKey])
		if asked == nil && !alive {
			return nil // even if the user that was to end it is gone
		}
		if err = errors.Join(err, asked); err != nil {
			return err
		}
	}
	return errors.New("minio: the store still answers to the session after it has been revoked")
}

// Identity implements provider.Identified. MinIO tells nobody but administrators
// which deployment it is, so a store is known by its address; and only their own
// user can end sessions.
func (m *minio) Identity() string { return m.client.endpoint.Host + "/" + m.client.accessKey }

// verification marks the sessions of Verify.
const verification = "verify-connection"

// cleanUpTimeout is how long Verify takes at most to remove what it has made.
const cleanUpTimeout = 10 * time.Second

// Verify implements provider.Verifier: it opens and ends a session that may do
// nothing, of a user of its own where roles are isolated: that is all that the engine
// will ever ask of the store.
func (m *minio) Verify(ctx context.Context) (provider.Verification, error) {
	// First, since the admin API says which of the two keys is wrong.
	administers, err := m.client.administers(ctx)
	if err != nil {
		return provider.Verification{}, m.client.explain(err)
	}
	try, needed := m.trySession, []string(nil)
	if m.isolates {
		try, needed = m.tryParent, Rights()
	}
	if err := try(ctx); err != nil {
		return provider.Verification{}, m.client.explain(err)
	}
	var found provider.Verification
	if slices.ContainsFunc(administers, func(right string) bool { return !slices.Contains(needed, right) }) {
		found.Warnings = append(found.Warnings, m.administratorWarning())
	}
	if m.client.endpoint.Scheme == "http" && !isLoopback(m.client.endpoint.Hostname()) {
		found.Warnings = append(found.Warnings, "endpoint is plain http: every session's secret crosses the network in clear")
	}
	return found, nil
}

func (m *minio) administratorWarning() string {
	user := invalid.Mask(m.client.accessKey)
	if m.isolates {
		return fmt.Sprintf("access_key %q is an administrator of the store beyond what isolate_roles needs: make a user for this engine with %s and nothing else", user, strings.Join(Rights(), ", "))
	}
	return fmt.Sprintf("access_key %q is an administrator of the store: make a user for this engine, with a policy that covers what its roles may grant", user)
}

func (m *minio) trySession(ctx context.Context) error {
	if _, err := m.client.assumeRole(ctx, m.client.accessKey, denyAll, shortestSession, verification); err != nil {
		return err
	}
	return m.client.revokeTokens(ctx, m.client.accessKey, verification)
}
