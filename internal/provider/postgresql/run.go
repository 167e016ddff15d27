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
	Name       string   `json:"name,omitempty"` // of the role's commands; empty where it has one without a name
	Command    string   `json:"command"`
	RunAs      string   `json:"run_as"`                // the role whose rights it has
	Superuser  bool     `json:"superuser,omitempty"`   // whether that one may be a superuser
	Once       bool     `json:"run_once,omitempty"`    // whether each login may run it once only
	SearchPath []string `json:"search_path,omitempty"` // schemas in which unqualified names are looked up
	// Settings are what the server has for what could change the meaning of the
	// command, see runSettings.
	Settings map[string]string `json:"settings"`
	// Custom are the settings that the role pins besides: those that triggers, policies and
	// functions of the database's own look at, and that any session may set.
	Custom map[string]string `json:"custom_settings,omitempty"`
}

// runPlace says where a command is installed.
type runPlace struct {
	Schema string // the engine's own
	Name   string // of the procedure to call: small letters, digits and "_", 58 at most
	Holder string // the role that may call it
}

// call is the statement that runs the command. The argument of one that returns rows has
// a default.
func (p runPlace) call() string { return "CALL " + p.routine("", "") }

// routine is a procedure of the place with its arguments or their types, as SQL.
func (p runPlace) routine(suffix, arguments string) string {
	return ident(p.Schema, p.Name+suffix) + "(" + arguments + ")"
}

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
	arguments  string // as pg_get_function_arguments writes them
	types      string // of the arguments, as a signature names them
	owner      string // empty for the engine
	definer    bool   // whether it runs with its owner's rights
	path       []string
	settings   map[string]string
}

// Arguments of the procedures of a command that returns rows.
const (
	rowsType     = "json"
	rowsArgument = "INOUT rows " + rowsType
	rowsDefault  = " DEFAULT NULL::" + rowsType
)

// signature is the procedure as GRANT, ALTER and DROP name it.
func (p procedure) signature(schema string) string {
	return ident(schema, p.name) + "(" + p.types + ")"
}

// procedures are what is installed for a command; the one that is called is first.
func (s runSpec) procedures(at runPlace) []procedure {
	list := []procedure{
		{name: at.Name, body: s.wrapperBody(at)},
		{name: at.Name + textSuffix, body: s.textBody(at), owner: s.RunAs, definer: true, path: s.path(), settings: s.pinned()},
	}
	if s.rows() {
		list[0].arguments, list[1].arguments = rowsArgument+rowsDefault, rowsArgument
		list[0].types, list[1].types = rowsType, rowsType
	}
	if s.Once {
		list = append(list, procedure{name: at.Name + onceSuffix, body: s.onceBody(at), definer: true, path: []string{"pg_catalog", "pg_temp"}, settings: bodyPins})
	}
	return list
}

// rows says whether the rows of the command's last statement go to its caller.
func (s runSpec) rows() bool {
	_, last := lastQuery(s.Command)
	return last != ""
}

