package postgresql

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/docs"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The documentation's story, as it is printed.
func TestTheStoryOfTheDocumentation(t *testing.T) {
	const database = "shop"
	p := servers.PostgreSQL
	s := shopNamed(t, database)
	s.exec(`CREATE SCHEMA ledger AUTHORIZATION shop_owner; SET ROLE shop_owner;
CREATE TABLE ledger.entries (id int PRIMARY KEY, at timestamptz, amount numeric, note text, card text);
INSERT INTO ledger.entries VALUES (1, '2025-11-03', 12, 'a', '4111'), (2, '2025-12-24', 30, 'b', '4222'), (3, '2026-02-01', 9, 'c', '4333'); RESET ROLE`)
	files := map[string]string{"ca.pem": p.CA}
	root, err := lab.Repository()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"engine.sql", "public.sql"} {
		text, err := os.ReadFile(filepath.Join(root, "deploy", "postgresql", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	if err := servers.Vault.Client.Sys().PutPolicyWithContext(t.Context(), "alice", `path "precision/creds/*" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	alice, err := servers.Vault.Client.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := servers.Vault.Client.Sys().UnmountWithContext(context.Background(), "precision"); err != nil {
			t.Error(err)
		}
	})
	environment := docs.Vault(servers.Vault)
	for i, variable := range environment {
		if rest, is := strings.CutPrefix(variable, "PATH="); is {
			environment[i] = "PATH=" + filepath.Dir(p.Psql(t.Context(), lab.Login{}).Path) + ":" + rest
		}
	}
	docs.Play(t, "postgresql.md", docs.Stage{
		Environment: append(environment, "PGHOST="+p.Host, fmt.Sprintf("PGPORT=%d", p.Port), "PGSSLMODE=verify-ca", "PGSSLROOTCERT=ca.pem"),
		People: map[string][]string{
			"":      {"VAULT_TOKEN=" + servers.Vault.Root},
			"dba":   {"PGUSER=" + p.Superuser.Name, "PGPASSWORD=" + p.Superuser.Password},
			"alice": {"VAULT_TOKEN=" + alice.Auth.ClientToken},
		},
		Files: files,
	})
}
