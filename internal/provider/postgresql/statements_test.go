package postgresql

import (
	"errors"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// TestStatementsRun has what a command may hold.
func TestStatementsRun(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"UPDATE t SET a = 1",
		"update t set a = 1; ; -- done\n",
		"ALTER TABLE t ADD COLUMN c integer; UPDATE t SET c = 1;",
		"ALTER TABLE t DETACH PARTITION p",
		"ALTER DATABASE d SET work_mem = '4MB'",
		"CREATE INDEX i ON t (a)",
		"CREATE INDEX i ON t (\"concurrently\") -- CONCURRENTLY\n",
		"REINDEX TABLE t",
		"REFRESH MATERIALIZED VIEW CONCURRENTLY v",
		"CLUSTER t USING i",
		"CLUSTER (VERBOSE) t",
		"COPY t FROM '/tmp/rows'",
		"COPY t (stdin) TO PROGRAM 'cat'",
		"CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false)",
		"SET LOCAL work_mem = '4MB'",
		"SET CONSTRAINTS ALL DEFERRED",
		"SELECT 'BEGIN; COMMIT', $$VACUUM; $1$$, $q$ ; $$ ; $q$, E'it\\'s; $1', \"a;b\"",
		"SELECT E'a'\n  -- more\n  '\\';' AS b",
		"SELECT 1 /* a /* nested; */ \\ */",
		"SELECT a AS into, s.into FROM s",
		"WITH gone AS (DELETE FROM t RETURNING a) INSERT INTO u SELECT a FROM gone",
		"WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DO NOTHING",
		"(SELECT 1) UNION SELECT 2",
		"DO $$ BEGIN EXECUTE 'VACUUM' USING $1; END $$",
		"CREATE FUNCTION f(a integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a > 1 THEN 2 END; END; SELECT 1",
		"CREATE OR REPLACE PROCEDURE f() BEGIN ATOMIC DELETE FROM t; END",
		"CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; DELETE FROM v)",
		"CREATE TABLE atomic (begin_atomic integer)",
		"VALUES (1.5e-3, .5, 0x1f, U&'d\\0061t', U&\"d\\0061t\", x'ff', n'a')",
		"SELECT 1 WHERE 1-- one\n=1",
	} {
		if err := checkCommand("command", text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestStatementsRefused has what it may not, and what the refusal says of it.
func TestStatementsRefused(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                        "no statement",
		" ; -- nothing\n;":        "no statement",
		"vacuum t":                "transaction",
		"SELECT 1; Vacuum Full t": "statement 2",
		"/* a */ CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)":     "CONCURRENTLY",
		"REINDEX (VERBOSE, CONCURRENTLY) TABLE t":                 "CONCURRENTLY",
		"REINDEX (VERBOSE) SCHEMA s":                              "each table",
		"CLUSTER":                                                 "without a table",
		"CLUSTER VERBOSE;":                                        "without a table",
		"CLUSTER (VERBOSE)":                                       "without a table",
		"ALTER TABLE t DETACH PARTITION p CONCURRENTLY":           "transaction",
		"ALTER DATABASE d SET TABLESPACE x":                       "transaction",
		"CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p": "slot",
		"BEGIN": "one transaction",
		"UPDATE t SET a = 1; COMMIT; DROP TABLE t": "statement 2",
		"END":                               "one transaction",
		"COMMIT PREPARED 'x'":               "one transaction",
		"PREPARE TRANSACTION 'x'":           "one transaction",
		"SAVEPOINT s":                       "EXECUTE",
		"SET TRANSACTION READ ONLY":         "READ COMMITTED",
		"SET ROLE x":                        "run_as",
		"SET LOCAL ROLE x":                  "run_as",
		"SET SESSION \"Role\" TO x":         "run_as",
		"SET SESSION AUTHORIZATION x":       "run_as",
		"SET LOCAL SESSION AUTHORIZATION x": "run_as",
		"RESET ROLE":                        "caller's session",
		"RESET ALL":                         "caller's session",
		"SET DateStyle TO DEFAULT":          "caller's session",
		"SET TIME ZONE LOCAL":               "caller's session",
		"SET search_path = s":               "pg_temp",
		"SET LOCAL \"search_path\" TO s":    "pg_temp",
		"SET SCHEMA 's'":                    "pg_temp",
		"SELECT pg_catalog.set_config('search_path', '', false)": "search_path",
		"SELECT set_config( /* x */ E'role', 'x', true)":         "role",
		"DISCARD ALL":                                 "caller's session",
		"COPY t FROM STDIN":                           "rows",
		"COPY (SELECT 1) TO STDOUT":                   "rows",
		"SELECT 1 INTO t":                             "CREATE TABLE",
		"SELECT 1 INTO TEMP t; SELECT 1":              "CREATE TABLE",
		"WITH a AS (SELECT 1) SELECT * INTO t FROM a": "CREATE TABLE",
		"(SELECT 1 INTO t)":                           "CREATE TABLE",
		"PREPARE p AS SELECT 1":                       "caller's",
		"EXECUTE p":                                   "caller's",
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1":     "caller's",
		"FETCH c":                                     "caller's",
		"LISTEN c":                                    "caller's",
		"LOAD 'x'":                                    "caller's",
		"SELECT $1":                                   "parameter $1",
		"\\i other.sql":                               "psql",
		"SELECT 1;\n\\.":                              "psql",
		"SELECT 'a":                                   "unterminated quote",
		"SELECT \"a":                                  "unterminated quote",
		"SELECT E'a\\'":                               "unterminated quote",
		"SELECT $a$ $b$":                              "$a$ is unterminated",
		"SELECT $ 1":                                  "$",
		"SELECT /* /* */ 1":                           "unterminated comment",
		"SELECT (1":                                   "not closed",
		"SELECT 1)":                                   "not opened",
		"SELECT 1\x00":                                "NUL",
		"SELECT '\xff'":                               "UTF-8",
		"\ufeffSELECT 1":                              "byte order mark",
		"FROBNICATE t":                                "not known",
		"SELECT E'a'\n'\\'; VACUUM":                   "unterminated quote",
		"SELECT 'a' '\\'; VACUUM":                     "statement 2",
		"CREATE FUNCTION f() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1; END; VACUUM": "statement 2",
		"SELECT a$$; VACUUM; SELECT a$$": "statement 2",
	} {
		err := checkCommand("command", text)
		var refused *invalid.Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %q does not say %q", text, err, says)
		}
		if refused.Field != "command" || refused.Problem == "" || refused.Remedy == "" {
			t.Errorf("%s: %+v", text, refused)
		}
	}
}

// TestStatementRules has every line of the table say something or nothing in full.
func TestStatementRules(t *testing.T) {
	t.Parallel()
	for _, rule := range statementRules {
		if len(rule.begins) == 0 || (rule.why == "") != (rule.instead == "") {
			t.Errorf("%+v", rule)
		}
	}
}

// FuzzLex has tokens that are all of the text but spaces and comments, in order.
func FuzzLex(f *testing.F) {
	for _, seed := range []string{
		"SELECT 1", "a$b$ $1 $$x$$ $t$;$t$", "E'\\'' 'a''b' \"c\"\"d\" U&'x'", "/* /* */ */ -- x\ny", "E'a'\n--x\n'\\''", "1..2 1e-5 .5", "((;))", "CREATE FUNCTION f() BEGIN ATOMIC CASE END; END; x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := lex(text)
		if err != nil {
			return
		}
		at := 0
		for _, next := range tokens {
			if next.start < at || next.end <= next.start || next.end > len(text) || next.kind == 0 || next.depth < 0 {
				t.Fatalf("%+v after %d", next, at)
			}
			between(t, text[at:next.start])
			at = next.end
		}
		between(t, text[at:])
		count := 0
		for _, statement := range split(tokens) {
			count += len(statement)
			statement.refused()
			statement.source(text)
		}
		if count > len(tokens) {
			t.Fatalf("%d tokens have become %d", len(tokens), count)
		}
		// What is put into quotes is one token, whatever it is.
		quoted, err := lex(dollarQuoted(text))
		if err != nil || len(quoted) != 1 || quoted[0].text != text {
			t.Fatalf("%q: %v, %v", text, quoted, err)
		}
		// A last query is a part of the command.
		if before, last := lastQuery(text); last != "" && (!strings.HasPrefix(text, before) || !strings.HasPrefix(text[len(before):], last) && before != "" || !strings.Contains(text, last)) {
			t.Fatalf("%q has become %q and %q", text, before, last)
		}
	})
}

// between fails unless a text is spaces and comments.
func between(t *testing.T, text string) {
	t.Helper()
	for {
		text = strings.TrimLeft(text, " \t\n\r\f\v")
		if text == "" {
			return
		}
		if !strings.HasPrefix(text, "--") && !strings.HasPrefix(text, "/*") {
			t.Fatalf("%q is left out", text)
		}
		if strings.HasPrefix(text, "/*") {
			return // as far as comments go into each other, the text is a comment
		}
		_, text, _ = strings.Cut(strings.ReplaceAll(text, "\r", "\n"), "\n")
	}
}
