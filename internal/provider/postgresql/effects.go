package postgresql

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

//go:embed effects.sql
var effectsSQL string

// affected is an action on a relation whose effects are asked for.
type affected struct {
	Action     string // SELECT, INSERT, UPDATE or DELETE
	On         resource
	Companions []resource // sequences that are granted too
	Escalates  bool       // whether it may turn out to be more than it says
}

// sideEffects finds what an action on a relation drags along, for who writes the role.
// An *invalid.Error says that the relation can't be used for it, or that the action
// could be made to be another one, unless it may be.
func sideEffects(ctx context.Context, q querier, of affected) ([]string, error) {
	if err := checkRelation(ctx, q, of); err != nil {
		return nil, err
	}
	var companions []string
	for _, companion := range of.Companions {
		companions = append(companions, ident(companion.schema, companion.name))
	}
	rows, err := q.Query(ctx, effectsSQL, of.On.schema, of.On.name, of.Action, notNil(of.On.columns), notNil(companions))
	if err != nil {
		return nil, said("side effects", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[effect])
	if err != nil {
		return nil, said("side effects", err)
	}
	return told(found, of.Escalates)
}

// effect is one of them.
type effect struct{ Says, Close string }

// told are the effects as warnings; one that can be made to be another is an error,
// unless it may be.
func told(found []effect, escalates bool) ([]string, error) {
	var warnings []string
	for _, effect := range found {
		if effect.Close != "" && !escalates {
			return nil, invalid.Hidden("action", effect.Says, effect.Close+"; or set allow_escalation=true")
		}
		warnings = append(warnings, effect.Says)
	}
	return slices.Compact(warnings), nil
}

// Kinds of relations, as pg_class.relkind has them.
// https://www.postgresql.org/docs/15/catalog-pg-class.html
const (
	relkindTable            = "r"
	relkindPartitioned      = "p"
	relkindView             = "v"
	relkindMaterializedView = "m"
	relkindForeign          = "f"
	relkindSequence         = "S"
)

// events are the bits that pg_relation_is_updatable answers with.
// https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/misc.c
var events = map[string]int{"UPDATE": 1 << 2, "INSERT": 1 << 3, "DELETE": 1 << 4}

// checkRelation checks that a relation is one that the action works on, for its rows
// and for no others.
func checkRelation(ctx context.Context, q querier, of affected) error {
	var kind string
	var writable int
	err := q.QueryRow(ctx, `SELECT c.relkind::text, pg_relation_is_updatable(c.oid, true)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`, of.On.schema, of.On.name).Scan(&kind, &writable)
	name := plain(of.On.schema) + "." + plain(of.On.name)
	refuse := func(problem, remedy string) error { return invalid.Field("resource", name, problem, remedy) }
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return refuse("the database has no such table or view", "name one that exists")
	case err != nil:
		return said("look at "+name, err)
	}
	switch kind {
	case relkindTable, relkindPartitioned, relkindForeign:
	case relkindMaterializedView:
		if of.Action != "SELECT" {
			return refuse("is a materialized view, which only its query writes", "name a table, or a command that refreshes it")
		}
	case relkindView:
		if err := checkView(ctx, q, of, refuse); err != nil {
			return err
		}
	case relkindSequence:
		return refuse("is a sequence", "set action=USAGE")
	default:
		return refuse("is no table or view", "name one")
	}
	if event, writes := events[of.Action]; writes && writable&event == 0 {
		return refuse("can't be written by "+of.Action, "name a table, or a view with one table below it or with a trigger INSTEAD OF it")
	}
	return nil
}

// viewsSQL finds a view and those that it is made of, as far as the caller's
// conditions are moved into them: not into one with security_barrier.
const viewsSQL = `
WITH RECURSIVE view AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
  UNION
  SELECT c.oid FROM view
  JOIN pg_class above ON above.oid = view.oid
  JOIN pg_rewrite r ON r.ev_class = view.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
  JOIN pg_class c ON c.oid = d.refobjid AND c.relkind = 'v'
  WHERE NOT coalesce((SELECT option_value::boolean FROM pg_options_to_table(above.reloptions) WHERE option_name = 'security_barrier'), false)
)
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_get_viewdef(c.oid),
  coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false),
  coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_barrier'), false)
FROM view JOIN pg_class c ON c.oid = view.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1`

