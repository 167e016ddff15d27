package postgresql

import (
	"slices"
	"strings"
	"testing"
)

var (
	examplePlace = runPlace{Schema: "precision", Name: "precision_0123456789ab_h_0123456789abcdef0123456789abcdef", Holder: "precision_0123456789ab_h_0123456789abcdef0123456789abcdef"}
	exampleRun   = runSpec{
		Command: "UPDATE app.t SET a = 'it''s'", RunAs: "app owner", Once: true, SearchPath: []string{"app", "odd \"one"},
		Settings: map[string]string{"DateStyle": "ISO, DMY", "synchronous_commit": "remote_apply", "plpgsql.check_asserts": "on", "quote_all_identifiers": "on", "standard_conforming_strings": "off"},
	}
)

// The callee knows its caller by the line that calls it, which has to be the one that
// it looks at the stack on.
func TestRunLines(t *testing.T) {
	t.Parallel()
	line := func(body, start string) int {
		for i, text := range strings.Split(body, "\n") {
			if strings.HasPrefix(strings.TrimSpace(text), start) {
				return i + 1
			}
		}
		return 0
	}
	query := exampleRun
	query.Command = "UPDATE app.t SET a = 1; SELECT a FROM app.t"
	for _, spec := range []runSpec{exampleRun, query} {
		caller := spec.wrapperBody(examplePlace)
		for suffix, body := range map[string]string{textSuffix: spec.textBody(examplePlace), onceSuffix: spec.onceBody(examplePlace)} {
			if called, looks := line(caller, "CALL "+ident(examplePlace.Schema, examplePlace.Name+suffix)+"("), line(body, "GET DIAGNOSTICS"); called == 0 || called != looks {
				t.Errorf("%s is called on line %d, and looks on line %d", suffix, called, looks)
			}
		}
	}
}

// Names have 63 bytes, and of a longer one the server drops the end.
func TestRunNames(t *testing.T) {
	t.Parallel()
	for _, made := range exampleRun.procedures(examplePlace) {
		if len(made.name) > maxName {
			t.Errorf("%s has %d bytes", made.name, len(made.name))
		}
	}
}

func TestRunPins(t *testing.T) {
	t.Parallel()
	pinned := exampleRun.pinned()
	for name, value := range map[string]string{"DateStyle": "ISO, DMY", "plpgsql.check_asserts": "on", "quote_all_identifiers": "off", "standard_conforming_strings": "on"} {
		if pinned[name] != value {
			t.Errorf("%s is %q, want %q", name, pinned[name], value)
		}
	}
	if value, there := pinned[synchronousCommit]; there {
		t.Errorf("%s=%s is gone before the commit", synchronousCommit, value)
	}
	if body := exampleRun.wrapperBody(examplePlace); !strings.Contains(body, "SET LOCAL synchronous_commit = 'remote_apply'") {
		t.Error(body)
	}
	if exampleRun.Settings["quote_all_identifiers"] != "on" {
		t.Error("the role's own settings were changed")
	}
	for _, made := range exampleRun.procedures(examplePlace)[1:] {
		if made.path[len(made.path)-1] != "pg_temp" || !made.definer {
			t.Errorf("%s: %v", made.name, made.path)
		}
	}
}

