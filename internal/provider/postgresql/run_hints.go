package postgresql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// hints looks for what would make a command fail at its first call, or mean something else
// then. What is certain is an *invalid.Error; what is likely is a warning.
type hints struct {
	q          querier
	spec       runSpec
	field      string // that the command was given in
	statements []statement
	blocks     []statement // the bodies of its DO blocks
	warnings   []string
}

// commandHints returns the warnings about a command that checkCommand has accepted.
func commandHints(ctx context.Context, q querier, spec runSpec) ([]string, error) {
	tokens, err := lex(spec.Command)
	if err != nil {
		return nil, invalid.Hidden(commandField(spec.Name), err.Error(), "give the command's SQL as it would be run")
	}
	h := &hints{q: q, spec: spec, field: commandField(spec.Name), statements: split(tokens),
		warnings: placeholders(spec.Command)}
	for _, one := range h.statements {
		if body := one.block(); body != nil {
			h.blocks = append(h.blocks, body)
		}
	}
	if spec.rows() {
		h.warn("the rows of its last statement go to the caller, as %s reads them", plain(spec.RunAs))
	}
	for _, check := range []func(context.Context) error{h.temporary, h.rights, h.extensions, h.refreshes, h.enums,
		h.names, h.calls, h.custom} {
		if err := check(ctx); err != nil {
			return nil, err
		}
	}
	return h.warnings, nil
}

func (h *hints) warn(format string, arguments ...any) {
	h.warnings = append(h.warnings, fmt.Sprintf(format, arguments...))
}

func (h *hints) refuse(problem, remedy string) error { return invalid.Hidden(h.field, problem, remedy) }

// block is the body of a DO block, nil for another statement and for one that can't be read.
func (s statement) block() statement {
	if !s[0].is("do") {
		return nil
	}
	for _, next := range s {
		if next.kind == tokenString {
			if body, err := lex(next.text); err == nil {
				return body
			}
		}
	}
	return nil
}

// commits finds a transaction command in the body of a DO block.
func (s statement) commits() string {
	for i, next := range s {
		if !next.is("commit") && !next.is("rollback") || i+1 == len(s) {
			continue
		}
		starts := i == 0 || slices.ContainsFunc([]string{";", "begin", "then", "else", "loop", ">"}, s[i-1].is)
		if starts && (s[i+1].is(";") || s[i+1].is("and")) {
			return strings.ToUpper(next.text)
		}
	}
	return ""
}

// cut is a statement without the words that it begins with; "?" marks one that may be
// missing, "|" alternatives. It is false where it begins otherwise.
func (s statement) cut(words ...string) (statement, bool) {
	for _, word := range words {
		alternatives, optional := strings.CutPrefix(word, "?")
		switch {
		case len(s) > 0 && slices.ContainsFunc(strings.Split(alternatives, "|"), s[0].is):
			s = s[1:]
		case !optional:
			return nil, false
		}
	}
	return s, true
}

// begins says whether a statement begins with some words, as cut takes them.
func (s statement) beginsWith(words ...string) bool {
	_, does := s.cut(words...)
	return does
}

// createsTemporary says whether a statement makes a temporary relation.
func (s statement) createsTemporary() bool {
	if s.beginsWith("create", "?or", "?replace", "?global|local", "temp|temporary") {
		return true
	}
	rest, creates := s.cut("create", "?or", "?replace", "?unlogged", "table|view|sequence|function|procedure|type",
		"?if", "?not", "?exists")
	return creates && len(rest) > 1 && rest[0].named("pg_temp") && rest[1].is(".")
}

// temporary checks that run_as may make the temporary objects of a command.
func (h *hints) temporary(ctx context.Context) error {
	creates := slices.ContainsFunc(h.statements, statement.createsTemporary)
	inBlock := slices.ContainsFunc(h.blocks, func(body statement) bool {
		for i := range body {
			if body[i:].beginsWith("create", "?global|local", "temp|temporary") {
				return true
			}
		}
		return false
	})
	if !creates && !inBlock {
		return nil
	}
	may, err := h.may(ctx, "TEMPORARY")
	if err != nil {
		return err
	}
	grant := fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s", "{{database}}", plain(h.spec.RunAs))
	switch {
	case !may && creates:
		return h.refuse("it makes temporary objects, and "+plain(h.spec.RunAs)+" may not", h.inDatabase(ctx, grant))
	case !may:
		h.warn("a DO block makes temporary objects, and %s may not: %s", plain(h.spec.RunAs), h.inDatabase(ctx, grant))
	}
	h.warn("the command makes temporary objects: it runs in a session that has none of the caller's own; say ON COMMIT DROP so that a session can run it twice")
	return nil
}

