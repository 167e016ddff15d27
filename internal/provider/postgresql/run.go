package postgresql

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// runSpec is one predefined command, and all that decides what it means. It is part
// of the policy.
type runSpec struct {
	Command    string   `json:"command"`
	RunAs      string   `json:"run_as"`                // the role whose rights it has
	Superuser  bool     `json:"superuser,omitempty"`   // whether that one may be a superuser
	Once       bool     `json:"run_once,omitempty"`    // whether each login may run it once only
	SearchPath []string `json:"search_path,omitempty"` // schemas in which unqualified names are looked up
	// Settings are what the server has for what could change the meaning of the
	// command, see runSettings.
	Settings map[string]string `json:"settings"`
}

// runPlace says where a command is installed.
type runPlace struct {
	Schema string // the engine's own
	Name   string // of the procedure to call: small letters, digits and "_", 58 at most
	Holder string // the role that may call it
}

// call is the statement that runs the command.
func (p runPlace) call() string { return "CALL " + p.routine("") }

// routine is a procedure of the place, as SQL.
func (p runPlace) routine(suffix string) string { return ident(p.Schema, p.Name+suffix) + "()" }

// What is installed beside the procedure that is called.
const (
	textSuffix = "_text"    // runs the command's text, as run_as
	onceSuffix = "_once"    // takes the login's one run
	onceTable  = "run_once" // which login has run which command
)

// path is the search_path while the command runs. Without schemas of its own, every
// name but the server's has to be qualified. The caller's temporary tables come
// last; where pg_temp is not named they come first.
func (s runSpec) path() []string {
	if len(s.SearchPath) == 0 {
		return []string{"pg_catalog", "pg_temp"}
	}
	return append(slices.Clone(s.SearchPath), "pg_temp")
}

// synchronousCommit decides what a commit has promised when it returns. Like the
// commit it is not the command's, but of the procedure that is called.
const synchronousCommit = "synchronous_commit"

// pinned is what is set while the command runs, by name.
func (s runSpec) pinned() map[string]string {
	pinned := map[string]string{}
	maps.Copy(pinned, s.Settings)
	delete(pinned, synchronousCommit)
	maps.Copy(pinned, bodyPins)
	return pinned
}

// bodyPins are what the texts of the procedures themselves depend on.
var bodyPins = map[string]string{"standard_conforming_strings": "on", "quote_all_identifiers": "off"}

// procedure is one of those that a command needs.
type procedure struct {
	name, body string
	owner      string // empty for the engine
	definer    bool   // whether it runs with its owner's rights
	path       []string
	settings   map[string]string
}

// procedures are what is installed for a command; the one that is called is first.
func (s runSpec) procedures(at runPlace) []procedure {
	list := []procedure{
		{name: at.Name, body: s.wrapperBody(at)},
		{name: at.Name + textSuffix, body: s.textBody(at), owner: s.RunAs, definer: true, path: s.path(), settings: s.pinned()},
	}
	if s.Once {
		list = append(list, procedure{name: at.Name + onceSuffix, body: onceBody(at), definer: true, path: []string{"pg_catalog", "pg_temp"}, settings: bodyPins})
	}
	return list
}

// Lines of wrapperBody. What is called on one looks at its caller on the same line of
// its own, see calledBy.
const (
	onceLine = 6
	textLine = 7
)

// wrapperBody commits what the command has done, so that no caller can roll it back
// or hold it open. In a transaction of the caller's the first COMMIT fails; in a
// batch of messages it ends what the batch has begun.
func (s runSpec) wrapperBody(at runPlace) string {
	once := "NULL"
	if s.Once {
		once = "CALL " + at.routine(onceSuffix)
	}
	durable := s.Settings[synchronousCommit]
	if durable == "" {
		durable = "on"
	}
	return `
BEGIN
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE;
  SET LOCAL synchronous_commit = ` + literal(durable) + `;
  ` + once + `;
  CALL ` + at.routine(textSuffix) + `;
  COMMIT;
END
`
}

