package postgresql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Examine implements provider.Examiner.
func (p *postgres) Examine(ctx context.Context, granted scope.Scope, bounds provider.Bounds) (provider.Findings, error) {
	asked, err := want(granted, bounds, p.server.database)
	if err != nil {
		return provider.Findings{}, err
	}
	conn, err := p.server.borrow(ctx)
	if err != nil {
		return provider.Findings{}, p.unreached(err)
	}
	defer conn.Release()
	e := examination{server: p.server, conn: conn.Conn(), asked: asked, facts: provider.Facts{}}
	switch works[asked.action] {
	case relation:
		err = e.relation(ctx)
	case routine:
		err = e.routine(ctx)
	case sequence:
		err = e.sequence(ctx, "resource", asked.on)
	case database:
		err = e.command(ctx)
	}
	if err != nil {
		return provider.Findings{}, err
	}
	policy, err := asked.policy(p.server.database, e.facts)
	if err != nil {
		return provider.Findings{}, err
	}
	read, err := readPolicy(policy)
	if err != nil {
		return provider.Findings{}, err
	}
	if err := e.mayGive(ctx, read, p.server.username); err != nil {
		return provider.Findings{}, err
	}
	of, err := read.beyond()
	if err != nil {
		return provider.Findings{}, err
	}
	if err := e.watchable(ctx); err != nil {
		return provider.Findings{}, err
	}
	if err := e.unnamedStandbys(ctx, len(p.standbys)); err != nil {
		return provider.Findings{}, err
	}
	found, err := ambientRights(ctx, e.conn, of)
	if err != nil {
		return provider.Findings{}, said("looking for what everybody may do", err)
	}
	e.warnings = append(e.warnings, strangers(found, asked.tolerated)...)
	each := granted.ResourceText().Filled() != nil && asked.run == nil || granted.Tags()[fieldKey] != nil
	return provider.Findings{Facts: e.facts, Warnings: e.warnings, Each: each}, refuseAmbient(found, asked.tolerated)
}

// examination looks at what a role is about.
type examination struct {
	server   *server
	conn     *pgx.Conn
	asked    wanted
	facts    provider.Facts
	warnings []string
}

// watchable warns where no watchdog can be started.
func (e *examination) watchable(ctx context.Context) error {
	may, err := speaks(ctx, e.conn)
	if err == nil && !may {
		e.warnings = append(e.warnings, unwatched(errSpeechless(e.server.username)))
	}
	return err
}

// there says which kind of relation a name is, and refuses one that is not there.
func (e *examination) there(ctx context.Context, field string, on resource, kinds string) (oid uint32, relkind string, err error) {
	err = e.conn.QueryRow(ctx, "SELECT c.oid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2", on.schema, on.name).Scan(&oid, &relkind)
	switch {
	case err == nil && strings.Contains(kinds, relkind):
		return oid, relkind, nil
	case err == nil:
		return 0, "", invalid.Field(field, on.relation(), fmt.Sprintf("%s is not for this: it is %s", e.asked.verb(), kindName(relkind)), "name another")
	case !noRows(err):
		return 0, "", said("looking for "+on.relation(), err)
	}
	near, err := e.names(ctx, "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE position(c.relkind::text in $1) > 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'", kinds)
	if err != nil {
		return 0, "", err
	}
	return 0, "", invalid.Field(field, on.relation(), "the database has no such "+kindName(kinds[:1]), "name "+invalid.OneOf(scope.Nearest(on.relation(), near)))
}

// kindName is a relkind in words.
func kindName(relkind string) string {
	names := map[string]string{"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence", "i": "index", "I": "index", "c": "composite type", "t": "TOAST table"}
	if name, known := names[relkind]; known {
		return name
	}
	return "relation of kind " + relkind
}

