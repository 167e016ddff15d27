package postgresql

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	provided "github.com/precision-access/vault-plugin-secrets-precision/internal/provider/postgresql"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The provider proves what the contract demands, for a privilege and for a
// predefined command.
func TestProviderContract(t *testing.T) {
	for name, subject := range map[string]struct {
		action, resource string
		options          provider.Settings
		use              func(context.Context, *pgx.Conn, map[string]any) error
	}{
		"SELECT": {"SELECT", "ledger.entries(id)", nil, func(ctx context.Context, session *pgx.Conn, _ map[string]any) error {
			_, err := session.Exec(ctx, "SELECT id FROM ledger.entries")
			return err
		}},
		"RUN": {"RUN", "", provider.Settings{"command": "UPDATE ledger.accounts SET owner = owner", "run_as": owner}, func(ctx context.Context, session *pgx.Conn, fields map[string]any) error {
			_, err := session.Exec(ctx, fields["command"].(string))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			forEngines(t, func(t *testing.T, engine lab.Login) {
				s := newShop(t)
				s.exec("ALTER SCHEMA precision OWNER TO " + engine.Name)
				resource := subject.resource
				if resource == "" {
					resource = strconv.Quote(s.name)
				}
				granted, err := scope.New(subject.action, resource)
				if err != nil {
					t.Fatal(err)
				}
				lossy := newNetwork(t, net.JoinHostPort(servers.PostgreSQL.Host, strconv.Itoa(servers.PostgreSQL.Port)))
				providertest.Run(t, providertest.Subject{
					Provider: open(t, provider.Settings{
						"username": engine.Name, "password": engine.Password,
						"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", lossy.address, s.name),
					}),
					Faults: lossy, Scope: granted, Options: subject.options, KeepsTime: true,
					Refused: func(err error) bool { return code(err) == "28P01" || code(err) == "28000" },
					Use: func(ctx context.Context, fields map[string]any) error {
						session, err := servers.PostgreSQL.Connect(ctx, lab.Login{Name: fields["username"].(string), Password: fields["password"].(string)}, s.name)
						if err != nil {
							return err
						}
						defer session.Close(ctx)
						return subject.use(ctx, session, fields)
					},
					Left: func(_ context.Context, id string, _ [][]byte) ([]string, error) {
						return s.list("SELECT rolname FROM pg_roles WHERE rolname LIKE '%' || $1 UNION ALL SELECT 'session ' || pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename IS NULL", id), nil
					},
					Installed: func(_ context.Context, handle provider.Handle) ([]string, error) {
						return s.list("SELECT rolname FROM pg_roles WHERE rolname = $1 UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE starts_with(proname, $1)", handle["holder"]), nil
					},
				})
			})
		})
	}
}

// open opens a target as a verified config write does.
func open(t *testing.T, settings provider.Settings) provider.Provider {
	t.Helper()
	opened, err := provided.Type().Open(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	verification, err := opened.(provider.Verifier).Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if opened, err = provided.Type().Open(settings, verification.Facts); err != nil {
		t.Fatal(err)
	}
	return opened
}

// list is the only column of what a query finds.
func (s *shop) list(query string, values ...any) []string {
	s.t.Helper()
	rows, err := s.super.Query(s.t.Context(), query, values...)
	if err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return list
}