// textBody checks who calls, and when, and runs the command as one text. What is
// deferred to the commit runs before the pins and the rights of run_as are gone.
func (s runSpec) textBody(at runPlace) string {
	quote := dollarQuote(s.Command)
	return calledBy(at, textSuffix, textLine) + `
  SELECT r.rolvaliduntil INTO ends FROM pg_catalog.pg_roles r WHERE r.rolname = session_user;
  IF ends IS NULL OR pg_catalog.clock_timestamp() >= ends THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the time of this login is over';
  END IF;
  IF pg_catalog.current_setting('session_replication_role') <> 'origin' THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'session_replication_role is not origin: triggers and foreign keys would be left out';
  END IF;
  EXECUTE ` + quote + s.Command + quote + `;
  SET CONSTRAINTS ALL IMMEDIATE;
  IF pg_catalog.clock_timestamp() >= ends THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the time of this login was over before its command was done';
  END IF;
END
`
}

// onceBody takes the login's one run. A second session of the login waits for the
// first to commit or to fail; what has failed may be run again.
func onceBody(at runPlace) string {
	return calledBy(at, onceSuffix, onceLine) + `
  INSERT INTO ` + ident(at.Schema, onceTable) + ` (command, login) VALUES (` + literal(at.Name) + `, session_user) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'this login has run its command, and may do so once';
  END IF;
END
`
}

// calledBy lets only the wrapper pass that the client itself has called. The stack is
// text in the server's language, with other people's names in it, so the caller's
// frame is made from one's own, and it has to be the last: there are three lines, of
// oneself, of the statement and of the caller. Whatever else is between or above
// adds one. Both are on the same line of their texts. It begins a body.
func calledBy(at runPlace, suffix string, line int) string {
	server := func(name string) string {
		return fmt.Sprintf("pg_catalog.format('%%I.%%I()', %s, %s)", literal(at.Schema), literal(name))
	}
	frame := func(wrapper string) string {
		return fmt.Sprintf("pg_catalog.replace(pg_catalog.replace(frames[1], %s, %s), 'GET DIAGNOSTICS', 'CALL')", server(at.Name+suffix), wrapper)
	}
	const before = 4 // lines of a body up to here
	return "\nDECLARE stack pg_catalog.text; frames pg_catalog.text[]; ends pg_catalog.timestamptz;\nBEGIN" + strings.Repeat("\n", line-before+1) +
		`  GET DIAGNOSTICS stack = PG_CONTEXT;
  frames := pg_catalog.string_to_array(stack, pg_catalog.chr(10));
  IF pg_catalog.cardinality(frames) <> 3 OR frames[3] NOT IN (
    ` + frame(server(at.Name)) + `,
    ` + frame(literal(at.routine(""))) + `) THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = ` + literal("call it by itself: "+at.call()) + `;
  END IF;
`
}

// dollarQuote is a quote that a text does not have in it. No setting changes what is
// between two of them.
func dollarQuote(text string) string {
	quote := "$command$"
	for n := 1; strings.Contains(text, quote); n++ {
		quote = fmt.Sprintf("$command%d$", n)
	}
	return quote
}

// create is the statement that makes the procedure.
func (p procedure) create(schema string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "CREATE PROCEDURE %s() LANGUAGE plpgsql", ident(schema, p.name))
	if p.definer {
		text.WriteString(" SECURITY DEFINER")
	}
	if len(p.path) > 0 {
		quoted := make([]string, len(p.path))
		for i, schema := range p.path {
			quoted[i] = ident(schema)
		}
		text.WriteString(" SET search_path = " + strings.Join(quoted, ", "))
	}
	for _, name := range inSettingOrder(p.settings) {
		fmt.Fprintf(&text, " SET %s = %s", ident(strings.Split(name, ".")...), literal(p.settings[name]))
	}
	text.WriteString(" AS " + literal(p.body))
	return text.String()
}

// inSettingOrder puts first what decides how the values of others are written, since
// they are set one after another.
func inSettingOrder(settings map[string]string) []string {
	names := slices.Sorted(maps.Keys(settings))
	slices.SortStableFunc(names, func(a, b string) int {
		_, first := bodyPins[a]
		_, second := bodyPins[b]
		switch {
		case first == second:
			return 0
		case first:
			return -1
		default:
			return 1
		}
	})
	return names
}

// bodyHash is the hash of a procedure's text as runMatches has the server take it.
func (p procedure) bodyHash() string {
	sum := sha256.Sum256([]byte(p.body))
	return hex.EncodeToString(sum[:])
}

// config is what pg_proc.proconfig has, in order and without the search_path, whose
// quoting is the server's.
func (p procedure) config() string {
	var lines []string
	for name, value := range p.settings {
		lines = append(lines, name+"="+value)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
