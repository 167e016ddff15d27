package postgresql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// installRun installs a command for a holder, or puts right what has been changed
// since. tx is a transaction; the holder exists.
// What the role's author can mend is an *invalid.Error.
func installRun(ctx context.Context, tx querier, at runPlace, spec runSpec) error {
	if err := ownSchemaFor(ctx, tx, at.Schema); err != nil {
		return err
	}
	for _, statement := range []string{
		// One at a time: two that make the engine a member of one role and take it back
		// would undo each other's. Who comments locks, and nobody but the owner can: an
		// advisory lock is anybody's to hold.
		"COMMENT ON SCHEMA " + ident(at.Schema) + " IS " + literal("predefined commands of "+marked),
		"SET LOCAL standard_conforming_strings = on",
		"SET LOCAL check_function_bodies = on",
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return said("install a command", err)
		}
	}
	differs, err := runMatches(ctx, tx, at, spec)
	if err != nil || len(differs) == 0 {
		return err
	}
	member, err := canBecome(ctx, tx, spec.RunAs)
	if err != nil {
		return err
	}
	for _, statement := range spec.install(at, member) {
		if _, err := tx.Exec(ctx, statement); err != nil {
			if isState(err, insufficientPrivilege) {
				return invalid.Field("run_as", spec.RunAs, "the engine's user may not make procedures that run as it: "+serverMessage(err), cantBecome(spec.RunAs))
			}
			return said("install a command", err)
		}
	}
	differs, err = runMatches(ctx, tx, at, spec)
	if err != nil {
		return err
	}
	if len(differs) > 0 { // such as default privileges that open new procedures
		return fmt.Errorf("postgresql: install a command: right after it was made %s", strings.Join(differs, "; "))
	}
	return nil
}

// ownSchemaFor makes the schema of the engine's own. It may be somebody else's only
// where a superuser does not mind: its owner can drop what is in it.
func ownSchemaFor(ctx context.Context, tx querier, schema string) error {
	var owner, user, database string
	var superuser bool
	err := tx.QueryRow(ctx, `SELECT coalesce((SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE n.nspname = $1), ''), current_user, current_database(),
		(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)`, schema).Scan(&owner, &user, &database, &superuser)
	switch {
	case err != nil:
		return said("look for schema "+schema, err)
	case owner == user, owner != "" && superuser:
		return nil
	case owner != "":
		return invalid.Field("action", "RUN", fmt.Sprintf("schema %s, in which commands are installed, belongs to %s", plain(schema), plain(owner)),
			fmt.Sprintf("ALTER SCHEMA %s OWNER TO %s, or use one user for all engines of the database", plain(schema), plain(user)))
	}
	_, err = tx.Exec(ctx, "CREATE SCHEMA "+ident(schema))
	if isState(err, insufficientPrivilege) {
		return invalid.Field("action", "RUN", "the engine's user may not make the schema in which commands are installed",
			fmt.Sprintf("CREATE SCHEMA %s AUTHORIZATION %s, or GRANT CREATE ON DATABASE %s TO %s", plain(schema), plain(user), plain(database), plain(user)))
	}
	if err != nil {
		return said("make schema "+schema, err)
	}
	return nil
}

// install is what makes the procedures. Nobody but the holder may call them at any
// time: it is one transaction.
func (s runSpec) install(at runPlace, member bool) []string {
	var statements []string
	add := func(format string, arguments ...any) {
		statements = append(statements, fmt.Sprintf(format, arguments...))
	}
	schema, runAs, holder := ident(at.Schema), ident(s.RunAs), ident(at.Holder)
	statements = append(statements, dropRun(at)...)
	if s.Once {
		add("CREATE TABLE IF NOT EXISTS %s (command name, login name, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (command, login))", ident(at.Schema, onceTable))
		add("DELETE FROM %s r WHERE NOT EXISTS (SELECT FROM pg_roles l WHERE l.rolname = r.login)", ident(at.Schema, onceTable))
	}
	if !member {
		add("GRANT %s TO CURRENT_USER", runAs)
	}
	for _, p := range s.procedures(at) {
		name := p.signature(at.Schema)
		statements = append(statements, p.create(at.Schema))
		add("REVOKE ALL ON PROCEDURE %s FROM PUBLIC", name)
		add("GRANT EXECUTE ON PROCEDURE %s TO %s", name, holder)
		if p.owner != "" {
			add("GRANT CREATE ON SCHEMA %s TO %s", schema, ident(p.owner))
			add("ALTER PROCEDURE %s OWNER TO %s", name, ident(p.owner))
			add("REVOKE CREATE ON SCHEMA %s FROM %s", schema, ident(p.owner))
		}
	}
	if !member {
		add("REVOKE %s FROM CURRENT_USER", runAs)
	}
	add("GRANT USAGE ON SCHEMA %s TO %s", schema, holder)
	return statements
}

func dropRun(at runPlace) []string {
	var statements []string
	for _, suffix := range []string{"", textSuffix, onceSuffix} {
		for _, types := range []string{"", rowsType} {
			statements = append(statements, "DROP PROCEDURE IF EXISTS "+at.routine(suffix, types))
		}
	}
	return statements
}

// uninstallRun removes a command. It is idempotent.
func uninstallRun(ctx context.Context, q querier, at runPlace) error {
	for _, statement := range dropRun(at) {
		if _, err := q.Exec(ctx, statement); err != nil {
			return said("remove a command", err)
		}
	}
	var once bool
	if err := q.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", ident(at.Schema, onceTable)).Scan(&once); err != nil {
		return said("remove a command", err)
	}
	if !once {
		return nil
	}
	if _, err := q.Exec(ctx, "DELETE FROM "+ident(at.Schema, onceTable)+" WHERE command = $1", at.Name); err != nil {
		return said("remove a command", err)
	}
	return nil
}