// checkView checks that a view shows its rows and no others.
func checkView(ctx context.Context, q querier, of affected, refuse func(problem, remedy string) error) error {
	rows, err := q.Query(ctx, viewsSQL, of.On.schema, of.On.name)
	if err != nil {
		return said("look at a view", err)
	}
	views, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		Name, Definition string
		Invoker, Barrier bool
	}])
	if err != nil {
		return said("look at a view", err)
	}
	for _, view := range views {
		switch {
		case view.Invoker:
			return refuse("works with the login's own rights on what it is made of, which a grant on a view does not give: "+view.Name+" has security_invoker",
				"name the table below, or ALTER VIEW "+view.Name+" SET (security_invoker = false)")
		case !view.Barrier && of.Action != "INSERT" && leavesOut(view.Definition):
			return refuse(view.Name+" leaves rows out, but only from what is returned: a condition of the caller's is tried on them too, and an error in it shows what they hold",
				"ALTER VIEW "+view.Name+" SET (security_barrier = true)")
		}
	}
	return nil
}

// leavesOut says whether a view's definition chooses among rows. What can't be read
// does.
func leavesOut(definition string) bool {
	tokens, err := lex(definition)
	if err != nil {
		return true
	}
	from := false
	for _, next := range tokens {
		switch {
		case next.is("where"), next.is("join"), next.is("having"), next.is("except"), next.is("intersect"), next.is("tablesample"):
			return true
		case from && next.is(","): // another table
			return true
		case next.is("from"):
			from = true
		case slices.ContainsFunc([]string{"select", "group", "order", "window", "union", "limit"}, next.is):
			from = false
		}
	}
	return false
}

// routineEffects finds what calling a routine drags along. Its signature is as the
// server writes it. The errors are as those of sideEffects.
func routineEffects(ctx context.Context, q querier, signature string, escalates bool) ([]string, error) {
	var definer, bound, fixed, last, temporary, superuser, trigger, trusted bool
	var owner, language string
	err := q.QueryRow(ctx, `SELECT p.prosecdef, p.prosqlbody IS NOT NULL, path.text IS NOT NULL, coalesce(path.text ~ '(=|, *)"?pg_temp"?$', false),
			EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
			        WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'TEMPORARY'),
			r.rolsuper, p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype), l.lanpltrusted OR p.prokind = 'a', r.rolname, l.lanname
		FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner JOIN pg_language l ON l.oid = p.prolang
		LEFT JOIN LATERAL (SELECT s FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%') path (text) ON true
		WHERE p.oid = to_regprocedure($1)`, signature).
		Scan(&definer, &bound, &fixed, &last, &temporary, &superuser, &trigger, &trusted, &owner, &language)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, invalid.Field("resource", signature, "the database has no such function or procedure", "name one that exists, with its argument types")
	case err != nil:
		return nil, said("look at "+signature, err)
	case trigger:
		return nil, invalid.Field("resource", signature, "only a trigger calls it", "name a function that returns something else")
	}
	var found []effect
	set := "ALTER ROUTINE " + signature + " SET search_path = …, pg_temp, with the schemas that it means"
	switch {
	case !definer:
		found = append(found, effect{Says: signature + " runs with the login's own rights, which are to call it and nothing else"})
	case superuser:
		found = append(found, effect{Says: fmt.Sprintf("%s runs as %s, a superuser", signature, plain(owner))})
	default:
		found = append(found, effect{Says: fmt.Sprintf("%s runs as %s: the credential can do through it whatever it does for its arguments", signature, plain(owner))})
	}
	switch {
	case !definer || bound:
	case !fixed:
		found = append(found, effect{Says: fmt.Sprintf("%s runs as %s, and finds what it names by the caller's search_path", signature, plain(owner)), Close: set})
	case !last && temporary:
		found = append(found, effect{Says: fmt.Sprintf("%s runs as %s, and finds the caller's temporary tables before others", signature, plain(owner)), Close: set})
	}
	if !trusted {
		found = append(found, effect{Says: fmt.Sprintf("%s is in %s, and can do on the server's machine what the server can", signature, strings.ToUpper(language[:1])+language[1:])})
	}
	return told(found, escalates)
}
