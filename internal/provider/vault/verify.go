package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// rights are what the engine has to be allowed, by path: those of the documented
// policy, with a name for each of its globs.
var rights = map[string][]string{
	"sys/policies/acl/precision-x":                           {"read", "update", "delete"},
	"auth/token/roles/precision-x":                           {"read", "create", "delete"},
	"auth/token/create/precision-x":                          {"update"},
	"sys/leases/revoke-prefix/auth/token/create/precision-x": {"update", "sudo"},
	"auth/token/lookup-accessor":                             {"update"},
	"sys/mounts":                                             {"read"},
}

const policyFile = "deploy/vault/engine-policy.hcl"

// Verify implements provider.Verifier: it asks the Vault which cluster it is, and what
// the engine's own token may do there. Nothing is made.
func (v *vault) Verify(ctx context.Context) (provider.Verification, error) {
	var health struct {
		Cluster string `json:"cluster_id"`
	}
	if err := v.client.send(ctx, "", http.MethodGet, "sys/health?standbyok=true&perfstandbyok=true", nil, &health); err != nil {
		return provider.Verification{}, v.explain(err)
	}
	if health.Cluster == "" {
		return provider.Verification{}, invalid.Field("address", v.client.address.String(), "what answers there does not say which cluster it is, as a Vault does", "check the URL, or write verify_connection=false")
	}
	token, err := v.own.get(ctx)
	if err != nil {
		return provider.Verification{}, v.explain(err)
	}
	about, err := v.own.about(ctx, token)
	if err != nil {
		return provider.Verification{}, v.explain(err)
	}
	if about.Type == "batch" {
		return provider.Verification{}, invalid.Hidden(v.credentialField(), "it makes a batch token, or is one, and Vault lets those make no tokens", "give a service token; for an AppRole, token_type=service")
	}
	if err := v.allowed(ctx); err != nil {
		return provider.Verification{}, err
	}
	return provider.Verification{Facts: provider.Facts{factCluster: health.Cluster}, Warnings: v.warnings(about)}, nil
}

// allowed says which right the engine's own token lacks.
func (v *vault) allowed(ctx context.Context) error {
	paths := make([]string, 0, len(rights))
	for path := range rights {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var answer struct{ Data map[string]any }
	if err := v.call(ctx, http.MethodPost, "sys/capabilities-self", map[string]any{"paths": paths}, &answer); err != nil {
		return v.explain(err)
	}
	for _, path := range paths {
		has := provider.Settings(answer.Data).List(path)
		for _, right := range rights[path] {
			if !slices.Contains(has, right) && !slices.Contains(has, "root") {
				return invalid.Hidden(v.credentialField(), fmt.Sprintf("the Vault does not allow it %s on %s", right, strings.ReplaceAll(path, "precision-x", "precision-*")), "give it the policy in "+policyFile)
			}
		}
	}
	return nil
}

// credentialField is the field that the engine's own token comes from.
func (v *vault) credentialField() string {
	if v.own.source.again() {
		return "role_id"
	}
	return "token"
}

func (v *vault) warnings(about about) (warnings []string) {
	if slices.Contains(about.Policies, "root") {
		warnings = append(warnings, "token is a root token: make one for this engine, with the policy in "+policyFile)
	}
	for _, policy := range about.Policies {
		if strings.HasPrefix(policy, namePrefix) {
			warnings = append(warnings, fmt.Sprintf("the engine's own policy is called %s: with a name that starts with %s it could rewrite it", policy, namePrefix))
		}
	}
	if !v.own.source.again() && about.Seconds > 0 && (!about.Renewable || about.Period == 0 || about.Longest > 0) {
		warnings = append(warnings, "token can't be renewed for ever, and with its end this target stops: make an orphan with a period, or use an AppRole")
	}
	if !v.own.source.again() && about.Uses > 0 {
		warnings = append(warnings, "token is good for a number of requests only, and then this target stops: make one without num_uses")
	}
	if why := v.own.current().why; why != nil {
		warnings = append(warnings, "token lives, and could not be renewed: "+invalid.Clip(why.Error()))
	}
	if v.client.address.Scheme == "http" && !isLoopback(v.client.address.Hostname()) {
		warnings = append(warnings, "address is plain http: every token crosses the network in clear")
	}
	return warnings
}

func isLoopback(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || (address != nil && address.IsLoopback())
}

// explain turns a failed verification into what the operator can mend.
func (v *vault) explain(err error) error {
	const unverified = ", or write verify_connection=false"
	var unreachable *url.Error
	address := v.client.address.String()
	switch status := statusOf(err); {
	case errors.As(err, &unreachable) && strings.Contains(unreachable.URL, v.client.address.Host):
		return invalid.Field("address", address, "the Vault can't be reached: "+invalid.Clip(unreachable.Err.Error()), "check the URL, ca_cert, and that the Vault runs"+unverified)
	case status == http.StatusServiceUnavailable:
		return invalid.Field("address", address, "the Vault is sealed, or does not answer as it should", "unseal it"+unverified)
	case v.own.source.again() && (status == http.StatusBadRequest || status == http.StatusForbidden):
		return invalid.Hidden("secret_id", "the Vault does not take role_id and secret_id: "+invalid.Clip(err.Error()), "check both, approle_mount and namespace"+unverified)
	case status == http.StatusForbidden:
		return invalid.Hidden("token", "the Vault does not know it, or it may not look at itself", "give a token with the policy in "+policyFile)
	default:
		return invalid.Field("address", address, "the Vault does not answer as it should: "+invalid.Clip(err.Error()), "check the URL and namespace"+unverified)
	}
}