// may says whether run_as has a privilege on the database.
func (h *hints) may(ctx context.Context, privilege string) (bool, error) {
	var may bool
	err := h.q.QueryRow(ctx, "SELECT has_database_privilege($1::name, current_database()::text, $2)", h.spec.RunAs,
		privilege).Scan(&may)
	return may, said("look at what "+plain(h.spec.RunAs)+" may do", err)
}

// inDatabase is a statement with the database's name in it.
func (h *hints) inDatabase(ctx context.Context, statement string) string {
	name := "…"
	_ = h.q.QueryRow(ctx, "SELECT quote_ident(current_database())").Scan(&name) // a remedy without the name is one, too
	return strings.ReplaceAll(statement, "{{database}}", name)
}

// rights checks what else run_as needs on the database as a whole.
func (h *hints) rights(ctx context.Context) error {
	for _, one := range h.statements {
		switch {
		case one.beginsWith("create", "schema"), one.beginsWith("create", "publication"):
			may, err := h.may(ctx, "CREATE")
			if err != nil {
				return err
			}
			if !may {
				return h.refuse(fmt.Sprintf("CREATE %s needs CREATE on the database, which %s does not have",
					strings.ToUpper(one[1].text), plain(h.spec.RunAs)),
					h.inDatabase(ctx,
						"GRANT CREATE ON DATABASE {{database}} TO "+plain(h.spec.RunAs)+", or leave it out and do it by hand"))
			}
		case one.beginsWith("create", "event", "trigger"):
			super, err := h.superuser(ctx)
			if err != nil {
				return err
			}
			if !super {
				return h.refuse("only a superuser makes an event trigger", "leave it out, and do it by hand")
			}
		}
	}
	return nil
}

