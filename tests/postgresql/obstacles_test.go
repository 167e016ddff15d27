package postgresql

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// crafted are obstacles of kinds that the gifts of strangers above are not: columns of a
// view, what another than the owner has given, policies, memberships given on, and a
// database and a tablespace, which DROP OWNED leaves alone.
const crafted = `SET ROLE shop_helper; CREATE VIEW helping.shown AS SELECT a FROM helping.own; CREATE DOMAIN helping.small AS int; CREATE AGGREGATE helping.most(int) (sfunc = int4larger, stype = int);
GRANT SELECT ON helping.shown TO {login}; GRANT SELECT (a) ON helping.shown TO {login}; GRANT USAGE ON TYPE helping.small TO {login}; GRANT EXECUTE ON FUNCTION helping.most(int) TO {login};
GRANT USAGE ON SCHEMA helping TO shop_team; GRANT SELECT ON helping.own TO shop_team WITH GRANT OPTION; GRANT SELECT ON helping.own TO {login};
CREATE POLICY theirs ON helping.own TO {login}; RESET ROLE; SET ROLE shop_team; GRANT SELECT ON helping.own TO {login}; RESET ROLE;
CREATE SERVER helping_server FOREIGN DATA WRAPPER {wrapper}; CREATE USER MAPPING FOR {login} SERVER helping_server; GRANT USAGE ON FOREIGN SERVER helping_server TO {login}; GRANT SET ON PARAMETER work_mem TO {login};
GRANT shop_team TO {login} WITH ADMIN OPTION`

// The statements that tidy-status shows remove every kind of object that keeps a revoked
// login from being dropped.
func TestRemediesOfEveryKind(t *testing.T) {
	everyVersion(t, func(t *testing.T) {
		s := newShop(t)
		s.withHelper()
		m := newMount(t)
		m.configure(s, servers.PostgreSQL.Engine)
		m.role("deletes", deletes)
		minted := m.mint("deletes/JIRA-1")
		oid := s.oid(minted.login)
		wrapper, database := s.name+"_wrapper", s.name+"_theirs"
		s.exec("CREATE FOREIGN DATA WRAPPER " + wrapper)
		s.exec("CREATE DATABASE " + database)
		defer s.exec("DROP DATABASE " + database)
		s.exec("REVOKE ALL ON DATABASE " + database + " FROM PUBLIC")
		s.exec("ALTER DATABASE " + database + " OWNER TO " + minted.login.Name)
		s.exec(strings.NewReplacer("{login}", minted.login.Name, "{wrapper}", wrapper).Replace(crafted))
		holding := s.connect(minted.login)
		attempt(holding, "GRANT "+team+" TO "+app.Name)
		kinds := s.text("SELECT count(*) FROM pg_shdepend WHERE refobjid = $1::text::oid", oid)
		m.revoke(minted)
		s.dead("many kinds", minted, oid)
		var last string
		left := func() string {
			return strings.Join(s.list("SELECT pg_describe_object(classid, objid, objsubid) FROM pg_shdepend WHERE refobjid = $1::text::oid AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))", oid), "; ")
		}
		defer func() {
			if t.Failed() {
				t.Logf("left: %q, the last remedy: %q", left(), last)
			}
		}()
		eventually(t, "the login is gone", 2*time.Minute, func() bool {
			m.write("tidy", nil)
			for _, remedy := range m.remedies() {
				last = remedy
				if _, err := s.super.PgConn().Exec(context.Background(), remedy).ReadAll(); err != nil {
					t.Errorf("%s: %v", remedy, err)
				}
			}
			return s.text("SELECT count(*) FROM pg_roles WHERE oid = $1::text::oid", oid) == "0"
		})
		if !strings.Contains(last, "REVOKE") && !strings.Contains(last, "OWNER TO") {
			t.Errorf("the remedy was %q", last)
		}
		figures.Log(t, "%s kinds of obstacles to dropping a revoked login: all gone after the statements that are shown", kinds)
	})
}
