package postgresql

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed ambient_live.sql
	ambientLiveSQL string
	//go:embed ambient_rest.sql
	ambientRestSQL string
	//go:embed ambient_hba.sql
	ambientHBASQL string
)

// ambientScope is the grant that everybody's rights are compared with.
type ambientScope struct {
	// Schemas are those that the grant itself opens: whoever may look into one has
	// what PUBLIC has in it.
	Schemas []string
	// Granted is what the grant gives, by grantedOn, grantedColumns and grantedRoutine.
	// PUBLIC's right to the same is not reported.
	Granted []string
	// Roles are those that the grant is about besides the owners of what it names: what
	// they give to everybody is not a stranger's gift.
	Roles []string
}

// grantedOn is a privilege on a table, a view or a sequence, for ambientScope.
func grantedOn(privilege, schema, name string) string {
	return privilege + " on " + ident(schema, name)
}

// grantedColumns is a privilege on columns, for ambientScope.
func grantedColumns(privilege, schema, name string, columns ...string) []string {
	var granted []string
	for _, column := range columns {
		granted = append(granted, privilege+" on "+ident(schema, name, column))
	}
	return granted
}

// grantedRoutine is EXECUTE on a function or procedure, for ambientScope. The
// signature is as the server writes it: regprocedure as text.
func grantedRoutine(signature string) string { return "EXECUTE on " + signature }

// An ambientRight is one that every login of the database has, granted or not.
type ambientRight struct {
	Name  string // what a role tolerates it by, such as EXECUTE on function public.f(integer)
	Close string // the statement that ends it
	Giver string // the role that has given it, quoted; empty where that is a superuser's
	// Stops is false for what a stranger has given of his own: that is no more than he
	// could tell everybody anyway, and he must not keep others from getting credentials.
	Stops bool
}

// strangersGift is the warning of a right that does not stop.
func strangersGift(what, giver, statement string) string {
	return fmt.Sprintf("%s has given away something of his own, and the credential has it besides: %s; to end that: %s", giver, what, statement)
}

// strangers are the warnings of the rights that don't stop, and of those that a role
// tolerates none.
func strangers(found []ambientRight, tolerated []string) []string {
	var warnings []string
	for _, right := range found {
		if !right.Stops && !slices.Contains(tolerated, right.Name) {
			warnings = append(warnings, strangersGift(right.Name, right.Giver, right.Close))
		}
	}
	return fewWarnings(warnings)
}

// fewWarnings are the first of many: a stranger can give as much as he likes.
func fewWarnings(warnings []string) []string {
	const shown = 10
	if len(warnings) <= shown {
		return warnings
	}
	return append(slices.Clip(warnings[:shown]), fmt.Sprintf("%d more things that strangers have given away", len(warnings)-shown))
}

// ambientRights finds what every login of the server has beyond a grant, in order of
// the names. The floor that no login can be without is not reported.
func ambientRights(ctx context.Context, q querier, of ambientScope) ([]ambientRight, error) {
	found, err := ambientQuick(ctx, q, of)
	if err != nil {
		return nil, err
	}
	rest, err := ambientQuery(ctx, q, ambientRestSQL, of.Schemas, of.Roles)
	if err != nil {
		return nil, err
	}
	found = append(found, rest...)
	readable, err := hbaReadable(ctx, q)
	if err != nil {
		return nil, err
	}
	if readable {
		lines, err := ambientQuery(ctx, q, "SELECT name, close, '' AS giver, true AS stops FROM ("+ambientHBASQL+") found")
		if err != nil {
			return nil, err
		}
		found = append(found, lines...)
	}
	return inOrder(found), nil
}

// ambientQuick finds those of them that anybody who owns something can change while
// logins live. It is one query.
func ambientQuick(ctx context.Context, q querier, of ambientScope) ([]ambientRight, error) {
	found, err := ambientQuery(ctx, q, "SELECT name, close, giver, stops FROM ("+ambientLiveSQL+") found WHERE NOT covers && $2::text[]", of.Schemas, of.Granted, of.Roles)
	if err != nil {
		return nil, err
	}
	return inOrder(found), nil
}

// ambientGuard is a query for the transaction of a mint that fails with
// divisionByZero if ambientQuick would find a right that stops, and is not tolerated.
// It returns the others, as ambientRight.
func ambientGuard(of ambientScope, tolerated []string) (query string, arguments []any) {
	return "SELECT name, close, giver, 1 / (NOT stops)::integer = 0 AS stops FROM (" + ambientLiveSQL + ") found WHERE NOT covers && $2::text[] AND name <> ALL ($4::text[])",
		[]any{notNil(of.Schemas), notNil(of.Granted), notNil(of.Roles), notNil(tolerated)}
}

// hbaReadable says whether the engine may see who gets in without a password. By
// default only superusers may.
func hbaReadable(ctx context.Context, q querier) (bool, error) {
	var readable bool
	err := q.QueryRow(ctx, "SELECT has_table_privilege('pg_catalog.pg_hba_file_rules', 'SELECT') AND has_function_privilege('pg_catalog.pg_hba_file_rules()', 'EXECUTE')").Scan(&readable)
	if err != nil {
		return false, said("whether pg_hba.conf can be read", err)
	}
	return readable, nil
}

// hbaUnreadable is what is said to who configures a target of which hbaReadable says no.
const hbaUnreadable = "the engine can't read pg_hba_file_rules, so logins that need no password, and outlive VALID UNTIL, are not found; GRANT SELECT ON pg_hba_file_rules and GRANT EXECUTE ON FUNCTION pg_hba_file_rules() to its user"

func ambientQuery(ctx context.Context, q querier, query string, arguments ...any) ([]ambientRight, error) {
	for i, argument := range arguments {
		if list, ok := argument.([]string); ok {
			arguments[i] = notNil(list)
		}
	}
	rows, err := q.Query(ctx, query, arguments...)
	if err != nil {
		return nil, said("ambient rights", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ambientRight])
	if err != nil {
		return nil, said("ambient rights", err)
	}
	return found, nil
}

// inOrder sorts by name; a name that several objects share is kept with each of its
// statements.
func inOrder(found []ambientRight) []ambientRight {
	slices.SortFunc(found, func(a, b ambientRight) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return strings.Compare(a.Close, b.Close)
	})
	return slices.Compact(found)
}

// notNil makes an empty array of what would be NULL, which nothing compares with.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