// installedSQL finds in what an installed command differs from its policy, a row each.
//
//	$1  the engine's schema
//	$2  the holder
//	$3  run_as
//	$4  whether run_as may be a superuser
//	$5…$11  of each procedure: name, SHA-256 of its text, owner or empty for the engine, whether it runs as its owner, settings, search_path, arguments
const installedSQL = `
WITH wanted AS (
  SELECT * FROM unnest($5::text[], $6::text[], $7::text[], $8::boolean[], $9::text[], $10::text[], $11::text[]) w (name, hash, owner, definer, settings, path, arguments)
), space AS (
  SELECT n.oid, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl FROM pg_namespace n WHERE n.nspname = $1::text
)
SELECT format('procedure %I %s', w.name, d.what) AS differs
FROM wanted w
LEFT JOIN (pg_proc p JOIN space n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner JOIN pg_language l ON l.oid = p.prolang)
       ON p.proname = w.name::name AND pg_get_function_arguments(p.oid) = w.arguments,
LATERAL (SELECT CASE
  WHEN p.oid IS NULL THEN 'is missing'
  WHEN p.prokind <> 'p' OR l.lanname <> 'plpgsql' OR p.probin IS NOT NULL OR p.prosqlbody IS NOT NULL OR p.protrftypes IS NOT NULL
    OR encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex') <> w.hash THEN 'has another text'
  WHEN o.rolname <> coalesce(nullif(w.owner, ''), current_user) THEN 'belongs to ' || quote_ident(o.rolname)
  WHEN p.prosecdef <> w.definer THEN 'runs with other rights'
  WHEN coalesce((SELECT string_agg(c, E'\n' ORDER BY c COLLATE "C") FROM unnest(p.proconfig) c), '')
    <> coalesce((SELECT string_agg(c, E'\n' ORDER BY c COLLATE "C")
                 FROM (SELECT nullif(regexp_split_to_table(w.settings, E'\n'), '') UNION ALL
                       SELECT 'search_path=' || string_agg(quote_ident(s), ', ' ORDER BY i)
                       FROM unnest(string_to_array(nullif(w.path, ''), E'\n')) WITH ORDINALITY u (s, i)) x (c)), '') THEN 'has other settings'
  WHEN NOT EXISTS (SELECT FROM aclexplode(p.proacl) a JOIN pg_roles g ON g.oid = a.grantee WHERE g.rolname = $2::text AND a.privilege_type = 'EXECUTE')
    THEN 'may not be called by its holder'
  WHEN EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a LEFT JOIN pg_roles g ON g.oid = a.grantee
               WHERE a.grantee <> p.proowner AND (g.rolname IS DISTINCT FROM $2::text OR a.is_grantable)) THEN 'may be called by others'
  END) d (what)
WHERE d.what IS NOT NULL
UNION ALL
SELECT format('schema %I belongs to %I', $1::text, r.rolname) FROM space n JOIN pg_roles r ON r.oid = n.nspowner
WHERE r.rolname <> current_user AND NOT (SELECT e.rolsuper FROM pg_roles e WHERE e.rolname = current_user)
UNION ALL
SELECT format('others may create in schema %I', $1::text) FROM space n WHERE EXISTS (SELECT FROM aclexplode(n.acl) a WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner)
UNION ALL
SELECT format('%I is a superuser', r.rolname) FROM pg_roles r WHERE r.rolname = $3::text AND r.rolsuper AND NOT $4::boolean`

func (s runSpec) installed(at runPlace) (query string, arguments []any) {
	var names, hashes, owners, settings, paths, signatures []string
	var definers []bool
	for _, p := range s.procedures(at) {
		names, hashes, owners = append(names, p.name), append(hashes, p.bodyHash()), append(owners, p.owner)
		definers, settings, paths = append(definers, p.definer), append(settings, p.config()), append(paths, strings.Join(p.path, "\n"))
		signatures = append(signatures, p.arguments)
	}
	return installedSQL, []any{at.Schema, at.Holder, s.RunAs, s.Superuser, names, hashes, owners, definers, settings, paths, signatures}
}

// runMatches says in what that which is installed differs from the policy; nil where
// it does not.
func runMatches(ctx context.Context, q querier, at runPlace, spec runSpec) ([]string, error) {
	query, arguments := spec.installed(at)
	rows, err := q.Query(ctx, query, arguments...)
	if err != nil {
		return nil, said("compare the installed command", err)
	}
	differs, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, said("compare the installed command", err)
	}
	return differs, nil
}

// runGuard is a query for the transaction of a mint that fails with
// divisionByZero if
// runMatches would find a difference.
func runGuard(at runPlace, spec runSpec) (query string, arguments []any) {
	query, arguments = spec.installed(at)
	return "SELECT 1 / (NOT EXISTS (SELECT FROM (" + query + ") differs))::integer", arguments
}

// canBecome says whether the engine's user may give objects to a role as it is.
func canBecome(ctx context.Context, q querier, role string) (bool, error) {
	// Since 16 membership and the right to become are two things.
	const query = `SELECT pg_has_role(current_user, r.oid, CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END)
		FROM pg_roles r WHERE r.rolname = $1`
	var member bool
	err := q.QueryRow(ctx, query, role).Scan(&member)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, invalid.Field("run_as", role, "the server has no such role", "name a role that exists, such as the owner of what the command changes")
	}
	if err != nil {
		return false, said(fmt.Sprintf("whether %s can be become", role), err)
	}
	return member, nil
}

func cantBecome(role string) string {
	return fmt.Sprintf("have a superuser GRANT %s TO the engine's user", plain(role))
}

// serverMessage is what the server says is wrong, without what it says of where.
func serverMessage(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Message
	}
	return err.Error()
}
