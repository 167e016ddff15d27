package postgresql

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// maxName is the longest name that PostgreSQL keeps, in bytes; of a longer one it
// silently drops the end. https://www.postgresql.org/docs/15/limits.html
const maxName = 63

// resource is what a privilege is on. What its kind has not is empty.
type resource struct {
	schema, name string
	columns      []string // in order, each once; nil for the whole relation
	arguments    string   // of a routine: its argument types, as they were written
	database     string   // what a command runs in
	command      string   // the name of one of several
}

// kind is what kind of resource an action works on.
type kind int

const (
	relation kind = iota + 1
	routine
	sequence
	database
)

// form is how a resource of a kind is written.
var form = map[kind]string{
	relation: "<schema>.<table>, or <schema>.<table>(<column>,<column>)",
	routine:  "<schema>.<name>(<argument types>)",
	sequence: "<schema>.<sequence>",
	database: "<database>, or <database>/<command>",
}

// parseResource reads a resource of a kind. The errors are *invalid.Error for field.
func parseResource(field string, kind kind, text string) (resource, error) {
	wrong := func(problem string) error {
		return invalid.Field(field, text, problem, "write it as "+form[kind]+`; a name with other characters than small letters, digits and "_" in double quotes`)
	}
	scan := scanner{rest: text}
	first, err := scan.name()
	if err != nil {
		return resource{}, wrong(err.Error())
	}
	if kind == database {
		command, named := strings.CutPrefix(scan.rest, "/")
		if scan.rest != "" && (!named || !commandName.MatchString(command)) {
			return resource{}, wrong("more than the name of a database")
		}
		return resource{database: first, command: command}, nil
	}
	if !scan.take('.') {
		return resource{}, wrong("the schema is not named")
	}
	parsed := resource{schema: first}
	if parsed.name, err = scan.name(); err != nil {
		return resource{}, wrong(err.Error())
	}
	if ownSchema(parsed.schema) {
		return resource{}, wrong(fmt.Sprintf("schema %s is the server's own, or the engine's", parsed.schema))
	}
	switch {
	case kind == routine:
		if parsed.arguments, err = scan.arguments(); err != nil {
			return resource{}, wrong(err.Error())
		}
	case kind == relation && scan.take('('):
		if parsed.columns, err = scan.names(')'); err != nil {
			return resource{}, wrong(err.Error())
		}
	}
	if scan.rest != "" {
		return resource{}, wrong(fmt.Sprintf("%q is too much", invalid.Clip(scan.rest)))
	}
	return parsed, nil
}

// ownSchema says whether a schema belongs to the server, or is the engine's: what is
// granted in one reaches the server itself, or the commands of others and who has run
// them.
func ownSchema(name string) bool {
	return strings.HasPrefix(name, "pg_") || name == "information_schema" || name == ownProcedures
}

// String is the resource in its canonical form: names quoted where they have to be.
func (r resource) String() string {
	if r.command != "" {
		return plain(r.database) + "/" + r.command
	}
	if r.database != "" {
		return plain(r.database)
	}
	text := plain(r.schema) + "." + plain(r.name)
	if r.arguments != "" {
		return text + r.arguments
	}
	if len(r.columns) > 0 {
		quoted := make([]string, len(r.columns))
		for i, column := range r.columns {
			quoted[i] = plain(column)
		}
		return text + "(" + strings.Join(quoted, ",") + ")"
	}
	return text
}

// relation is the resource without its columns.
func (r resource) relation() string { return resource{schema: r.schema, name: r.name}.String() }

// literalOnly refuses a resource into which something is filled in for each
// credential: its holder is made, and what comes with it is looked at, when the role
// is written.
func literalOnly(field string, text scope.Text) error {
	for _, filled := range text.Filled() {
		return invalid.Field(field, text.String(), fmt.Sprintf("{{%s}} can't be filled in: what a table drags along, and what everybody may do beside it, is looked at when the role is written", filled.Reference),
			"write one role for each resource, or fill in a parameter with an enumeration, where that is possible")
	}
	return nil
}

// filledName is what may be filled into a name: it means the same with quotes and without.
var filledName = regexp.MustCompile(`\A[a-z0-9_]+\z`)

// checkFilled holds what is filled into a resource to the name of a schema or of a relation,
// and to one value. Each value that it can be is examined when the role is written. A
// command's name is the last segment of its resource.
func checkFilled(kind kind, text scope.Text) error {
	switch kind {
	case database:
		return nil // parsed, and compared with the role's commands
	case relation, sequence:
	default:
		return literalOnly("resource", text)
	}
	for i, filled := range text.Filled() {
		value := text.String()[filled.Start:filled.End]
		_, isParameter := filled.Reference.Parameter()
		switch {
		case !isParameter:
			return literalOnly("resource", text)
		case i > 0:
			return invalid.Field("resource", text.String(), "more than one value is filled in", "write one name out, or write several roles")
		case !filledName.MatchString(value):
			return invalid.Field(string(filled.Reference), value, "not a part of a name as it is without quotes", `use small letters, digits and "_"`)
		case strings.Contains(text.String()[:filled.Start], "("):
			return invalid.Field("resource", text.String(), "a column can't be filled in", "write the columns out; key can be filled in")
		}
	}
	return nil
}

