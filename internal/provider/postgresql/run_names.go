package postgresql

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// names looks for names without a schema that the command would not find.
func (h *hints) names(ctx context.Context) error {
	for _, one := range h.statements {
		if name := one.creates(); name != "" && len(h.spec.SearchPath) == 0 {
			return h.refuse(fmt.Sprintf("it makes %s and does not say in which schema", plain(name)),
				"name the schema in the role's search_path, or qualify the name: <schema>."+plain(name))
		}
	}
	var made []string
	for _, one := range h.statements {
		made = append(made, one.makes()...)
	}
	var kinds, names []string
	add := func(kind string, found []string) {
		for _, name := range found {
			if !slices.Contains(made, name) {
				kinds, names = append(kinds, kind), append(names, name)
			}
		}
	}
	for _, one := range h.statements {
		add("target", one.targets())
		add("relation", one.reads())
		add("function", one.followedBy("("))
		add("type", one.casts())
	}
	if len(names) == 0 {
		return nil
	}
	rows, err := h.q.Query(ctx, elsewhereSQL, kinds, names, append([]string{"pg_catalog"}, h.spec.SearchPath...))
	if err != nil {
		return said("look up a command's names", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Kind, Name, Schemas string }])
	if err != nil {
		return said("look up a command's names", err)
	}
	for _, one := range found {
		remedy := "name its schema in the role's search_path, or qualify the name"
		if one.Kind == "target" {
			return h.refuse(fmt.Sprintf("it names %s without a schema, and that is in %s, where the command does not look",
				plain(one.Name), one.Schemas), remedy)
		}
		h.warn("the command names %s without a schema, and a %s of that name is in %s, where it does not look: %s",
			plain(one.Name), one.Kind, one.Schemas, remedy)
	}
	return nil
}

// elsewhereSQL finds names that are in some schema and in none of those that a command
// looks into.
//
//	$1, $2  kinds and names, side by side
//	$3      the schemas that it looks into
const elsewhereSQL = `
SELECT w.kind, w.name, string_agg(DISTINCT quote_ident(n.nspname), ', ')
FROM (SELECT DISTINCT kind, name FROM unnest($1::text[], $2::text[]) x (kind, name)) w,
LATERAL (SELECT c.relnamespace AS schema FROM pg_class c WHERE w.kind IN ('target', 'relation') AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
         UNION ALL SELECT p.pronamespace FROM pg_proc p WHERE w.kind = 'function' AND p.proname = w.name
         UNION ALL SELECT t.typnamespace FROM pg_type t WHERE w.kind = 'type' AND t.typname = w.name) there
JOIN pg_namespace n ON n.oid = there.schema
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_(temp|toast)'
GROUP BY w.kind, w.name HAVING NOT bool_or(n.nspname = ANY ($3::text[]))
ORDER BY w.kind DESC, w.name`

// unqualified is the name that a statement goes on with, empty where that has a schema, or
// none is there.
func (s statement) unqualified() string {
	if len(s) == 0 || s[0].kind != tokenWord && s[0].kind != tokenName || len(s) > 1 && s[1].is(".") {
		return ""
	}
	return s[0].text
}

// creates is the name of what a statement makes in a schema that it does not name.
func (s statement) creates() string {
	if s.createsTemporary() {
		return ""
	}
	for _, form := range [][]string{
		{"create", "?or", "?replace", "?unlogged|foreign|recursive", "table|view|sequence", "?if", "?not", "?exists"},
		{"create", "materialized", "view", "?if", "?not", "?exists"},
		{"create", "?or", "?replace", "function|procedure|aggregate"},
		{"create", "type|domain"},
	} {
		if rest, does := s.cut(form...); does {
			return rest.unqualified()
		}
	}
	return ""
}

// makes are the names that a statement gives to what it makes, and to its own queries.
func (s statement) makes() []string {
	var made []string
	for _, form := range [][]string{
		{"create", "?or", "?replace", "?global|local", "?temp|temporary", "?unlogged|foreign|recursive|materialized",
			"table|view|sequence|function|procedure|type|domain|aggregate", "?if", "?not", "?exists"},
	} {
		if rest, does := s.cut(form...); does && len(rest) > 0 {
			made = append(made, rest[0].text)
			if len(rest) > 2 && rest[1].is(".") {
				made[len(made)-1] = rest[2].text
			}
		}
	}
	for i, next := range s {
		if next.is("as") && i > 0 && i+1 < len(s) && s[i+1:].beginsWith("?not", "?materialized", "(") {
			made = append(made, s[:i].lastName())
		}
	}
	if rest, renames := s.cut("alter", "table"); renames {
		for i, next := range rest {
			if next.is("rename") && i+2 < len(rest) && rest[i+1].is("to") {
				made = append(made, rest[i+2].text)
			}
		}
	}
	return made
}

