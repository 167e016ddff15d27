package postgresql

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// breach is where the statements try to leave a file.
const breach = "/tmp/precision-breach"

// state is all that a login could have changed, by what it is.
type state map[string]string

// changes are what differs between two states, in order.
func (s state) changes(later state) []string {
	var all []string
	for what := range maps.Keys(later) {
		if s[what] != later[what] {
			all = append(all, what)
		}
	}
	for what := range s {
		if _, still := later[what]; !still {
			all = append(all, what)
		}
	}
	slices.Sort(all)
	return all
}

// watch looks at a shop, its server, and one login with its holder. What a login
// changes in tables and catalogue is written ahead to the server's log of changes, so
// that they are read again only where that log has grown.
type watch struct {
	*shop
	names      map[string]string // of login, holder, engine and the rest, as the statements have them
	grown      string            // how far the log was
	kept       state             // of tables and catalogue
	other      *pgx.Conn         // in another database
	statements struct{ outside, tables, catalogue string }
}

// outside is what is not in the log: files, settings, sessions, statistics.
const outside = `SELECT pg_current_wal_insert_lsn()::text, jsonb_build_object(
 'settings reloaded', pg_conf_load_time(),
 'setting of the server', md5(pg_read_file('postgresql.auto.conf')) || md5(pg_read_file('pg_hba.conf')),
 'file of the server', (SELECT string_agg(f, ' ' ORDER BY f) FROM pg_ls_dir('.') f),
 'prepared transaction', (SELECT string_agg(gid, ' ' ORDER BY gid) FROM pg_prepared_xacts),
 'session of another', (SELECT state FROM pg_stat_activity WHERE pid = $1),
 'further session', (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename NOT IN ($2, $4) AND backend_type = 'client backend'),
 'statistics', (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()),
 'statistics of the server', (SELECT stats_reset FROM pg_stat_bgwriter),
 'checkpoint', (SELECT redo_lsn FROM pg_control_checkpoint()),
 'replication slot', (SELECT string_agg(slot_name, ' ') FROM pg_replication_slots),
 'advisory lock', (SELECT string_agg(classid || ' ' || objid, ',') FROM pg_locks WHERE locktype = 'advisory' AND pid = $3))`

// divided are the catalogues that are looked at in parts, and those that say again
// what others say.
var divided = []string{"pg_largeobject", "pg_largeobject_metadata", "pg_authid", "pg_db_role_setting", "pg_depend", "pg_shdepend"}

// rewritten are the catalogues that privileges are in, and the column that tells what
// is not the system's.
var rewritten = map[string]string{"pg_class": "oid", "pg_attribute": "attrelid", "pg_database": "oid", "pg_namespace": "oid", "pg_proc": "oid", "pg_language": "oid", "pg_type": "oid"}