// parseColumns reads a list of columns that a field holds.
func parseColumns(field, text string) ([]string, error) {
	scan := scanner{rest: text}
	columns, err := scan.names(0)
	if err != nil {
		return nil, invalid.Field(field, text, err.Error(), `list columns, as in id,"Odd Name"`)
	}
	return columns, nil
}

// parseRole reads the name of a role that a field holds.
func parseRole(field, text string) (string, error) {
	scan := scanner{rest: text}
	name, err := scan.name()
	if err == nil && scan.rest != "" {
		err = fmt.Errorf("%q is too much", invalid.Clip(scan.rest))
	}
	if err != nil {
		return "", invalid.Field(field, text, err.Error(), `name one role, in double quotes where it has other characters than small letters, digits and "_"`)
	}
	return name, nil
}

// plain writes a name as a person would: quoted only where it has to be.
func plain(name string) string {
	if unquoted(name) == len(name) && strings.ToLower(name) == name {
		return name
	}
	return ident(name)
}

// unquoted is the length of the name at the start of a text that needs no quotes.
func unquoted(text string) int {
	for i := range len(text) {
		char := text[i]
		switch {
		case 'a' <= char && char <= 'z', 'A' <= char && char <= 'Z', char == '_':
		case i > 0 && ('0' <= char && char <= '9' || char == '$'):
		default:
			return i
		}
	}
	return len(text)
}

// scanner reads names as PostgreSQL does. The errors say what is wrong, and no more.
type scanner struct{ rest string }

type wrong string

func (w wrong) Error() string { return string(w) }

// take takes a character, and spaces around it, if it comes next.
func (s *scanner) take(char byte) bool {
	rest := strings.TrimLeft(s.rest, " ")
	if rest == "" || rest[0] != char {
		return false
	}
	s.rest = strings.TrimLeft(rest[1:], " ")
	return true
}

// name takes one name. What is not quoted is folded to lower case.
func (s *scanner) name() (string, error) {
	if !strings.HasPrefix(s.rest, `"`) {
		length := unquoted(s.rest)
		if length == 0 {
			return "", wrong("a name is missing")
		}
		name := strings.ToLower(s.rest[:length])
		s.rest = s.rest[length:]
		return name, checkName(name)
	}
	var name strings.Builder
	for i := 1; i < len(s.rest); i++ {
		if s.rest[i] != '"' {
			name.WriteByte(s.rest[i])
			continue
		}
		if i+1 < len(s.rest) && s.rest[i+1] == '"' {
			name.WriteByte('"')
			i++
			continue
		}
		s.rest = s.rest[i+1:]
		return name.String(), checkName(name.String())
	}
	return "", wrong("a quote is not closed")
}

func checkName(name string) error {
	switch {
	case name == "":
		return wrong("a name is empty")
	case len(name) > maxName:
		return wrong(fmt.Sprintf("a name is longer than %d bytes", maxName))
	case strings.Contains(name, "{{"): // see holderName
		return wrong("a name has {{ in it")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(char rune) bool { return char < ' ' || char == 0x7F }):
		return wrong("a name has a character that no name should have")
	}
	return nil
}

// names takes a list of names that ends with a character, or with the text for 0.
func (s *scanner) names(end byte) ([]string, error) {
	var names []string
	for {
		s.rest = strings.TrimLeft(s.rest, " ")
		name, err := s.name()
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, name) {
			return nil, wrong(fmt.Sprintf("%s is named twice", plain(name)))
		}
		names = append(names, name)
		if s.take(',') {
			continue
		}
		if (end == 0 && strings.TrimLeft(s.rest, " ") == "") || (end != 0 && s.take(end)) {
			slices.Sort(names)
			return names, nil
		}
		return nil, wrong("a list of names is not closed")
	}
}

// arguments takes a routine's argument types and their parentheses. What they mean
// is for the server to say, see signature; here they are only held to the
// characters that types are written with.
func (s *scanner) arguments() (string, error) {
	if !s.take('(') {
		return "", wrong("the argument types are not named, and several routines may have one name")
	}
	depth, quoted := 1, false
	for i := range len(s.rest) {
		char := s.rest[i]
		switch {
		case char == '"':
			quoted = !quoted
		case quoted:
			if char < ' ' || char == 0x7F {
				return "", wrong("a name has a character that no name should have")
			}
		case char == '(':
			depth++
		case char == ')':
			depth--
		case strings.IndexByte(" ,._[]$", char) >= 0, 'a' <= char && char <= 'z', 'A' <= char && char <= 'Z', '0' <= char && char <= '9':
		default:
			return "", wrong("the argument types have a character that no type is written with")
		}
		if depth == 0 {
			arguments := "(" + strings.TrimRight(s.rest[:i], " ") + ")"
			s.rest = s.rest[i+1:]
			return arguments, nil
		}
	}
	return "", wrong("the argument types are not closed")
}
