package postgresql

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Facts of a role, that only the server can know.
const (
	factSignature = "signature" // of a routine, as the server writes it: regprocedure
	factSettings  = "settings"  // that a command is run with: a JSON object, see runSettings
)

// Words of a policy that stand for names and times, which differ from one
// credential to the next.
const (
	holderName = "{{holder}}"
	loginName  = "{{login}}"
	endsAt     = "{{expires_at}}"
	verifier   = "{{verifier}}"
)

// document is a policy: what a credential may do, and the statements that give it.
// It is read back by Install, Mint and Check, which derive nothing else from it than
// what it shows.
type document struct {
	Action     action   `json:"action"`
	Resource   string   `json:"resource"`
	Database   string   `json:"database"`
	Key        []string `json:"key,omitempty"`
	Companions []string `json:"companion_resources,omitempty"`
	Signature  string   `json:"signature,omitempty"`
	Run        *runSpec `json:"run,omitempty"`
	Holder     []string `json:"holder"` // the statements that make the role that holds the privileges, and what it may call
	Login      []string `json:"login"`  // those that make a credential
	Limit      int      `json:"connection_limit"`
	Tolerated  []string `json:"tolerate_ambient,omitempty"`
}

// policy writes the document. It depends on nothing but what is given.
func (w wanted) policy(database string, facts provider.Facts) (provider.Policy, error) {
	written := document{
		Action: w.action, Resource: w.on.String(), Database: plain(database), Key: w.key, Limit: w.limit, Tolerated: slices.Compact(slices.Sorted(slices.Values(w.tolerated))),
	}
	for _, companion := range w.companions {
		written.Companions = append(written.Companions, companion.String())
	}
	slices.Sort(written.Companions)
	switch w.action {
	case executes:
		written.Signature = facts[factSignature]
		if of, err := parseResource("resource", routine, written.Signature); err != nil || of.relation() != w.on.relation() {
			return "", errors.New("postgresql: what the server knows of the routine was not asked; write the role again")
		}
		written.Resource = written.Signature
	case runs:
		spec := *w.run
		if err := json.Unmarshal([]byte(facts[factSettings]), &spec.Settings); err != nil || len(spec.Settings) == 0 {
			return "", errors.New("postgresql: what the server has set was not asked; write the role again")
		}
		written.Run = &spec
	}
	if err := written.derive(); err != nil {
		return "", err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(written); err != nil {
		return "", err
	}
	return provider.Policy(strings.TrimSpace(text.String())), nil
}

// readPolicy reads a document that policy wrote. Whatever policy would have written
// otherwise is an error.
func readPolicy(policy provider.Policy) (document, error) {
	var read document
	decoder := json.NewDecoder(strings.NewReader(string(policy)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return document{}, fmt.Errorf("postgresql: the policy can't be read: %w", err)
	}
	again := read
	if err := again.derive(); err != nil {
		return document{}, err
	}
	if !reflect.DeepEqual(again, read) {
		return document{}, errors.New("postgresql: the policy's statements are not those of its scope")
	}
	return read, nil
}

// derive writes the statements.
func (d *document) derive() error {
	privileges, err := d.privileges()
	if err != nil {
		return err
	}
	d.Holder = []string{"CREATE ROLE " + ident(holderName) + " NOLOGIN"}
	if d.Run != nil {
		for _, made := range d.Run.procedures(d.place(holderName)) {
			d.Holder = append(d.Holder, made.create(ownProcedures))
		}
	}
	for _, held := range privileges {
		d.Holder = append(d.Holder, held.grant(ident(holderName)))
	}
	d.Login = []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN CONNECTION LIMIT %d PASSWORD %s VALID UNTIL %s", ident(loginName), d.Limit, literal(verifier), literal(endsAt)),
		fmt.Sprintf("GRANT %s TO %s", ident(holderName), ident(loginName)),
	}
	return nil
}

// privilege is one that a holder has.
type privilege struct {
	name    string   // such as SELECT
	columns []string // nil for all
	on      string   // the kind of object, as GRANT writes it
	object  string   // its name, quoted
}

func (p privilege) String() string {
	if p.columns == nil {
		return fmt.Sprintf("%s ON %s %s", p.name, p.on, p.object)
	}
	quoted := make([]string, len(p.columns))
	for i, column := range p.columns {
		quoted[i] = ident(column)
	}
	return fmt.Sprintf("%s (%s) ON %s %s", p.name, strings.Join(quoted, ", "), p.on, p.object)
}

// grant is the statement that gives the privilege to a role.
func (p privilege) grant(role string) string { return "GRANT " + p.String() + " TO " + role }

// schema of the engine's own, which the procedures of predefined commands are in.
const ownProcedures = "precision"

// place is where a holder's command is installed.
func (d document) place(holder string) runPlace {
	return runPlace{Schema: ownProcedures, Name: holder, Holder: holder}
}

// object is what the document's action is on.
func (d document) object() (resource, error) {
	kind, known := works[d.Action]
	if !known {
		return resource{}, fmt.Errorf("postgresql: the policy's action %q is not known", d.Action)
	}
	return parseResource("resource", kind, d.Resource)
}

// name is the database as it is, without quotes.
func (d document) name() (string, error) {
	parsed, err := parseResource("database", database, d.Database)
	return parsed.database, err
}

// privileges are what the holder has: to get there, and to do one thing.
func (d document) privileges() ([]privilege, error) {
	on, err := d.object()
	if err != nil {
		return nil, err
	}
	database, err := d.name()
	if err != nil {
		return nil, err
	}
	schema := on.schema
	if d.Action == runs {
		schema = ownProcedures
	}
	held := []privilege{
		{name: "CONNECT", on: "DATABASE", object: ident(database)},
		{name: "USAGE", on: "SCHEMA", object: ident(schema)},
	}
	object := ident(on.schema, on.name)
	switch d.Action {
	case selects, inserts, updates, deletes:
		held = append(held, privilege{name: string(d.Action), columns: on.columns, on: "TABLE", object: object})
		if d.Key != nil {
			held = append(held, privilege{name: string(selects), columns: d.Key, on: "TABLE", object: object})
		}
		for _, text := range d.Companions {
			companion, err := parseResource("companion_resources", sequence, text)
			if err != nil {
				return nil, err
			}
			held = append(held, privilege{name: string(uses), on: "SEQUENCE", object: ident(companion.schema, companion.name)})
		}
	case executes:
		held = append(held, privilege{name: string(executes), on: "ROUTINE", object: d.Signature})
	case uses:
		held = append(held, privilege{name: string(uses), on: "SEQUENCE", object: object})
	case runs:
		if d.Run == nil {
			return nil, errors.New("postgresql: the policy has no command")
		}
		for _, made := range d.Run.procedures(d.place(holderName)) {
			held = append(held, privilege{name: string(executes), on: "PROCEDURE", object: made.signature(ownProcedures)})
		}
	default:
		return nil, fmt.Errorf("postgresql: the policy's action %q is not known", d.Action)
	}
	return held, nil
}

// beyond is what everybody's rights are compared with.
func (d document) beyond() (ambientScope, error) {
	on, err := d.object()
	if err != nil {
		return ambientScope{}, err
	}
	of := ambientScope{Schemas: []string{on.schema}}
	switch d.Action {
	case selects, inserts, updates, deletes:
		of.Granted = grantedAny(string(d.Action), on.schema, on.name, on.columns)
		if d.Key != nil {
			of.Granted = append(of.Granted, grantedColumns(string(selects), on.schema, on.name, d.Key...)...)
		}
		for _, text := range d.Companions {
			companion, err := parseResource("companion_resources", sequence, text)
			if err != nil {
				return ambientScope{}, err
			}
			of.Granted = append(of.Granted, grantedOn(string(uses), companion.schema, companion.name))
		}
	case executes:
		of.Granted = []string{grantedRoutine(d.Signature)}
	case uses:
		of.Granted = []string{grantedOn(string(uses), on.schema, on.name)}
	case runs:
		of.Schemas = []string{ownProcedures}
		if d.Run != nil {
			of.Roles = []string{d.Run.RunAs}
		}
	}
	return of, nil
}

func grantedAny(privilege, schema, name string, columns []string) []string {
	if columns == nil {
		return []string{grantedOn(privilege, schema, name)}
	}
	return grantedColumns(privilege, schema, name, columns...)
}

// holder names the role that holds the document's privileges, for a mount, a ledger
// and the engine's login, which alone can remove it: the same for policies that differ
// in nothing that the role has.
func (d document) holder(mount, ledger, engine string) (string, error) {
	text, err := json.Marshal([]any{ledger, engine, d.Holder, d.Run})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return prefix(mount) + "h_" + hex.EncodeToString(sum[:16]), nil
}

// named is a statement of a document's with a role's name in place of its word.
func named(statement, word, name string) string {
	return strings.ReplaceAll(statement, ident(word), ident(name))
}

// refuseAmbient is the refusal where everybody has rights that a role does not
// tolerate.
func refuseAmbient(found []ambientRight, tolerated []string) error {
	var names []string
	for _, right := range found {
		if right.Stops {
			names = append(names, right.Name)
		}
	}
	rest := provider.Untolerated(names, tolerated)
	if len(rest) == 0 {
		return nil
	}
	const shown = 20
	var closing []string
	for _, right := range found {
		if right.Stops && slices.Contains(rest, right.Name) {
			closing = append(closing, right.Close)
		}
	}
	more := ""
	if len(rest) > shown {
		more = fmt.Sprintf(" and %d more", len(rest)-shown)
	}
	return invalid.Hidden(provider.TolerateAmbient, fmt.Sprintf("every login of the database may do more than the role grants: %s%s", strings.Join(rest[:min(shown, len(rest))], "; "), more),
		"close it: "+strings.Join(closing[:min(shown, len(closing))], "; ")+"; or name it in "+provider.TolerateAmbient)
}