func newWatch(s *shop, other *pgx.Conn, names map[string]string) *watch {
	w := &watch{shop: s, names: names, other: other}
	var tables []string
	rows, err := s.super.Query(s.t.Context(), `SELECT c.oid::regclass::text, c.relkind::text, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relnamespace IN ('ledger'::regnamespace, 'hidden'::regnamespace) AND c.relkind IN ('r', 'm', 'S') GROUP BY c.oid ORDER BY 1`)
	if err != nil {
		s.t.Fatal(err)
	}
	var name, kind string
	var columns []string
	if _, err := pgx.ForEachRow(rows, []any{&name, &kind, &columns}, func() error {
		if kind == "S" {
			tables = append(tables, fmt.Sprintf("SELECT 'sequence %[1]s', last_value::text || is_called FROM %[1]s", name))
			return nil
		}
		tables = append(tables, fmt.Sprintf("SELECT 'rows of %[1]s', count(*)::text FROM %[1]s", name))
		for _, column := range columns {
			tables = append(tables, fmt.Sprintf("SELECT '%[1]s.%[2]s', md5(string_agg(%[2]s::text, '|' ORDER BY id, %[2]s::text)) FROM %[1]s", name, column))
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	w.statements.tables = strings.Join(tables, " UNION ALL ")
	w.statements.catalogue = w.catalogue()
	w.keep()
	return w
}

// catalogue is the query for all of the system's catalogue.
func (w *watch) catalogue() string {
	rows, err := w.super.Query(w.t.Context(), "SELECT relname::text FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' ORDER BY 1")
	if err != nil {
		w.t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	// Whatever is written into a row gives the row a new xmin.
	some := func(what, table, which string) string {
		return fmt.Sprintf("SELECT '%s', count(*) || ' ' || coalesce(sum(xmin::text::bigint), 0) FROM pg_catalog.%s t WHERE %s", what, table, which)
	}
	var all []string
	role := func(name string) string {
		return fmt.Sprintf("(SELECT oid FROM pg_authid WHERE rolname = '%s')", w.names[name])
	}
	own, holder := role("{login}"), role("{holder}")
	for whose, of := range map[[3]string]string{
		{"own role", "own role’s settings", "own large object"}:    " = " + own,
		{"holder", "holder’s settings", "holder’s large object"}:   " = " + holder,
		{"other roles", "other roles’ settings", "a large object"}: " NOT IN (" + own + ", " + holder + ")",
	} {
		all = append(all, some(whose[0], "pg_authid", "oid"+of), some(whose[1], "pg_db_role_setting", "setrole"+of), some(whose[2], "pg_largeobject_metadata", "lomowner"+of))
	}
	all = append(all, some("a large object’s contents", "pg_largeobject", "loid IN (SELECT oid FROM pg_largeobject_metadata WHERE lomowner NOT IN ("+own+", "+holder+"))"))
	for _, name := range names {
		switch {
		case rewritten[name] != "": // by a GRANT that gives nothing, with what is in it already
			users := fmt.Sprintf("(%s >= 16384 OR %[1]s IN ('public'::regnamespace, (SELECT min(oid) FROM pg_database)))", rewritten[name])
			all = append(all, fmt.Sprintf("SELECT 'catalogue %[1]s', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM pg_catalog.%[1]s t WHERE %[2]s", name, users),
				some("catalogue "+name+" of the system", name, "NOT "+users))
		case !slices.Contains(divided, name):
			all = append(all, some("catalogue "+name, name, "true"))
		}
	}
	return strings.Join(all, " UNION ALL ")
}

// read is what a query of names and values returns.
func (w *watch) read(connection *pgx.Conn, into state, query string) {
	w.t.Helper()
	rows, err := connection.Query(w.t.Context(), query)
	if err != nil {
		w.t.Fatal(err)
	}
	var name string
	var value *string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if value != nil {
			into[name] = *value
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// keep reads tables and catalogue anew.
func (w *watch) keep() {
	w.t.Helper()
	w.kept = state{}
	w.read(w.super, w.kept, w.statements.tables)
	w.read(w.super, w.kept, w.statements.catalogue)
	w.read(w.other, w.kept, "SELECT 'another database', count(*) || ' ' || sum(xmin::text::bigint) FROM pg_class")
}

// look is how everything is now. pid is the login's session.
func (w *watch) look(victim, pid uint32) state {
	w.t.Helper()
	var grown string
	around := map[string]any{}
	if err := w.super.QueryRow(w.t.Context(), outside, victim, w.names["{login}"], pid, w.names["{engine}"]).Scan(&grown, &around); err != nil {
		w.t.Fatal(err)
	}
	if grown != w.grown {
		w.keep()
		w.grown = grown
	}
	now := maps.Clone(w.kept)
	for what, value := range around {
		now[what] = fmt.Sprint(value)
	}
	if _, err := os.Stat(breach); err == nil {
		now["file"] = "there"
	}
	return now
}

// locks are the locks that a session holds on what is not its own.
func (w *watch) locks(pid uint32) []string {
	w.t.Helper()
	rows, err := w.super.Query(w.t.Context(), `SELECT DISTINCT CASE WHEN locktype = 'advisory' THEN 'advisory lock' ELSE format('%s of %s', mode, relation::regclass) END
 FROM pg_locks LEFT JOIN pg_class c ON c.oid = relation WHERE pid = $1 AND database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
 AND (locktype = 'advisory' OR c.relkind <> 'i' AND (c.oid >= 16384 OR mode <> 'AccessShareLock'))`, pid)
	if err != nil {
		w.t.Fatal(err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return held
}
