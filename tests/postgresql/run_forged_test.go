package postgresql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// The procedure with the command's text lets in the one that commits alone. It knows
// it by the server's text of who has called whom, in which a caller that may make
// temporary functions can have names of his own.
func TestRunForgedCallers(t *testing.T) {
	oldestAndNewest(t, func(t *testing.T) {
		forEngines(t, func(t *testing.T, engine lab.Login) {
			s := newShop(t)
			m := newMount(t)
			m.configure(s, engine)
			s.exec("GRANT TEMPORARY ON DATABASE " + s.name + " TO PUBLIC")
			tried := 0
			for _, once := range []bool{false, true} {
				m.role("run", map[string]any{"action": "RUN", "resource": s.name, "command": month, "run_as": owner, "run_once": once, "tolerate_ambient": "TEMPORARY on database " + s.name})
				minted := m.mint("run/JIRA-1")
				session := s.connect(minted.login)
				called := strings.TrimSuffix(strings.TrimPrefix(minted.command, "CALL "), "()")
				parts := []string{"_text"}
				if once {
					parts = append(parts, "_once")
				}
				for _, part := range parts {
					inner := quotedSuffix(called, part) + "()"
					line := map[string]int{"_text": 7, "_once": 6}[part]
					frame := fmt.Sprintf("PL/pgSQL function %s() line %d at CALL", strings.NewReplacer(`"precision"`, "«", `"`, "", "«", `"precision"`).Replace(called), line)
					for _, name := range []string{"x", frame, "\n" + frame, "x\n" + frame + "\n", frame[len(frame)-60:], "\n" + frame[len(frame)-60:], `"precision".`} {
						if len(name) > 63 {
							name = name[len(name)-63:] // as the server cuts it, but from the other end
						}
						name = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
						for kind, call := range map[string]string{
							"FUNCTION pg_temp.%[1]s() RETURNS void LANGUAGE sql AS $f$ CALL %[2]s $f$":                        "SELECT",
							"FUNCTION pg_temp.%[1]s() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN CALL %[2]s; END $f$":         "SELECT",
							"PROCEDURE pg_temp.%[1]s() LANGUAGE sql AS $f$ CALL %[2]s $f$":                                    "CALL",
							"PROCEDURE pg_temp.%[1]s() LANGUAGE plpgsql AS $f$ BEGIN CALL %[2]s; END $f$":                     "CALL",
							"PROCEDURE pg_temp.%[1]s() LANGUAGE plpgsql AS $f$ BEGIN COMMIT; EXECUTE 'CALL %[2]s'; END $f$":   "CALL",
							"PROCEDURE pg_temp.%[1]s() LANGUAGE plpgsql AS $f$ \n\n\n\n\n\nBEGIN CALL %[2]s; COMMIT; END $f$": "CALL",
						} {
							for _, statement := range []string{"CREATE " + fmt.Sprintf(kind, name, inner), call + " pg_temp." + name + "()", "DROP ROUTINE pg_temp." + name + "()"} {
								_, err := session.Exec(t.Context(), statement)
								if forged := strings.HasPrefix(statement, call); forged == (err == nil) {
									t.Errorf("%s: %v", statement, err)
								}
							}
							tried++
						}
					}
					for _, statement := range []string{
						"CALL " + inner, "DO $do$ BEGIN CALL " + inner + "; END $do$", "SELECT query_to_xml('CALL " + inner + "', true, true, '')", "SELECT * FROM cursor_to_xml('CALL " + inner + "', 1, true, true, '')",
						"SET search_path = precision; CALL " + inner, "SET log_parameter_max_length_on_error = -1; DO $do$ BEGIN EXECUTE 'CALL " + inner + "'; END $do$",
					} {
						if _, err := session.PgConn().Exec(t.Context(), statement).ReadAll(); err == nil {
							t.Errorf("%s has run", statement)
						}
						tried++
					}
				}
				if s.ran() {
					t.Error("the command has run, and not by its own procedure")
				}
				if _, err := session.Exec(t.Context(), minted.command); err != nil || !s.ran() {
					t.Errorf("the command does not run after all that: %v", err)
				}
				m.revoke(minted)
			}
			figures.Log(t, "%d callers of a command's text that are not its own procedure: none gets in", tried)
		})
	})
}

// Messages that follow one another without an end between them are one transaction to
// the server. What the command has done is committed when it is done, all the same.
func TestRunInAPipeline(t *testing.T) {
	s, m := runs(t, servers.PostgreSQL.Engine)
	minted := m.mint("run/JIRA-1")

	open := s.connect(minted.login).PgConn().StartPipeline(t.Context())
	open.SendQueryParams("SELECT 1", nil, nil, nil, nil)
	open.SendQueryParams(minted.command, nil, nil, nil, nil)
	open.SendFlushRequest()
	if err := open.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		result, err := open.GetResults()
		if err == nil {
			_, err = result.(*pgconn.ResultReader).Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !s.ran() {
		t.Error("the command is held open by its caller")
	}
	_ = open.Close() // it was not ended

	failing := s.connect(minted.login).PgConn().StartPipeline(t.Context())
	failing.SendQueryParams(minted.command, nil, nil, nil, nil)
	failing.SendQueryParams("SELECT 1 / 0", nil, nil, nil, nil)
	if err := failing.Sync(); err != nil {
		t.Fatal(err)
	}
	_ = failing.Close() // says that the second has failed
	if !s.ran() {
		t.Error("the command was taken back by what followed it")
	}
	m.revoke(minted)
}