func (h *hints) superuser(ctx context.Context) (bool, error) {
	var super bool
	err := h.q.QueryRow(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = $1", h.spec.RunAs).Scan(&super)
	return super, said("look at "+plain(h.spec.RunAs), err)
}

// extensions checks that run_as may create the extensions of a command.
func (h *hints) extensions(ctx context.Context) error {
	for _, one := range h.statements {
		rest, creates := one.cut("create", "extension")
		if !creates {
			continue
		}
		rest, lenient := rest.cut("if", "not", "exists")
		if !lenient {
			rest, _ = one.cut("create", "extension")
		}
		if len(rest) == 0 {
			continue
		}
		var installed, trusted bool
		err := h.q.QueryRow(ctx, `SELECT x.installed_version IS NOT NULL, coalesce(v.trusted OR NOT v.superuser, false)
			FROM pg_available_extensions x LEFT JOIN pg_available_extension_versions v ON v.name = x.name AND v.version = x.default_version WHERE x.name = $1`, rest[0].text).Scan(&installed, &trusted)
		name := plain(rest[0].text)
		switch {
		case noRows(err):
			return h.refuse("the server has no extension "+name, "have it put on the server's machine")
		case err != nil:
			return said("look for extension "+name, err)
		case installed && lenient:
			continue
		case installed:
			return h.refuse("extension "+name+" is there already", "write CREATE EXTENSION IF NOT EXISTS")
		}
		super, err := h.superuser(ctx)
		if err != nil {
			return err
		}
		may, err := h.may(ctx, "CREATE")
		if err != nil {
			return err
		}
		byHand := fmt.Sprintf("have a superuser run CREATE EXTENSION %s, and write IF NOT EXISTS here", name)
		switch {
		case super:
		case !trusted:
			return h.refuse(fmt.Sprintf("only a superuser makes extension %s", name), byHand)
		case !may:
			return h.refuse(fmt.Sprintf("CREATE EXTENSION needs CREATE on the database, which %s does not have",
				plain(h.spec.RunAs)),
				h.inDatabase(ctx, "GRANT CREATE ON DATABASE {{database}} TO "+plain(h.spec.RunAs)+"; or "+byHand))
		}
	}
	return nil
}

// refreshes checks what REFRESH MATERIALIZED VIEW CONCURRENTLY needs: it makes a temporary
// table, and compares by a unique index.
func (h *hints) refreshes(ctx context.Context) error {
	for _, one := range h.statements {
		rest, refreshes := one.cut("refresh", "materialized", "view", "concurrently")
		if !refreshes || len(rest) == 0 {
			continue
		}
		may, err := h.may(ctx, "TEMPORARY")
		if err != nil {
			return err
		}
		if !may {
			return h.refuse("REFRESH … CONCURRENTLY makes a temporary table, and "+plain(h.spec.RunAs)+" may not",
				h.inDatabase(ctx,
					"leave out CONCURRENTLY, or GRANT TEMPORARY ON DATABASE {{database}} TO "+plain(h.spec.RunAs)))
		}
		if slices.ContainsFunc(h.statements,
			func(other statement) bool { return other.beginsWith("create", "unique", "index") }) {
			continue
		}
		var lacks bool
		err = h.q.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL)
			FROM pg_class c WHERE c.oid = to_regclass($1) AND c.relkind = 'm'`, h.relation(rest)).Scan(&lacks)
		if err != nil && !noRows(err) {
			return said("look at a materialized view", err)
		}
		if lacks {
			return h.refuse("REFRESH … CONCURRENTLY needs a unique index on the materialized view, over columns and all rows",
				"make one, or leave out CONCURRENTLY")
		}
	}
	return nil
}

// relation is the name that a statement goes on with, quoted, as the command finds it.
func (h *hints) relation(rest statement) string {
	if len(rest) > 2 && rest[1].is(".") {
		return ident(rest[0].text, rest[2].text)
	}
	if len(h.spec.SearchPath) > 0 {
		return ident(h.spec.SearchPath[0], rest[0].text)
	}
	return ident(rest[0].text)
}

// enums looks for a value that is added to a type and used before that is committed.
func (h *hints) enums(context.Context) error {
	for i, one := range h.statements {
		rest, alters := one.cut("alter", "type")
		if !alters {
			continue
		}
		at := slices.IndexFunc(rest, func(next token) bool { return next.is("add") })
		if at < 1 {
			continue
		}
		added, adds := rest[at:].cut("add", "value", "?if", "?not", "?exists")
		if !adds || len(added) == 0 || added[0].kind != tokenString {
			continue
		}
		later := slices.Clone(h.blocks)
		for _, other := range h.statements[i+1:] {
			if !other.beginsWith("alter", "type") {
				later = append(later, other)
			}
		}
		const instead = "add the value by a command of its own, and run that first"
		for _, other := range later {
			switch cast := other.uses(added[0].text, rest[at-1].text); {
			case cast > 1:
				return h.refuse(fmt.Sprintf("it adds the value '%s' to type %s and uses it: nothing can before the value is committed",
					invalid.Clip(added[0].text), plain(rest[at-1].text)), instead)
			case cast == 1:
				h.warn("it adds the value '%s' to type %s, and a later statement has that text: no statement can use the value before it is committed; %s",
					invalid.Clip(added[0].text), plain(rest[at-1].text), instead)
				return nil
			}
		}
	}
	return nil
}

// uses is 2 where a statement has a text as a value of a type, 1 where it has the text.
func (s statement) uses(text, of string) int {
	most := 0
	for i, next := range s {
		if next.kind != tokenString || next.text != text {
			continue
		}
		most = max(most, 1)
		named, casts := s[i+1:].cut(":", ":")
		if !casts {
			continue
		}
		if len(named) > 2 && named[1].is(".") {
			named = named[2:]
		}
		if len(named) > 0 && named[0].text == of {
			return 2
		}
	}
	return most
}

// calls warns of procedures that commit: they can't where they are called here.
func (h *hints) calls(ctx context.Context) error {
	for _, one := range h.statements {
		rest, calls := one.cut("call")
		if !calls || len(rest) == 0 {
			continue
		}
		name, schemas := rest[0].text, h.spec.SearchPath
		if len(rest) > 2 && rest[1].is(".") {
			name, schemas = rest[2].text, []string{rest[0].text}
		}
		rows, err := h.q.Query(ctx,
			"SELECT p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.proname = $1 AND n.nspname = ANY ($2::text[]) AND p.prokind = 'p'", name, schemas)
		if err != nil {
			return said("look at procedure "+plain(name), err)
		}
		texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return said("look at procedure "+plain(name), err)
		}
		for _, text := range texts {
			body, err := lex(text)
			if err == nil && statement(body).commits() != "" {
				h.warn("it calls %s, which commits by itself: that fails, since the whole command is one transaction",
					plain(name))
			}
		}
	}
	return nil
}
