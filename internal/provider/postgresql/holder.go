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

// heldExactly is a query that fails with divisionByZero unless the role named by the
// first argument has what the second lists, and nothing else.
const heldExactly = "SELECT 1 / ((SELECT coalesce(array_agg(DISTINCT held COLLATE \"C\" ORDER BY held COLLATE \"C\"), '{}') FROM (%s) everything) = $2::text[])::integer"

// held lists what a role has, in order. It is empty for a role that is not there.
func held(ctx context.Context, asked querier, role string) ([]string, error) {
	rows, err := asked.Query(ctx, heldSQL, role)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	slices.Sort(list)
	return slices.Compact(list), nil
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
