package postgresql

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// settingsSQL finds the settings that any session may change and that change what a
// text means, with the values that the engine's session has: how values are read and
// written, what is looked up by default, what is compatible with what, and what
// extensions do. Everybody may lock the view of them. Left out is what can't be set for a while, what only decides when
// to give up, how the client is spoken to, and what the commit sets for itself.
const settingsSQL = `
SELECT name, current_setting(name) FROM pg_show_all_settings()
WHERE context = 'user'
  AND (category IN ('Client Connection Defaults / Locale and Formatting', 'Client Connection Defaults / Statement Behavior',
                    'Client Connection Defaults / Other Defaults', 'Connections and Authentication / Authentication', 'Customized Options')
       OR category LIKE 'Version and Platform Compatibility / %' OR name = 'synchronous_commit')
  AND name NOT LIKE 'transaction\_%' AND name NOT LIKE 'default\_transaction\_%' AND name NOT LIKE 'idle\_%' AND name NOT LIKE 'vacuum\_%'
  AND name NOT IN ('search_path', 'client_encoding', 'client_min_messages', 'statement_timeout', 'lock_timeout', 'temp_tablespaces', 'gin_pending_list_limit')
ORDER BY name`

// runSettings are what a command's settings are pinned to: the values that a session
// of the engine's login begins with, which are the server's and the database's. q is
// a connection by unpinned.
func runSettings(ctx context.Context, q querier) (map[string]string, error) {
	if err := loadPlpgsql(ctx, q); err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, settingsSQL)
	if err != nil {
		return nil, said("settings", err)
	}
	settings := map[string]string{}
	var name, value string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		settings[name] = value
		return nil
	}); err != nil {
		return nil, said("settings", err)
	}
	return settings, nil
}

// loadPlpgsql loads plpgsql into a session: the server knows its settings from then on.
func loadPlpgsql(ctx context.Context, q querier) error {
	_, err := q.Exec(ctx, "DO LANGUAGE plpgsql 'BEGIN END'")
	return said("use plpgsql", err)
}

// unpinned connects without the settings that the engine's other sessions pin. Whoever
// asks for it closes it.
func (s *server) unpinned(ctx context.Context) (*pgx.Conn, error) {
	return withPasswords(s.passwords, func(password string) (*pgx.Conn, error) {
		config, err := s.config(s.database, password)
		if err != nil {
			return nil, err
		}
		config.ConnConfig.RuntimeParams = map[string]string{"application_name": engineName, "client_encoding": "UTF8", "search_path": "pg_catalog"}
		for _, name := range []string{"statement_timeout", "lock_timeout"} { // which no command is pinned to
			config.ConnConfig.RuntimeParams[name] = pinned[name]
		}
		return pgx.ConnectConfig(ctx, config.ConnConfig)
	})
}

// checkRun checks against the server what a role's commands need of it, and returns what
// the role's author should know. spec is one of them. conn is in no transaction. What the
// author can fix is an *invalid.Error.
func checkRun(ctx context.Context, conn querier, spec runSpec, commands map[string]string) ([]string, error) {
	warnings, err := checkRunAs(ctx, conn, spec)
	if err != nil {
		return nil, err
	}
	for _, schema := range spec.SearchPath {
		if err := checkPath(ctx, conn, schema, spec.RunAs); err != nil {
			return nil, err
		}
	}
	if err := checkCustom(ctx, conn, spec.Custom); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		one := spec
		one.Name, one.Command = name, commands[name]
		if err := checkSyntax(ctx, conn, commandField(name), one.Command); err != nil {
			return nil, err
		}
		found, err := commandHints(ctx, conn, one)
		if err != nil {
			return nil, err
		}
		for _, warning := range found {
			if name != "" {
				warning = name + ": " + warning
			}
			warnings = append(warnings, warning)
		}
	}
	return warnings, nil
}

