// Package vault mints tokens of a Vault that can do one thing on one path. The
// policy is the target's own; each token comes from a token role of its own.
package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-cleanhttp"
	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Facts of a target.
const factCluster = "cluster_id"

// fieldUses is the role's field for how many requests a token is good for.
const fieldUses = "uses"

// Type describes the provider to the registry.
func Type() provider.Type {
	return provider.Type{
		Name: "vault",
		Config: map[string]*framework.FieldSchema{
			"address": {
				Type:         framework.TypeString,
				Description:  "URL of the Vault, such as https://vault.example.com:8200. It may be the one that this engine runs in.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Address"},
			},
			"namespace": {
				Type:         framework.TypeString,
				Description:  "Namespace that policies and tokens are made in, where the Vault has namespaces.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Namespace"},
			},
			"ca_cert": {
				Type:         framework.TypeString,
				Description:  "Certificates, in PEM, of the authorities that the Vault's certificate may be from. Default: those that this machine trusts.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "CA certificate"},
			},
			"tls_server_name": {
				Type:         framework.TypeString,
				Description:  "Name that the Vault's certificate is for, where it is not the address's.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "TLS server name"},
			},
			"token": {
				Type:         framework.TypeString,
				Description:  "The engine's own token, with the policy of the documentation; best an orphan with a period. The engine renews it. Never read back.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Token", Sensitive: true},
			},
			"role_id": {
				Type:         framework.TypeString,
				Description:  "Role ID of an AppRole, in place of token: the engine logs in by itself, and again when its token nears its end.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Role ID"},
			},
			"secret_id": {
				Type:         framework.TypeString,
				Description:  "Secret ID of that AppRole. Never read back.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Secret ID", Sensitive: true},
			},
			"approle_mount": {
				Type:         framework.TypeString,
				Description:  "Path that the AppRole method is mounted at. Default: approle.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "AppRole mount"},
			},
		},
		Role: map[string]*framework.FieldSchema{
			fieldUses: {
				Type:         framework.TypeInt,
				Description:  "How many requests a token is good for; those that Vault refuses count, too. 1: once. Default: 0, any number until its end.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Uses"},
			},
		},
		Open: open,
	}
}

// vault is one Vault as a target.
type vault struct {
	client *client
	own    *session // the engine's own token there
	facts  provider.Facts
	binary func() string // see ownBinary
}

func open(settings provider.Settings, facts provider.Facts) (provider.Provider, error) {
	address, err := provider.ParseEndpoint("address", settings.Text("address"))
	if err != nil {
		return nil, err
	}
	namespace := strings.Trim(settings.Text("namespace"), "/")
	if strings.ContainsFunc(namespace, notPlain) {
		return nil, invalid.Field("namespace", namespace, "not a namespace's path", "write it as team/project")
	}
	transport, err := newTransport(settings)
	if err != nil {
		return nil, err
	}
	client := &client{address: address, namespace: namespace, http: &http.Client{Transport: transport, CheckRedirect: followOnce}}
	source, err := sourceOf(client, settings)
	if err != nil {
		return nil, err
	}
	return &vault{client: client, own: newSession(client, source, time.Now), facts: facts, binary: sync.OnceValue(ownBinary)}, nil
}

func newTransport(settings provider.Settings) (*http.Transport, error) {
	transport := cleanhttp.DefaultPooledTransport()
	transport.Proxy = nil                                  // the environment is that of the Vault that this runs in
	transport.MaxIdleConnsPerHost = transport.MaxIdleConns // all calls go to one host
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: settings.Text("tls_server_name")}
	if certificates := settings.Text("ca_cert"); certificates != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(certificates)) {
			return nil, invalid.Hidden("ca_cert", "no certificate in PEM", "give the authority's certificate, which starts with -----BEGIN CERTIFICATE-----")
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return transport, nil
}

// sourceOf is where the engine's own token comes from.
func sourceOf(client *client, settings provider.Settings) (source, error) {
	text := func(name string) string { return strings.TrimSpace(settings.Text(name)) } // as files end in a new line
	token, role, secret := text("token"), text("role_id"), text("secret_id")
	mount := strings.Trim(settings.Text("approle_mount"), "/")
	switch {
	case token != "" && (role != "" || secret != ""):
		return nil, invalid.Hidden("token", "given beside an AppRole", "give either token, or role_id and secret_id")
	case token != "" && mount != "":
		return nil, invalid.Field("approle_mount", mount, "given beside token, which needs none", "leave it out")
	case token != "":
		if strings.ContainsFunc(token, notGraphic) {
			return nil, invalid.Hidden("token", "it has a space or a control character", "give the token alone")
		}
		return given(token), nil
	case role == "" && secret == "":
		return nil, invalid.Hidden("token", "missing", "give the engine's own token, or the role_id and secret_id of its AppRole")
	case role == "" || secret == "":
		return nil, invalid.Hidden("secret_id", "role_id and secret_id go together", "give both, or a token")
	case strings.ContainsFunc(mount, notPlain):
		return nil, invalid.Field("approle_mount", mount, "not a mount's path", "write it as approle")
	}
	if mount == "" {
		mount = "approle"
	}
	return &appRole{client: client, mount: mount, role: role, secret: secret}, nil
}

func notGraphic(char rune) bool { return char <= ' ' || char >= 0x7F }

// Compile implements provider.Provider.
func (v *vault) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	if v.Identity() == "" {
		return "", invalid.Hidden("target", "which Vault it is is not known, because its connection was never verified", "write its config again with verify_connection=true")
	}
	wanted, err := parse(granted, bounds)
	if err != nil {
		return "", err
	}
	where, err := placeIn(bounds.Facts)
	if err != nil {
		return "", err
	}
	if err := where.check(wanted, bounds.AllowEscalation); err != nil {
		return "", err
	}
	return compile(wanted, where).text()
}

// Prepare implements provider.Provider. The token role's name is known before it is
// made, and what Vault makes with a role it can end by the role's name.
func (v *vault) Prepare(_ context.Context, grant provider.Grant) (provider.Handle, error) {
	handle := provider.Handle{handleTokenRole: tokenRole(grant.Mount, grant.ID)}
	for key, value := range map[string]string{handleGrant: grant.ID, handleMount: grant.Mount, handleLedger: grant.Ledger, handleRole: grant.Role, handleTask: grant.Task} {
		if value != "" {
			handle[key] = value
		}
	}
	return handle, nil
}

// Advise implements provider.Adviser.
func (v *vault) Advise(granted scope.Scope, bounds provider.Bounds) provider.Advice {
	wanted, err := parse(granted, bounds)
	if err != nil {
		return provider.Advice{} // Compile has said so
	}
	where, err := placeIn(bounds.Facts)
	if err != nil {
		return provider.Advice{}
	}
	var advice provider.Advice
	if why := where.escalates(wanted); why != "" {
		advice.Mint = append(advice.Mint, "this credential can hand out further power: "+why)
	} else if !where.stores() {
		advice.Definition = append(advice.Definition, "the mount "+where.mount+" is of type "+where.kind+": what a request there does or hands out is for that engine's own configuration to say")
	}
	return advice
}

// Identity implements provider.Identified.
func (v *vault) Identity() string {
	cluster := v.facts[factCluster]
	if cluster == "" {
		return ""
	}
	return cluster + "/" + v.client.namespace
}
