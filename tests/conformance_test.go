package tests

import (
	"context"
	"encoding/xml"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Every provider of the registry proves what the contract demands.
func TestProviderContract(t *testing.T) {
	uploading, err := scope.New(putObject, uploads)
	if err != nil {
		t.Fatal(err)
	}
	subjects := map[string]func(*testing.T, provider.Type) providertest.Subject{
		"minio": func(t *testing.T, kind provider.Type) providertest.Subject {
			faults := providertest.NewFaults(t, servers.Store.Endpoint)
			return providertest.Subject{
				Provider: openProvider(t, kind, provider.Settings{
					"endpoint": faults.URL, "access_key": servers.Store.Engine.Access, "secret_key": servers.Store.Engine.Secret,
				}),
				Faults:    faults,
				Use:       func(ctx context.Context, fields map[string]any) error { return keyIn(fields).inStore(ctx) },
				Left:      sessionsLeft,
				KeepsTime: true,
			}
		},
		"aws": func(t *testing.T, kind provider.Type) providertest.Subject {
			faults := providertest.NewFaults(t, servers.Cloud.API)
			return providertest.Subject{
				Provider: openProvider(t, kind, provider.Settings{
					"region": lab.Region, "iam_endpoint": faults.URL, "sts_endpoint": faults.URL,
					"access_key": servers.Cloud.Engine.Access, "secret_key": servers.Cloud.Engine.Secret,
				}),
				Faults: faults,
				Use:    func(ctx context.Context, fields map[string]any) error { return keyIn(fields).inCloud(ctx) },
				Left:   usersLeft,
				Renews: true,
				// KeepsTime is not: moto does not look at conditions.
			}
		},
	}
	for _, kind := range registry.Types() {
		t.Run(kind.Name, func(t *testing.T) {
			subject := subjects[kind.Name](t, kind)
			subject.Scope, subject.Refused = uploading, refused
			providertest.Run(t, subject)
		})
	}
}

// openProvider opens a target as a verified config write does.
func openProvider(t *testing.T, kind provider.Type, settings provider.Settings) provider.Provider {
	t.Helper()
	opened, err := kind.Open(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	verification, err := opened.(provider.Verifier).Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if opened, err = kind.Open(settings, verification.Facts); err != nil {
		t.Fatal(err)
	}
	return opened
}

func keyIn(fields map[string]any) credential {
	text := func(name string) string { value, _ := fields[name].(string); return value }
	return credential{key: lab.Key{Access: text("access_key"), Secret: text("secret_key"), Token: text("session_token")}}
}

// sessionsLeft finds sessions of which the engine never got the answer, and
// that work.
func sessionsLeft(ctx context.Context, _ string, swallowed [][]byte) ([]string, error) {
	var left []string
	for _, body := range swallowed {
		var answer struct {
			Session struct {
				AccessKeyID     string `xml:"AccessKeyId"`
				SecretAccessKey string
				SessionToken    string
			} `xml:"AssumeRoleResult>Credentials"`
		}
		if xml.Unmarshal(body, &answer) != nil || answer.Session.AccessKeyID == "" {
			continue // the answer to another call
		}
		lost := credential{key: lab.Key{Access: answer.Session.AccessKeyID, Secret: answer.Session.SecretAccessKey, Token: answer.Session.SessionToken}}
		if !refused(lost.inStore(ctx)) {
			left = append(left, answer.Session.AccessKeyID)
		}
	}
	return left, nil
}

func usersLeft(ctx context.Context, grantID string, _ [][]byte) ([]string, error) {
	users, err := servers.Cloud.Users(ctx)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, user := range users {
		if user.Tags["precision:grant"] == grantID {
			left = append(left, user.Name)
		}
	}
	return left, nil
}
