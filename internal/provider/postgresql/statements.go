package postgresql

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

//go:embed statements.tsv
var statementsTable string

// statementRules are the lines of statements.tsv.
var statementRules = parseRules(statementsTable)

// statementRule is one line of them.
type statementRule struct {
	begins       [][]string // the words for each place; an empty one may be left out
	has          []string
	why, instead string // empty where the statement runs
}

func parseRules(table string) []statementRule {
	var rules []statementRule
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		columns := append(strings.Split(strings.TrimRight(line, "\n"), "\t"), "", "", "")
		rule := statementRule{has: strings.Fields(columns[1]), why: columns[2], instead: columns[3]}
		for _, place := range strings.Fields(columns[0]) {
			if optional, found := strings.CutPrefix(place, "["); found {
				rule.begins = append(rule.begins, append([]string{""}, strings.Split(strings.TrimSuffix(optional, "]"), "|")...))
			} else {
				rule.begins = append(rule.begins, []string{place})
			}
		}
		rules = append(rules, rule)
	}
	return rules
}

// statement is one of a command's.
type statement []token

// checkCommand checks what a command's text shows of whether it can run inside a
// procedure, and mean the same whoever calls that. The server is asked by checkRun
// besides. field is where the text was given. The errors are *invalid.Error.
func checkCommand(field, text string) error {
	tokens, err := lex(text)
	if err != nil {
		return invalid.Hidden(field, err.Error(), "give the command's SQL as it would be run")
	}
	statements := split(tokens)
	if len(statements) == 0 {
		return invalid.Hidden(field, "has no statement", "give the SQL that the role's credentials may run")
	}
	if err := checkHalves(field, text, tokens); err != nil {
		return err
	}
	for number, statement := range statements {
		if why, instead := statement.refused(); why != "" {
			return invalid.Hidden(field, fmt.Sprintf("statement %d, %q, can't be part of it: %s", number+1, invalid.Clip(statement.source(text)), why), instead)
		}
	}
	return nil
}

// split separates statements at their semicolons. A body in BEGIN ATOMIC and END has
// semicolons of its own.
func split(tokens []token) []statement {
	var statements []statement
	var current statement
	body := 0
	for _, next := range tokens {
		if next.depth == 0 && body == 0 && next.is(";") {
			if len(current) > 0 {
				statements = append(statements, current)
			}
			current = nil
			continue
		}
		current = append(current, next)
		switch {
		case next.depth > 0 || next.kind != tokenWord:
		case next.text == "atomic" && current.makesRoutine() && current[len(current)-2].is("begin"):
			body++
		case body > 0 && next.text == "case":
			body++
		case body > 0 && next.text == "end":
			body--
		}
	}
	if len(current) > 0 {
		statements = append(statements, current)
	}
	return statements
}

// makesRoutine says whether a statement creates a function or a procedure.
func (s statement) makesRoutine() bool {
	if len(s) < 4 || !s[0].is("create") {
		return false
	}
	made := s[1]
	if made.is("or") && s[2].is("replace") {
		made = s[3]
	}
	return made.is("function") || made.is("procedure")
}

// source is the statement as it was written, up to its first line's end.
func (s statement) source(text string) string {
	line, _, _ := strings.Cut(text[s[0].start:s[len(s)-1].end], "\n")
	return strings.TrimSpace(line)
}

// refused says why a statement can't be part of a command, and what to do instead;
// nothing where it can.
func (s statement) refused() (why, instead string) {
	for i, next := range s {
		switch {
		case next.kind == tokenParameter:
			return "this has the parameter " + next.text + ", and nobody gives it a value", "write the value"
		case next.is("set_config") && i+2 < len(s) && s[i+1].is("(") && slices.Contains(fixedSettings, strings.ToLower(s[i+2].text)):
			return "this sets " + strings.ToLower(s[i+2].text) + ", which the role fixes", "name it in the role"
		}
	}
	if word := s.block().commits(); word != "" {
		return word + " in a DO block ends the transaction, and the whole command is one, which the engine's procedure commits", "leave it out, or make several commands of it"
	}
	if s.selectsInto() {
		return "EXECUTE takes no SELECT INTO", "write CREATE TABLE … AS SELECT"
	}
	for _, rule := range statementRules {
		if rule.fits(s) {
			if rule.why == "" {
				return "", ""
			}
			return rule.name() + " " + rule.why, rule.instead
		}
	}
	return "this is not known to run inside a procedure", "write it in a way that PostgreSQL 15 knows, or do it by hand"
}

// fixedSettings are those that decide whose rights and whose tables are meant.
var fixedSettings = []string{"search_path", "role", "session_authorization"}

// selectsInto says whether a query makes a table by INTO.
func (s statement) selectsInto() bool {
	if !s[0].is("select") && !s[0].is("with") && !s[0].is("(") {
		return false
	}
	for i, next := range s {
		if i > 0 && next.is("into") && !slices.ContainsFunc([]string{"as", ".", "insert", "merge"}, s[i-1].is) {
			return true
		}
	}
	return false
}

// name is what the statements of the rule are called.
func (r statementRule) name() string {
	var words []string
	for _, place := range r.begins {
		if place[0] != "" && place[0] != ";" {
			words = append(words, place[0])
		}
	}
	return strings.ToUpper(strings.Join(append(words, r.has...), " "))
}

// fits says whether the rule is about a statement.
func (r statementRule) fits(s statement) bool {
	if !begins(r.begins, s.outside()) {
		return false
	}
	has := r.has
	for _, next := range s {
		if len(has) > 0 && next.is(has[0]) {
			has = has[1:]
		}
	}
	return len(has) == 0
}

// begins says whether a statement begins with the words of some places.
func begins(places [][]string, rest statement) bool {
	switch {
	case len(places) == 0:
		return true
	case places[0][0] == "" && begins(places[1:], rest):
		return true
	case places[0][0] == ";":
		return len(rest) == 0
	}
	return len(rest) > 0 && slices.ContainsFunc(places[0], rest[0].named) && begins(places[1:], rest[1:])
}

// outside is a statement without what is in parentheses: options, columns, rows. One
// that begins with a parenthesis keeps that.
func (s statement) outside() statement {
	var outside statement
	for i, next := range s {
		if next.depth == 0 && (i == 0 || !next.is("(") && !next.is(")")) {
			outside = append(outside, next)
		}
	}
	return outside
}

// named says whether a token is a keyword, or a setting of that name: those may be in
// quotes, and in whatever letters.
func (t token) named(text string) bool {
	return t.is(text) || t.kind == tokenName && slices.Contains(fixedSettings, text) && strings.ToLower(t.text) == text
}