func (e *examination) names(ctx context.Context, query string, arguments ...any) ([]string, error) {
	rows, err := e.conn.Query(ctx, query, arguments...)
	if err != nil {
		return nil, said("looking into the catalogue", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, said("looking into the catalogue", err)
}

// Kinds of relation that an action works on, see pg_class.relkind.
const (
	readable  = "rpvmf"
	writeable = "rpvf"
)

func (e *examination) relation(ctx context.Context) error {
	kinds := writeable
	if e.asked.action == selects {
		kinds = readable
	}
	oid, _, err := e.there(ctx, "resource", e.asked.on, kinds)
	if err != nil {
		return err
	}
	columns, err := e.names(ctx, "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum", oid)
	if err != nil {
		return err
	}
	for field, named := range map[string][]string{"resource": e.asked.on.columns, fieldKey: e.asked.key} {
		for _, column := range named {
			if !slices.Contains(columns, column) {
				return invalid.Field(field, plain(column), e.asked.on.relation()+" has no such column", "name "+invalid.OneOf(scope.Nearest(column, columns)))
			}
		}
	}
	if e.asked.action == inserts {
		if err := e.draws(ctx, oid); err != nil {
			return err
		}
	}
	if err := e.tell(settingsBeside(ctx, e.conn, e.asked.on)); err != nil {
		return err
	}
	return e.tell(sideEffects(ctx, e.conn, affected{Action: string(e.asked.action), On: e.asked.on, Companions: e.asked.companions, Escalates: e.asked.escalates}))
}

// tell adds what the role's author should know.
func (e *examination) tell(warnings []string, err error) error {
	e.warnings = append(e.warnings, warnings...)
	return err
}

// draws holds the named sequences to those that the columns of the table, or of what a
// view is made of, draw from by default: they are needed for that, and nothing else is.
func (e *examination) draws(ctx context.Context, oid uint32) error {
	known, err := e.names(ctx, `WITH RECURSIVE below AS (
  SELECT $1::oid AS oid
  UNION
  SELECT d.refobjid FROM below JOIN pg_class v ON v.oid = below.oid AND v.relkind = 'v' JOIN pg_rewrite r ON r.ev_class = v.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT DISTINCT format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(s.relname, '"', '""'))
  FROM below JOIN pg_attrdef d ON d.adrelid = below.oid JOIN pg_depend x ON x.classid = 'pg_attrdef'::regclass AND x.objid = d.oid
  JOIN pg_class s ON x.refclassid = 'pg_class'::regclass AND s.oid = x.refobjid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace`, oid)
	if err != nil {
		return err
	}
	for _, companion := range e.asked.companions {
		if err := e.sequence(ctx, "companion_resources", companion); err != nil {
			return err
		}
		if !slices.Contains(known, ident(companion.schema, companion.name)) {
			return invalid.Field("companion_resources", companion.String(), "no column of "+e.asked.on.relation()+" draws from it", "leave it out")
		}
	}
	return nil
}

func (e *examination) sequence(ctx context.Context, field string, on resource) error {
	_, _, err := e.there(ctx, field, on, "S")
	return err
}

func (e *examination) routine(ctx context.Context) error {
	var signature, kind, owner string
	var definer, super, trigger bool
	written := ident(e.asked.on.schema, e.asked.on.name) + e.asked.on.arguments
	err := e.conn.QueryRow(ctx, `SELECT p.oid::regprocedure::text, p.prokind::text, p.prosecdef, quote_ident(o.rolname), o.rolsuper,
       p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype)
  FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner WHERE p.oid = to_regprocedure($1)`, written).Scan(&signature, &kind, &definer, &owner, &super, &trigger)
	switch {
	case noRows(err), isState(err, syntaxError, invalidName, invalidText, undefinedObject, invalidSchemaName):
		near, err := e.names(ctx, "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'")
		if err != nil {
			return err
		}
		return invalid.Field("resource", e.asked.on.String(), "the database has no such function or procedure", "name "+invalid.OneOf(scope.Nearest(e.asked.on.String(), near))+"; a type that is not the server's own with its schema")
	case err != nil:
		return said("looking for "+e.asked.on.relation(), err)
	case trigger:
		return invalid.Field("resource", signature, "it is called by a trigger, and by nobody else", "name another")
	case definer && super && !e.asked.escalates:
		return invalid.Field("resource", signature, "it runs with the rights of "+owner+", a superuser", "have another role own it, or say allow_escalation=true")
	}
	e.facts[factSignature] = signature
	return e.tell(routineEffects(ctx, e.conn, signature, e.asked.escalates))
}

func (e *examination) command(ctx context.Context) error {
	plain, err := e.server.unpinned(ctx)
	if err != nil {
		return err
	}
	defer closeConn(plain)
	settings, err := runSettings(ctx, plain)
	if err != nil {
		return err
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	e.facts[factSettings] = string(text)
	return e.tell(checkRun(ctx, e.conn, *e.asked.run, e.asked.commands))
}

// mayGive refuses what the engine may not give, with the statements that let it.
func (e *examination) mayGive(ctx context.Context, read document, engine string) error {
	privileges, err := read.privileges()
	if err != nil {
		return err
	}
	var lacking []string
	for _, one := range privileges {
		query, arguments := one.mayBeGiven()
		if query == "" || (read.Run != nil && one.on == "SCHEMA") { // which installing makes
			continue
		}
		var may *bool
		// Who may not look into a schema is told so, instead of no.
		if err := e.conn.QueryRow(ctx, query, arguments...).Scan(&may); err != nil && !isState(err, insufficientPrivilege) {
			return said("what the engine may give", err)
		}
		if may == nil || !*may {
			lacking = append(lacking, one.grant(ident(engine))+" WITH GRANT OPTION")
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return invalid.Field("resource", read.Resource, "the engine's login may not give others what the role grants", "as the owner: "+strings.Join(lacking, "; "))
}

// mayBeGiven is the query whether the session may give the privilege on. It is empty
// for what the engine owns.
func (p privilege) mayBeGiven() (query string, arguments []any) {
	right := p.name + " WITH GRANT OPTION"
	switch {
	case p.on == "DATABASE":
		return "SELECT has_database_privilege(current_database(), $1)", []any{right}
	case p.on == "SCHEMA":
		return "SELECT has_schema_privilege(to_regnamespace($1)::oid, $2)", []any{p.object, right}
	case p.on == "SEQUENCE":
		return "SELECT has_sequence_privilege($1, $2)", []any{p.object, right}
	case p.on == "ROUTINE":
		return "SELECT has_function_privilege($1, $2)", []any{p.object, right}
	case p.on == "TABLE" && p.columns == nil:
		return "SELECT has_table_privilege($1, $2)", []any{p.object, right}
	case p.on == "TABLE":
		return "SELECT bool_and(has_column_privilege($1, named, $2)) FROM unnest($3::text[]) named", []any{p.object, right, p.columns}
	default:
		return "", nil
	}
}