// lastName is the name at the end of a statement, before what is in parentheses there.
func (s statement) lastName() string {
	end := len(s) - 1
	if s[end].is(")") {
		for end > 0 && !(s[end].is("(") && s[end].depth == s[len(s)-1].depth) {
			end--
		}
		end--
	}
	if end < 0 {
		return ""
	}
	return s[end].text
}

// targetForms are the words before the relation that a statement changes.
var targetForms = [][]string{
	{"alter", "table|view|sequence", "?if", "?exists", "?only"},
	{"alter", "materialized", "view", "?if", "?exists"},
	{"drop", "table|view|sequence", "?if", "?exists"},
	{"drop", "materialized", "view", "?if", "?exists"},
	{"insert", "into"},
	{"update", "?only"},
	{"delete", "from", "?only"},
	{"merge", "into", "?only"},
	{"truncate", "?table", "?only"},
	{"lock", "?table", "?only"},
	{"refresh", "materialized", "view", "?concurrently"},
	{"copy"},
	{"analyze"},
	{"cluster"},
	{"comment", "on", "table|view|column|sequence"},
}

// targets are the names without a schema of what a statement changes.
func (s statement) targets() []string {
	var names []string
	for _, form := range targetForms {
		if rest, does := s.cut(form...); does {
			names = append(names, rest.unqualified())
			if slices.Contains([]string{"drop", "truncate", "lock"}, form[0]) { // which take a list
				names = append(names, rest.listed()...)
			}
		}
	}
	// CREATE INDEX, TRIGGER, POLICY and RULE say it after ON, the first that is in no parentheses.
	if s.beginsWith("create", "?or", "?replace", "?unique", "?constraint", "index|trigger|policy") {
		outside := s.outside()
		if at := slices.IndexFunc(outside, func(next token) bool { return next.is("on") }); at > 0 {
			rest, _ := outside[at+1:].cut("?only")
			names = append(names, rest.unqualified())
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// listed are the names without a schema after the commas of a list.
func (s statement) listed() []string {
	var names []string
	for i, next := range s {
		if next.is(",") && next.depth == s[0].depth {
			names = append(names, s[i+1:].unqualified())
		}
	}
	return names
}

// reads are the names without a schema after FROM, JOIN, USING and REFERENCES.
func (s statement) reads() []string {
	var names []string
	for i, next := range s {
		if i == 0 || !slices.ContainsFunc([]string{"from", "join", "references", "using"},
			next.is) || s[i-1].is("distinct") {
			continue
		}
		rest, _ := s[i+1:].cut("?only", "?lateral")
		if len(rest) > 1 && rest[1].is("(") && !next.is("references") {
			continue // a function
		}
		if name := rest.unqualified(); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// followedBy are the names without a schema before a symbol.
func (s statement) followedBy(symbol string) []string {
	var names []string
	for i, next := range s {
		if next.is(symbol) && i > 0 && (s[i-1].kind == tokenWord || s[i-1].kind == tokenName) && (i < 2 || !s[i-2].is(".") && !s[i-2].is("into") && !s[i-2].is("table") && !s[i-2].is("references") && !s[i-2].is("on")) {
			names = append(names, s[i-1].text)
		}
	}
	return names
}

// casts are the names without a schema of types that values are cast to.
func (s statement) casts() []string {
	var names []string
	for i := range s {
		if rest, does := s[i:].cut(":", ":"); does {
			if name := rest.unqualified(); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

//go:embed looks_at.sql
var looksAtSQL string

var (
	settingRead = regexp.MustCompile(`(?i)current_setting\s*\(\s*e?'([a-z_][\w$]*(?:\.[\w$]+)+)'|\bshow\s+([a-z_][\w$]*(?:\.[\w$]+)+)`)
	settingSet  = regexp.MustCompile(`(?i)\bset\s+(?:local\s+|session\s+)?([a-z_][\w$]*(?:\.[\w$]+)+)\s*(?:=|to\b)|set_config\s*\(\s*e?'([a-z_][\w$]*(?:\.[\w$]+)+)'`)
)

// settingsIn are the custom settings that a text names in calls of a kind.
func settingsIn(kind *regexp.Regexp, text string) []string {
	var names []string
	for _, match := range kind.FindAllStringSubmatch(text, -1) {
		names = append(names, strings.ToLower(match[1]+match[2]))
	}
	return names
}

// maxDepth is how far functions are followed that other functions call.
const maxDepth = 4

// custom warns of custom settings that decide what a command does, and that its caller can
// set: those that its text reads, or the triggers, policies, views and functions of what it
// names.
func (h *hints) custom(ctx context.Context) error {
	pinned := settingsIn(settingSet, h.spec.Command)
	told := map[string]bool{}
	tell := func(who, text string) {
		for _, name := range settingsIn(settingRead, text) {
			if _, fixed := h.spec.Custom[name]; !fixed && !told[name] && !slices.Contains(pinned, name) {
				told[name] = true
				h.warn("the caller can set %s, which %s reads: pin it, as in settings=%s=…", name, who, name)
			}
		}
	}
	tell("the command", h.spec.Command)
	schemas, names := h.mentioned()
	warnings, err := textsBeside(ctx, h.q, schemas, names, tell)
	h.warnings = append(h.warnings, warnings...)
	return err
}

// textsBeside tells the texts of what runs beside a statement that names relations and
// functions, and of the functions that those call. To print a view the server locks it,
// and a holder who may LOCK it could keep everybody from writing a role. The engine waits
// briefly for the lock, and then warns.
func textsBeside(ctx context.Context, q querier, schemas, names []string, tell func(who, text string)) ([]string, error) {
	tx, err := q.Begin(ctx)
	if err != nil {
		return nil, said("look for settings that are read", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // it only reads
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = "+literal(milliseconds(cleanupLockTimeout))); err != nil {
		return nil, said("look for settings that are read", err)
	}
	seen := []string{}
	for range maxDepth {
		rows, err := tx.Query(ctx, looksAtSQL, schemas, names, seen)
		if err != nil {
			return nil, said("look for settings that are read", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Who, Text string }])
		if isState(err, lockNotAvailable) {
			return []string{"somebody has locked what is named here, so that which settings its views and rules read is not known: write the role again later"}, nil
		}
		if err != nil {
			return nil, said("look for settings that are read", err)
		}
		schemas, names = nil, nil
		for _, one := range found {
			seen = append(seen, one.Who)
			tell(one.Who, one.Text)
			if tokens, err := lex(one.Text); err == nil {
				more, called := statement(tokens).pairs(nil)
				schemas, names = append(schemas, more...), append(names, called...)
			}
		}
		if len(names) == 0 {
			return nil, nil
		}
	}
	return nil, nil
}

// settingsBeside warns of the custom settings that decide what comes of an action on a
// relation: nobody can pin them, since the credential's holder sends the statements.
func settingsBeside(ctx context.Context, q querier, on resource) ([]string, error) {
	var read []string
	told := map[string]bool{}
	warnings, err := textsBeside(ctx, q, []string{on.schema}, []string{on.name}, func(who, text string) {
		for _, name := range settingsIn(settingRead, text) {
			if !told[name] {
				told[name] = true
				read = append(read, fmt.Sprintf("the credential can set %s, which %s reads: a RUN can pin it", name, who))
			}
		}
	})
	return append(warnings, read...), err
}

// mentioned are the names that a command has, with each schema that they may be in.
func (h *hints) mentioned() (schemas, names []string) {
	for _, one := range slices.Concat(h.statements, h.blocks) {
		of, named := one.pairs(h.spec.SearchPath)
		schemas, names = append(schemas, of...), append(names, named...)
	}
	return schemas, names
}

// pairs are a statement's names with their schemas. One without a schema is in each of the
// path; without a path, in any.
func (s statement) pairs(path []string) (schemas, names []string) {
	if len(path) == 0 {
		path = []string{""}
	}
	for i, next := range s {
		if next.kind != tokenWord && next.kind != tokenName {
			continue
		}
		switch {
		case i > 1 && s[i-1].is("."):
			schemas, names = append(schemas, s[i-2].text), append(names, next.text)
		case i+1 < len(s) && s[i+1].is("("), path[0] != "":
			for _, schema := range path {
				schemas, names = append(schemas, schema), append(names, next.text)
			}
		}
	}
	return schemas, names
}
