package tests

import (
	"context"
	"encoding/xml"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/minio"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
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
	elsewhere := map[string]string{"kubernetes": "tests/kubernetes", "postgresql": "tests/postgresql", "vault": "tests/vault"}
	for _, kind := range registry.Types() {
		subjectOf, here := subjects[kind.Name]
		if !here {
			if elsewhere[kind.Name] == "" {
				t.Errorf("nothing proves what the contract demands of type %s", kind.Name)
			}
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			subject := subjectOf(t, kind)
			subject.Scope, subject.Refused = uploading, refused
			providertest.Run(t, subject)
		})
	}
}

// It holds for sessions of MinIO whose roles are isolated, too.
func TestProviderContractOfIsolatedRoles(t *testing.T) {
	uploading, err := scope.New(putObject, uploads)
	if err != nil {
		t.Fatal(err)
	}
	faults := providertest.NewFaults(t, servers.Store.Endpoint)
	providertest.Run(t, providertest.Subject{
		Provider: openProvider(t, minio.Type(), provider.Settings{
			"endpoint": faults.URL, "access_key": servers.Store.Isolating.Access, "secret_key": servers.Store.Isolating.Secret, "isolate_roles": true,
		}),
		Faults: faults, Scope: uploading, Refused: refused, KeepsTime: true,
		Use:  func(ctx context.Context, fields map[string]any) error { return keyIn(fields).inStore(ctx) },
		Left: sessionsLeft,
		Installed: func(ctx context.Context, handle provider.Handle) ([]string, error) {
			return servers.Store.Named(ctx, handle["parent"])
		},
	})
}

// What a provider has to prove holds for sessions of AWS, too. The judge says what
// they may do, from what AWS was told.
func TestProviderContractOfSessions(t *testing.T) {
	uploading, err := scope.New(putObject, uploads)
	if err != nil {
		t.Fatal(err)
	}
	for _, options := range []provider.Settings{
		{"credential_type": "assumed_role", "role_arn": lab.RoleARN(lab.BaseRole2)},
		{"credential_type": "federation_token"},
	} {
		t.Run(options.Text("credential_type"), func(t *testing.T) {
			decide := newCourt(t)
			faults := providertest.NewFaults(t, servers.Cloud.API)
			at := slices.IndexFunc(registry.Types(), func(kind provider.Type) bool { return kind.Name == "aws" })
			opened := openProvider(t, registry.Types()[at], provider.Settings{
				"region": lab.Region, "iam_endpoint": faults.URL, "sts_endpoint": faults.URL,
				"access_key": servers.Cloud.Engine.Access, "secret_key": servers.Cloud.Engine.Secret,
			})
			opened.(provider.Keeper).Remember(emptyLedger{t})
			use := func(key string) error {
				if got := decide.verdicts(time.Now(), key)[0]; got != judge.Allowed {
					return judgedError(got)
				}
				return nil
			}
			judged := func(err error) bool { return errors.As(err, new(judgedError)) }
			providertest.Run(t, providertest.Subject{
				Provider: opened, Faults: faults, Scope: uploading, Options: options, Refused: judged, KeepsTime: true,
				Use: func(_ context.Context, fields map[string]any) error { return use(keyIn(fields).key.Access) },
				Left: func(_ context.Context, _ string, swallowed [][]byte) (left []string, err error) {
					for _, key := range lab.SessionKeys(swallowed) {
						if !judged(use(key)) {
							left = append(left, key)
						}
					}
					return left, nil
				},
			})
		})
	}
}

// judgedError is a verdict that is not Allowed.
type judgedError judge.Verdict

func (e judgedError) Error() string { return "the judge says " + string(e) }

// emptyLedger is the ledger of a mount that has minted nothing before.
type emptyLedger struct{ *testing.T }

func (l emptyLedger) Await(context.Context) error { return nil }

func (l emptyLedger) Identity(context.Context) (mount, id string, err error) {
	return l.Name(), "ledger", nil
}

func (l emptyLedger) OnBase(context.Context, string) ([]provider.Hanging, error) { return nil, nil }

func (l emptyLedger) EndEarly(context.Context, string, func(provider.Handle) bool) error { return nil }

func (l emptyLedger) Life() context.Context { return l.Context() }

func (l emptyLedger) Now() time.Time { return time.Now() }

func (l emptyLedger) Elapsed() time.Duration { return 0 }

func (l emptyLedger) Passive() bool { return false }

func (l emptyLedger) FoundDenied(context.Context, string, func(provider.Handle) bool) error {
	return nil
}

func (l emptyLedger) Recorded(context.Context, string) ([]byte, error) { return nil, nil }

func (l emptyLedger) Record(context.Context, string, []byte) error { return nil }

func (l emptyLedger) Older(context.Context, string, uint64, uint64) error { return nil }

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