// types are the types of the arguments of the procedures that have the rows.
func (s runSpec) types() string {
	if s.rows() {
		return rowsType
	}
	return ""
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
		once = "CALL " + at.routine(onceSuffix, "")
	}
	rows := ""
	if s.rows() {
		rows = "rows"
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
  CALL ` + at.routine(textSuffix, rows) + `;
  COMMIT;
END
`
}

// textBody checks who calls, and when, and runs the command as one text. What is
// deferred to the commit runs before the pins and the rights of run_as are gone.
func (s runSpec) textBody(at runPlace) string {
	return s.calledBy(at, textSuffix, s.types(), textLine) + `
  SELECT r.rolvaliduntil INTO ends FROM pg_catalog.pg_roles r WHERE r.rolname = session_user;
  IF ends IS NULL OR pg_catalog.clock_timestamp() >= ends THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the time of this login is over';
  END IF;
  IF pg_catalog.current_setting('session_replication_role') <> 'origin' THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'session_replication_role is not origin: triggers and foreign keys would be left out';
  END IF;` + noTemporaryObjects + seedAgain + s.setCustom() + s.execute() + `
  SET CONSTRAINTS ALL IMMEDIATE;` + seedAgain + `
  IF pg_catalog.clock_timestamp() >= ends THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the time of this login was over before its command was done';
  END IF;
END
`
}

// noTemporaryObjects refuses a session that has temporary objects of another than run_as:
// a table with a trigger of the caller's would take the place of the command's own, and
// the trigger would run as run_as. What the command left there itself may stay.
const noTemporaryObjects = `
  IF EXISTS (SELECT FROM pg_catalog.pg_depend d
             WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = pg_catalog.pg_my_temp_schema() AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_shdepend o JOIN pg_catalog.pg_database b ON b.oid = o.dbid JOIN pg_catalog.pg_roles r ON r.oid = o.refobjid
               WHERE o.classid = d.classid AND o.objid = d.objid AND o.deptype = 'o' AND b.datname = pg_catalog.current_database() AND r.rolname = current_user)) THEN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'this session has temporary objects of its own', HINT = 'Call it in a new session.';
  END IF;`

// seedAgain gives random() a seed that nobody knows: the caller may choose one before the
// command, and work out what the command has drawn after it.
const seedAgain = `
  PERFORM pg_catalog.setseed(('x' || pg_catalog.substr(pg_catalog.replace(pg_catalog.gen_random_uuid()::pg_catalog.text, '-', ''), 1, 12))::pg_catalog.bit(48)::pg_catalog.int8 / 140737488355328.0 - 1);`

// setCustom sets the role's custom settings until the wrapper commits. A procedure can't
// have them pinned as it has others: only a superuser may do that with a setting that the
// server does not know.
func (s runSpec) setCustom() string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.Custom)) {
		fmt.Fprintf(&text, "\n  PERFORM pg_catalog.set_config(%s, %s, true);", literal(name), literal(s.Custom[name]))
	}
	return text.String()
}

// Bounds of what a command returns. Its caller gets a warning where there is more.
const (
	maxRows      = 10_000
	maxRowsBytes = 16 << 20
)

// execute runs the command as one text. Where its last statement is a query, that is run
// apart, with the same rights and pins, and its rows are kept for the caller.
func (s runSpec) execute() string {
	before, last := lastQuery(s.Command)
	if last == "" {
		return "\n  EXECUTE " + dollarQuoted(s.Command) + ";"
	}
	run := ""
	if before != "" {
		run = "\n  EXECUTE " + dollarQuoted(before) + ";"
	}
	return run + `
  FOR answer IN EXECUTE ` + dollarQuoted(last) + ` LOOP
    total := total + 1;
    CONTINUE WHEN total > ` + fmt.Sprint(maxRows) + ` OR size > ` + fmt.Sprint(maxRowsBytes) + `;
    one := pg_catalog.row_to_json(answer);
    list := pg_catalog.array_append(list, one);
    size := size + pg_catalog.octet_length(one::pg_catalog.text);
  END LOOP;
  rows := coalesce(pg_catalog.array_to_json(list), '[]');
  IF total > pg_catalog.cardinality(list) THEN
    RAISE WARNING 'of % rows the first % are returned', total, pg_catalog.cardinality(list);
  END IF;`
}

// onceBody takes the login's one run. A second session of the login waits for the
// first to commit or to fail; what has failed may be run again.
func (s runSpec) onceBody(at runPlace) string {
	return s.calledBy(at, onceSuffix, "", onceLine) + `
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
// adds one. Both are on the same line of their texts. It begins a body. own are the
// types of the callee's arguments. The server writes the wrapper's as the caller's session
// has it: a caller may have it put every name in quotes.
func (s runSpec) calledBy(at runPlace, suffix, own string, line int) string {
	server := func(name, types string) string {
		return fmt.Sprintf("pg_catalog.format('%%I.%%I(%s)', %s, %s)", types, literal(at.Schema), literal(name))
	}
	frame := func(wrapper string) string {
		return fmt.Sprintf("pg_catalog.replace(pg_catalog.replace(frames[1], %s, %s), 'GET DIAGNOSTICS', 'CALL')", server(at.Name+suffix, own), wrapper)
	}
	variables := bodyVariables
	callers := []string{frame(server(at.Name, s.types())), frame(literal(at.routine("", s.types())))}
	if s.rows() {
		variables += rowsVariables
		callers = append(callers, frame(literal(at.routine("", ident(rowsType))))) // as 15 writes it
	}
	const before = 4 // lines of a body up to here
	return "\nDECLARE " + variables + "\nBEGIN" + strings.Repeat("\n", line-before+1) +
		`  GET DIAGNOSTICS stack = PG_CONTEXT;
  frames := pg_catalog.string_to_array(stack, pg_catalog.chr(10));
  IF pg_catalog.cardinality(frames) <> 3 OR frames[3] NOT IN (
    ` + strings.Join(callers, ",\n    ") + `) THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = ` + literal("call it by itself: "+at.call()) + `;
  END IF;
`
}

// Variables of the bodies, on one line: see calledBy.
const (
	bodyVariables = "stack pg_catalog.text; frames pg_catalog.text[]; ends pg_catalog.timestamptz;"
	rowsVariables = " answer pg_catalog.record; one pg_catalog.json; list pg_catalog.json[] := '{}'; total pg_catalog.int8 := 0; size pg_catalog.int8 := 0;"
)

// dollarQuoted is a text between two quotes that it does not have in it. No setting
// changes what is between them.
func dollarQuoted(text string) string {
	quote := "$command$"
	for n := 1; strings.Contains(text, quote); n++ {
		quote = fmt.Sprintf("$command%d$", n)
	}
	return quote + text + quote
}

// create is the statement that makes the procedure.
func (p procedure) create(schema string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "CREATE PROCEDURE %s(%s) LANGUAGE plpgsql", ident(schema, p.name), p.arguments)
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
