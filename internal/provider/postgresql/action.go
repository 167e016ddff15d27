package postgresql

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// action is what a login may do.
type action string

const (
	selects  action = "SELECT"
	inserts  action = "INSERT"
	updates  action = "UPDATE"
	deletes  action = "DELETE"
	executes action = "EXECUTE"
	uses     action = "USAGE"
	runs     action = "RUN"
)

// works is what kind of resource each action is on.
var works = map[action]kind{
	selects: relation, inserts: relation, updates: relation, deletes: relation,
	executes: routine, uses: sequence, runs: database,
}

// Actions lists the actions that a role can name.
func Actions() []string {
	var names []string
	for name := range works {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// Role fields.
const (
	fieldKey        = "key"
	fieldWholeTable = "whole_table"
	fieldCommand    = "command"
	fieldCommands   = "commands"
	fieldSettings   = "settings"
	fieldRunAs      = "run_as"
	fieldRunOnce    = "run_once"
	fieldSearchPath = "search_path"
	fieldLimit      = "connection_limit"
)

const (
	defaultLimit = 5
	mostLimit    = 100
	// maxCommand is the longest command, in bytes. It is kept in the role, in the
	// policy and in the server's catalogue.
	maxCommand = 64 << 10
	// maxCommands is how long the commands of a role may be in all.
	maxCommands = 256 << 10
)

// wanted is what a role asks for, checked as far as that goes without the server.
type wanted struct {
	action     action
	on         resource
	key        []string          // the columns that rows are chosen by; nil for none
	companions []resource        // the sequences that an INSERT draws from
	run        *runSpec          // but for Settings, which are the server's; nil but for RUN
	commands   map[string]string // that the role has, by name; run is one of them
	escalates  bool
	limit      int // of connections
	tolerated  []string
}

// want reads a scope and a role's options. The errors are *invalid.Error.
func want(granted scope.Scope, bounds provider.Bounds, database string) (wanted, error) {
	asked := wanted{action: action(granted.Action()), escalates: bounds.AllowEscalation, tolerated: bounds.Options.List(provider.TolerateAmbient)}
	kind, known := works[asked.action]
	if !known {
		if _, known := works[action(strings.ToUpper(granted.Action()))]; known {
			return wanted{}, invalid.Field("action", granted.Action(), "not in its canonical spelling", "write "+strings.ToUpper(granted.Action()))
		}
		return wanted{}, invalid.Field("action", granted.Action(), "not an action that can be granted exactly", "name "+invalid.OneOf(Actions())+"; everything else can be RUN as a predefined command")
	}
	switch {
	case len(granted.Conditions()) > 0:
		return wanted{}, invalid.Hidden("conditions", "a privilege of PostgreSQL has none", "leave them out; which rows are seen is for a view or a row security policy to say")
	case bounds.SourceIP.IsValid():
		return wanted{}, invalid.Hidden("bound_source_ip", "which address a login may come from is for pg_hba.conf to say", "leave it out")
	}
	if err := asked.takesAll(bounds.Options); err != nil {
		return wanted{}, err
	}
	var err error
	if asked.on, err = parseResource("resource", kind, granted.Resource()); err != nil {
		return wanted{}, err
	}
	if err := checkFilled(kind, granted.ResourceText()); err != nil {
		return wanted{}, err
	}
	if asked.action == deletes && asked.on.columns != nil {
		return wanted{}, invalid.Field("resource", granted.Resource(), "a row is deleted whole", "leave the columns out, and name those that rows are chosen by as key")
	}
	if kind == sequence && asked.on.columns != nil {
		return wanted{}, invalid.Field("resource", granted.Resource(), "a sequence has no columns", "write it as "+form[sequence])
	}
	for _, text := range granted.Companions() {
		if asked.action != inserts {
			return wanted{}, invalid.Hidden("companion_resources", asked.verb()+" works on one resource", "leave them out")
		}
		if err := literalOnly("companion_resources", text); err != nil {
			return wanted{}, err
		}
		companion, err := parseResource("companion_resources", sequence, text.String())
		if err != nil {
			return wanted{}, err
		}
		asked.companions = append(asked.companions, companion)
	}
	return asked, asked.options(bounds.Options, database)
}

// takesAll says whether the action takes every field that the role has.
func (w *wanted) takesAll(options provider.Settings) error {
	for _, field := range slices.Sorted(maps.Keys(options)) {
		if takers, limited := takes[field]; limited && set(options, field) && !slices.Contains(takers, w.action) {
			return invalid.Hidden(field, w.verb()+" does not take it", "leave it out")
		}
	}
	return nil
}

// options reads what the role says beside its scope.
func (w *wanted) options(options provider.Settings, database string) error {
	w.limit = defaultLimit
	if limit, given := options.Number(fieldLimit); given {
		if limit < 1 || limit > mostLimit {
			return invalid.Field(fieldLimit, fmt.Sprint(limit), "not a number of connections that one credential may have", fmt.Sprintf("give 1 to %d", mostLimit))
		}
		w.limit = limit
	}
	if text := options.Text(fieldKey); text != "" {
		var err error
		if w.key, err = parseColumns(fieldKey, text); err != nil {
			return err
		}
	}
	if w.action == updates || w.action == deletes {
		switch whole := options.True(fieldWholeTable); {
		case whole && w.key != nil:
			return invalid.Hidden(fieldWholeTable, "rows are chosen by a key, or they are not", "leave out key or whole_table")
		case !whole && w.key == nil:
			return invalid.Hidden(fieldKey, w.verb()+" reads the columns that a WHERE names, and may not without a right to", "name the columns that rows are chosen by, or say whole_table=true where every row is meant")
		}
	}
	if w.action == runs {
		return w.command(options, database)
	}
	return nil
}

// takes are the actions that take a role field; the others take every field.
var takes = map[string][]action{
	fieldKey:        {inserts, updates, deletes},
	fieldWholeTable: {updates, deletes},
	fieldCommand:    {runs},
	fieldCommands:   {runs},
	fieldSettings:   {runs},
	fieldRunAs:      {runs},
	fieldRunOnce:    {runs},
	fieldSearchPath: {runs},
}

// set says whether a field says something.
func set(options provider.Settings, field string) bool {
	object, _ := options[field].(map[string]any)
	return options.Text(field) != "" || options.True(field) || len(options.List(field)) > 0 || len(options.Pairs(field)) > 0 || len(object) > 0
}

// command reads what a predefined command needs.
func (w *wanted) command(options provider.Settings, database string) error {
	if w.on.database != database {
		return invalid.Field("resource", plain(w.on.database), "not the target's database", "name "+plain(database)+", or a target that is another")
	}
	w.run = &runSpec{Name: w.on.command, Once: options.True(fieldRunOnce), Superuser: w.escalates}
	all, err := commandsIn(options)
	if err != nil {
		return err
	}
	w.commands = all
	text, there := all[w.on.command]
	switch {
	case !there && len(options.Pairs(fieldCommands)) > 0:
		return invalid.Field("command", w.on.command, "the role has no such command", "name "+invalid.OneOf(slices.Sorted(maps.Keys(all))))
	case !there:
		return invalid.Field("resource", w.on.String(), "more than the name of a database", "name "+plain(database))
	case options.Text(fieldRunAs) == "":
		return invalid.Hidden(fieldRunAs, "missing: the command runs as a role that is there already", "name the role that owns what the command works on")
	}
	w.run.Command = text
	if err := checkCommand(commandField(w.on.command), text); err != nil {
		return err
	}
	if w.run.RunAs, err = parseRole(fieldRunAs, options.Text(fieldRunAs)); err != nil {
		return err
	}
	if strings.HasPrefix(w.run.RunAs, "pg_") || strings.HasPrefix(w.run.RunAs, "precision_") {
		return invalid.Field(fieldRunAs, w.run.RunAs, "a role of the server's own, or of the engine's", "name the role that owns what the command works on")
	}
	for _, text := range options.List(fieldSearchPath) {
		schema, err := parseRole(fieldSearchPath, text)
		if err != nil {
			return err
		}
		if strings.HasPrefix(schema, "pg_temp") {
			return invalid.Field(fieldSearchPath, text, "the caller's temporary tables come last, after all schemas", "leave it out")
		}
		w.run.SearchPath = append(w.run.SearchPath, schema)
	}
	w.run.Custom, err = customSettings(options.Pairs(fieldSettings))
	return err
}

// verb is the action as it stands in a sentence.
func (w *wanted) verb() string { return string(w.action) }
