package postgresql

import (
	"context"
	_ "embed"
	"slices"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed acl.sql
	aclSQL string
	//go:embed held.sql
	heldRest string
	//go:embed given.sql
	givenRest string

	heldSQL  = aclSQL + heldRest
	givenSQL = aclSQL + givenRest
)

// A holding is something that a role has.
type holding struct {
	Name  string // such as SELECT ON TABLE "ledger"."entries"
	Giver string // whose it is, quoted
	Close string // the statement that takes it back
	Stops bool   // false for what a stranger has given of his own, see ambientRight
}

// heldGuard is a query for the transaction of a mint that fails with divisionByZero
// unless the role has all that it is meant to have, and besides only what does not stop.
// It returns the latter, and one row without a name.
var heldGuard = "WITH everything AS MATERIALIZED (" + heldSQL + `)
SELECT held, giver, close, 1 / (NOT stops)::integer = 0 AS stops FROM everything WHERE held <> ALL ($4::text[])
UNION ALL SELECT '', '', '', 1 / ((SELECT count(DISTINCT held) FROM everything WHERE held = ANY ($4::text[])) = cardinality($4::text[]))::integer = 0`

// meant is what a holder is for.
type meant struct {
	role     string
	of       ambientScope
	expected []string
}

func (d document) meant(holder string, bears mark) (meant, error) {
	of, err := d.beyond()
	if err != nil {
		return meant{}, err
	}
	expected, err := d.expected(holder, bears)
	return meant{role: holder, of: of, expected: expected}, err
}

// arguments are those of heldSQL and heldGuard.
func (m meant) arguments() []any {
	return []any{m.role, notNil(m.of.Schemas), notNil(m.of.Roles), notNil(m.expected)}
}

// held lists what a role has. It is empty for a role that is not there.
func held(ctx context.Context, asked querier, role meant) ([]holding, error) {
	rows, err := asked.Query(ctx, heldSQL, role.arguments()...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[holding])
}

// lacking are the names of what a role is meant to have and has not.
func (m meant) lacking(found []holding) []string {
	return slices.DeleteFunc(slices.Clone(m.expected), func(name string) bool { return has(found, name) })
}

// extra is what a role has besides.
func (m meant) extra(found []holding) []holding {
	return slices.DeleteFunc(slices.Clone(found), func(one holding) bool { return slices.Contains(m.expected, one.Name) })
}

func has(found []holding, name string) bool {
	return slices.ContainsFunc(found, func(one holding) bool { return one.Name == name })
}

// firstThatStops is the first that is more than a stranger's gift.
func firstThatStops(found []holding) (holding, bool) {
	at := slices.IndexFunc(found, func(one holding) bool { return one.Stops })
	if at < 0 {
		return holding{}, false
	}
	return found[at], true
}

// holderGifts are the warnings of what strangers have given a holder.
func holderGifts(extra []holding) []string {
	var warnings []string
	for _, one := range extra {
		if !one.Stops && one.Name != "" {
			warnings = append(warnings, strangersGift(one.Name, one.Giver, one.Close))
		}
	}
	return fewWarnings(warnings)
}

// expected is what held lists for the holder of a document's privileges.
func (d document) expected(holder string, bears mark) ([]string, error) {
	privileges, err := d.privileges()
	if err != nil {
		return nil, err
	}
	list := []string{"comment " + bears.String()}
	for _, one := range privileges {
		if one.on == "PROCEDURE" {
			continue
		}
		if one.columns == nil {
			list = append(list, one.String())
			continue
		}
		for _, column := range one.columns {
			single := one
			single.columns = []string{column}
			list = append(list, single.String())
		}
	}
	if d.Run != nil {
		for _, made := range d.Run.procedures(d.place(holder)) { // the schema's name is a keyword, and so quoted
			list = append(list, string(executes)+" ON ROUTINE "+ident(ownProcedures)+"."+plain(made.name)+"("+made.types+")")
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