// Nobody but the holder may call anything at any time: it is one transaction, which
// gives back what it has taken.
func TestRunInstall(t *testing.T) {
	t.Parallel()
	place := func(statements []string, part string) int {
		return slices.IndexFunc(statements, func(statement string) bool { return strings.HasPrefix(statement, part) })
	}
	for _, member := range []bool{false, true} {
		statements := exampleRun.install(examplePlace, member)
		text := examplePlace.routine(textSuffix, "")
		order := []string{"CREATE PROCEDURE " + text, "REVOKE ALL ON PROCEDURE " + text + " FROM PUBLIC", "GRANT CREATE ON SCHEMA", "ALTER PROCEDURE " + text + ` OWNER TO "app owner"`, "REVOKE CREATE ON SCHEMA"}
		if !member {
			order = append(append([]string{`GRANT "app owner" TO CURRENT_USER`}, order...), `REVOKE "app owner" FROM CURRENT_USER`)
		} else if place(statements, `REVOKE "app owner"`) >= 0 || place(statements, `GRANT "app owner"`) >= 0 {
			t.Error("a membership that was there is taken")
		}
		last := -1
		for _, part := range order {
			if at := place(statements, part); at <= last {
				t.Errorf("%s is statement %d, after %d", part, at, last)
			} else {
				last = at
			}
		}
		for _, made := range exampleRun.procedures(examplePlace) {
			created, closed := place(statements, "CREATE PROCEDURE "+ident("precision", made.name)+"()"), place(statements, "REVOKE ALL ON PROCEDURE "+ident("precision", made.name)+"() FROM PUBLIC")
			if closed != created+1 {
				t.Errorf("%s is made by statement %d, and closed by %d", made.name, created, closed)
			}
		}
		if at := place(statements, "COMMIT"); at >= 0 {
			t.Error("it is not one transaction")
		}
	}
}

// Whatever the command is, the body that runs it is one literal, and the command is
// one in that.
func FuzzRunText(f *testing.F) {
	for _, seed := range []string{"SELECT 1", "$command$ $command1$", "'; DROP TABLE t; --", "SELECT 1; SELECT $command$a$command$ -- b", "\\'; x", "$command", "E'\\'"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, command string) {
		if _, err := lex(command); err != nil {
			return // it is refused
		}
		spec := runSpec{Command: command, RunAs: "x"}
		for _, made := range spec.procedures(examplePlace) {
			tokens, err := lex(made.create("precision"))
			if err != nil {
				t.Fatal(err)
			}
			body := tokens[len(tokens)-1]
			if body.kind != tokenString || strings.ReplaceAll(body.text, "''", "'") != made.body {
				t.Fatalf("the body of %s has become %q", made.name, body.text)
			}
			if made.owner == "" {
				continue
			}
			inside, err := lex(made.body)
			if err != nil {
				t.Fatal(err)
			}
			before, last := lastQuery(command)
			want := []string{command}
			if last != "" {
				if want = []string{last}; before != "" {
					want = []string{before, last}
				}
			}
			var run []string
			for i, next := range inside {
				if next.is("execute") && inside[i+1].kind == tokenString {
					run = append(run, inside[i+1].text)
				}
			}
			if !slices.Equal(run, want) {
				t.Fatalf("the command has become %q, want %q", run, want)
			}
		}
	})
}

// A view that chooses among rows shows more than it returns.
func TestLeavesOut(t *testing.T) {
	t.Parallel()
	for definition, leaves := range map[string]bool{
		" SELECT t.a, t.b FROM s.t;":                                 false,
		" SELECT t.a, t.b FROM s.t ORDER BY t.a, t.b;":               false,
		" SELECT 'where' AS a, count(*) FROM s.t GROUP BY t.a, t.b;": false,
		" SELECT a.a FROM s.a UNION SELECT b.a, b.b FROM s.b;":       false,
		" SELECT t.a FROM s.t WHERE t.b;":                            true,
		" SELECT t.a FROM s.t JOIN s.u USING (a);":                   true,
		" SELECT t.a FROM s.t, s.u;":                                 true,
		" SELECT t.a FROM s.t HAVING t.a > 1;":                       true,
		" SELECT t.a FROM s.t EXCEPT SELECT u.a FROM s.u;":           true,
		" SELECT t.a FROM s.t TABLESAMPLE system (1);":               true,
		" SELECT 'a": true,
	} {
		if got := leavesOut(definition); got != leaves {
			t.Errorf("%s: %v", definition, got)
		}
	}
}

// A right that two things share is told with the statement for each, and one is told
// once.
func TestInOrder(t *testing.T) {
	t.Parallel()
	got := inOrder([]ambientRight{{Name: "b", Close: "2"}, {Name: "a", Close: "1"}, {Name: "b", Close: "1"}, {Name: "b", Close: "2"}})
	if want := []ambientRight{{Name: "a", Close: "1"}, {Name: "b", Close: "1"}, {Name: "b", Close: "2"}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