// checkCustom has the server say whether it takes custom settings.
func checkCustom(ctx context.Context, q querier, custom map[string]string) error {
	if len(custom) == 0 {
		return nil
	}
	if err := loadPlpgsql(ctx, q); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(custom)) {
		var known bool
		if err := q.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_show_all_settings() WHERE lower(name) = $1)", name).Scan(&known); err != nil {
			return said("look at setting "+name, err)
		}
		if known {
			return invalid.Field(fieldSettings, name, "a setting that the server knows: those that change what a text means are pinned already", "SET it in the command")
		}
		// It is set for this statement alone.
		if _, err := q.Exec(ctx, "SELECT set_config($1, $2, true)", name, custom[name]); err != nil {
			if !answered(err) || isState(err, passing...) {
				return said("try setting "+name, err)
			}
			return invalid.Field(fieldSettings, name, "the server does not take it: "+serverMessage(err), "name a setting of your own, as in app.user")
		}
	}
	return nil
}

func checkRunAs(ctx context.Context, q querier, spec runSpec) ([]string, error) {
	if _, err := canBecome(ctx, q, spec.RunAs); err != nil {
		return nil, err
	}
	var superuser, creates, engine bool
	err := q.QueryRow(ctx, "SELECT rolsuper, rolcreaterole, rolname = current_user FROM pg_roles WHERE rolname = $1", spec.RunAs).Scan(&superuser, &creates, &engine)
	if err != nil {
		return nil, said("look at "+spec.RunAs, err)
	}
	const remedy = "name the owner of what the command changes, or set allow_escalation=true"
	switch {
	case superuser && !spec.Superuser:
		return nil, invalid.Field("run_as", spec.RunAs, "is a superuser, whom no privilege stops", remedy)
	case engine && !spec.Superuser:
		return nil, invalid.Field("run_as", spec.RunAs, "is the engine's own user, who makes the logins", remedy)
	case superuser:
		return []string{"the command runs as " + plain(spec.RunAs) + ", a superuser: whatever it calls and fires has every right on the server"}, nil
	case creates:
		return []string{"the command runs as " + plain(spec.RunAs) + ", who may make and change roles"}, nil
	default:
		return nil, nil
	}
}

// checkPath checks a schema in which a command's names are looked up: whoever may
// create in it puts something of his own in their place.
func checkPath(ctx context.Context, q querier, schema, runAs string) error {
	// Its owner may do with it what he likes, and a superuser with everything.
	rows, err := q.Query(ctx, `SELECT coalesce(quote_ident(a.rolname), 'PUBLIC') FROM pg_namespace n,
			LATERAL (SELECT r.rolname, r.rolsuper, e.* FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) e LEFT JOIN pg_roles r ON r.oid = e.grantee) a
		WHERE n.nspname = $1 AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND a.rolname IS DISTINCT FROM $2 AND a.rolsuper IS NOT TRUE
		UNION ALL SELECT '' FROM pg_namespace n WHERE n.nspname = $1 ORDER BY 1`, schema, runAs)
	if err != nil {
		return said("look at schema "+schema, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	switch {
	case err != nil:
		return said("look at schema "+schema, err)
	case len(found) == 0:
		return invalid.Field("search_path", schema, "the database has no such schema", "name schemas that exist")
	case len(found) > 1:
		who := strings.Join(found[1:], ", ")
		return invalid.Field("search_path", schema, who+" may create in it, and so put another table or function in the place of one that the command names",
			"REVOKE CREATE ON SCHEMA "+plain(schema)+" FROM "+who+", or leave it out and qualify the command's names")
	}
	return nil
}

// checkSyntax has the server parse a command, and run nothing of it. One message is
// parsed as a whole; then its first statement fails, and the server leaves out the
// rest.
func checkSyntax(ctx context.Context, conn querier, field, command string) error {
	_, err := conn.Exec(ctx, "SELECT 1/0; "+command, pgx.QueryExecModeSimpleProtocol)
	switch {
	case err == nil:
		return errors.New("postgresql: parse a command: a division by zero has succeeded")
	case isState(err, divisionByZero):
		return nil
	case !answered(err), isState(err, passing...):
		return said("parse a command", err) // nothing was said of it
	default:
		return invalid.Hidden(field, "the server can't parse it: "+serverMessage(err), "give the command's SQL as it would be run")
	}
}
