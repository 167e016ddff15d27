package postgresql

import (
	"regexp"
	"slices"
	"strings"
)

// grant is one of each kind that there is.
type grant struct {
	name string         // by which statements say that it may
	role map[string]any // the role's fields, beside its target
	may  []string       // what may come of its statements, see judge
}

// month is the command that RUN is for.
const month = "UPDATE ledger.accounts SET owner = 'run'"

// grants are those that all statements are tried with, in a database.
func grants(database string) []grant {
	role := func(action, resource string, more ...any) map[string]any {
		fields := map[string]any{"action": action, "resource": resource}
		for pair := range slices.Chunk(more, 2) {
			fields[pair[0].(string)] = pair[1]
		}
		return fields
	}
	reads := func(columns ...string) []string {
		may := []string{"reads by an expression", "AccessShareLock of ledger.entries"}
		for _, column := range columns {
			may = append(may, "reads ledger.entries."+column)
		}
		return may
	}
	const rows, note = "rows of ledger.entries", "ledger.entries.note"
	entries := []string{"ledger.entries.id", "ledger.entries.account", "ledger.entries.amount", note, "ledger.entries.card"}
	var locks []string
	for _, mode := range []string{"AccessShare", "RowShare", "RowExclusive", "Share", "AccessExclusive"} {
		locks = append(locks, mode+"Lock of ledger.entries")
	}
	return []grant{
		{"select", role("SELECT", "ledger.entries"), reads("id", "account", "amount", "note", "card")},
		{"columns", role("SELECT", "ledger.entries(id,amount)"), reads("id", "amount")},
		{"view", role("SELECT", "ledger.recent"), append(reads("id", "amount"), "AccessShareLock of ledger.recent")},
		{"insert", role("INSERT", "ledger.entries"), append(entries, rows, "AccessShareLock of ledger.entries", "RowExclusiveLock of ledger.entries")},
		{"identity", role("INSERT", "ledger.events(what)"), []string{"rows of ledger.events", "ledger.events.id", "ledger.events.what", "sequence ledger.events_id_seq"}},
		{"update", role("UPDATE", "ledger.entries(note)", "key", "id"), slices.Concat(reads("id"), locks, []string{note})},
		{"overwrite", role("UPDATE", "ledger.entries(note)", "whole_table", true), append(locks, note)},
		{"delete", role("DELETE", "ledger.entries", "key", "id"), slices.Concat(reads("id"), locks, entries, []string{rows})},
		{"empty", role("DELETE", "ledger.entries", "whole_table", true), slices.Concat(locks, entries, []string{rows})},
		{"execute", role("EXECUTE", "ledger.add(integer,integer)"), []string{"calls ledger.add(integer,integer)"}},
		{"call", role("EXECUTE", "ledger.post(integer)"), append(entries, rows)},
		{"usage", role("USAGE", "ledger.numbers"), []string{"sequence ledger.numbers", "reads ledger.numbers"}},
		{"run", role("RUN", database, "command", month, "run_as", owner), []string{"ledger.accounts.owner"}},
	}
}

// floor is what comes of statements that no login can be kept from.
var floor = []string{"advisory lock", "own large object", "own role", "own role’s settings", "notification"}

// floorOf15 is what comes besides where a login can take on its holder's role.
var floorOf15 = []string{"holder’s large object", "holder", "holder’s settings"}

// tell is how something is known again that a login has come to know.
type tell struct {
	pattern *regexp.Regexp
	effect  string
}

var tells = func() []tell {
	var all []tell
	for _, known := range [][2]string{
		{`71000\d\d`, "reads ledger.entries.id"}, {`72000\d\d`, "reads ledger.entries.account"}, {`73000\d\d`, "reads ledger.entries.amount"},
		{"note-mark", "reads ledger.entries.note"}, {"card-mark", "reads ledger.entries.card"},
		{`74000\d\d`, "reads ledger.accounts.id"}, {"owner-mark", "reads ledger.accounts.owner"},
		{`75000\d\d`, "reads hidden.safe.id"}, {"secret-mark", "reads hidden.safe.secret"},
		{`76000\d\d`, "reads ledger.numbers"}, {`77000\d\d`, "reads ledger.tickets"},
		{"event-mark", "reads ledger.events"}, {"item-mark", "reads ledger.orders"}, {"part-mark", "reads ledger.parts"}, {"total-mark", "reads ledger.totals"},
		{"object-mark|6f626a6563742d6d61726b6572", "reads a large object"},
		{"added-mark", "calls ledger.add(integer,integer)"}, {"joined-mark", "calls ledger.add(text,text)"},
		{"query-mark", "reads another’s query"}, {`SCRAM-SHA-256\$`, "reads a password"}, {"precision-lab-", "reads the server’s files or paths"}, {"root:x:|uid=", "reads the machine’s files"},
		{"counted:|probed", "reads by an expression"},
	} {
		all = append(all, tell{regexp.MustCompile(known[0]), known[1]})
	}
	return all
}()

// told is what can be seen in what the server has said to a statement, other than
// what the statement has said itself.
func told(statement, said string) []string {
	var effects []string
	for _, tell := range tells {
		if slices.ContainsFunc(tell.pattern.FindAllString(said, -1), func(found string) bool { return !strings.Contains(statement, found) }) {
			effects = append(effects, tell.effect)
		}
	}
	return effects
}
