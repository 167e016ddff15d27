package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	target "github.com/precision-access/vault-plugin-secrets-precision/internal/provider/vault"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// What every provider has to prove, with a token of the engine's and with an AppRole,
// whether a token is for one request or for any number.
func TestProviderContract(t *testing.T) {
	if _, err := servers.Other.Client.Logical().WriteWithContext(t.Context(), "secret/data/contract/db", map[string]any{"data": map[string]any{"password": "old"}}); err != nil {
		t.Fatal(err)
	}
	token, err := lab.EngineToken(t.Context(), servers.Other.Client, "1h")
	if err != nil {
		t.Fatal(err)
	}
	granted, err := scope.New("update", "secret/data/contract/db")
	if err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string]provider.Settings{
		"token":   {"token": token},
		"approle": {"role_id": servers.Other.RoleID, "secret_id": servers.Other.SecretID},
	} {
		t.Run(name, func(t *testing.T) {
			faults := providertest.NewFaults(t, servers.Other.Address)
			settings["address"] = faults.URL
			providertest.Run(t, providertest.Subject{
				Provider: openTarget(t, settings), Faults: faults, Scope: granted, KeepsTime: true,
				Use: func(ctx context.Context, fields map[string]any) error {
					return request(ctx, servers.Other.Address, fields["token"].(string), http.MethodPut, "secret/data/contract/db", `{"data":{"password":"new"}}`)
				},
				Refused: refused,
				Left:    left,
				Installed: func(ctx context.Context, handle provider.Handle) ([]string, error) {
					policy, err := servers.Other.Client.Sys().GetPolicyWithContext(ctx, handle["policy"])
					if err != nil || policy == "" {
						return nil, err
					}
					return []string{handle["policy"]}, nil
				},
			})
		})
	}
}

// openTarget opens a target as a verified config write does.
func openTarget(t *testing.T, settings provider.Settings) provider.Provider {
	t.Helper()
	opened, err := target.Type().Open(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	verification, err := opened.(provider.Verifier).Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(verification.Warnings) > 0 {
		t.Errorf("verifying warns: %q", verification.Warnings)
	}
	if opened, err = target.Type().Open(settings, verification.Facts); err != nil {
		t.Fatal(err)
	}
	return opened
}

// left lists the token roles of a grant, and the tokens that live although their
// answers were lost.
func left(ctx context.Context, grantID string, swallowed [][]byte) (left []string, err error) {
	roles, err := servers.Other.Client.Logical().ListWithContext(ctx, "auth/token/roles")
	if err != nil {
		return nil, err
	}
	if roles != nil {
		for _, name := range roles.Data["keys"].([]any) {
			if len(name.(string)) > len(grantID) && name.(string)[len(name.(string))-len(grantID):] == grantID {
				left = append(left, "token role "+name.(string))
			}
		}
	}
	for _, body := range swallowed {
		var answer api.Secret
		if json.Unmarshal(body, &answer) != nil || answer.Auth == nil {
			continue // the answer to another call
		}
		if _, err := servers.Other.Client.Auth().Token().LookupAccessorWithContext(ctx, answer.Auth.Accessor); err == nil {
			left = append(left, "token "+answer.Auth.Accessor)
		}
	}
	return left, nil
}

// answerError is an answer that is no success.
type answerError struct {
	what   string
	status int
	says   string
}

func (e answerError) Error() string {
	return fmt.Sprintf("%s: status %d: %s", e.what, e.status, e.says)
}
