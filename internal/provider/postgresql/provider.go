package postgresql

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Type describes the provider to the registry.
func Type() provider.Type {
	text := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	secret := func(name, description string) *framework.FieldSchema {
		field := text(name, description+" Never read back.")
		field.DisplayAttrs.Sensitive = true
		return field
	}
	flag := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeBool, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	number := func(name, description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeInt, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: name}}
	}
	return provider.Type{
		Name:   "postgresql",
		Stored: []string{fieldFormer},
		Config: map[string]*framework.FieldSchema{
			fieldURL:         text("Connection URL", "Where the database is, as postgresql://{{username}}:{{password}}@host:5432/database?sslmode=verify-full. It takes sslmode and connect_timeout, and host=/folder in place of a host for a socket."),
			fieldUsername:    text("Username", "Login of the engine's own. It needs CREATEROLE, and grant options on what its roles grant."),
			fieldPassword:    secret("Password", "Password of that login."),
			fieldMaxOpen:     number("Max open connections", fmt.Sprintf("The most connections that the engine has to the database at once, for all but revocation and clean-up, which have half as many each. Default: %d.", defaultMaxOpen)),
			fieldCA:          text("TLS CA", "Certificates, in PEM, of those who may sign the server's. Default: the machine's."),
			fieldCertificate: text("TLS certificate", "The engine's own certificate, in PEM."),
			fieldPrivateKey:  secret("Private key", "Its private key, in PEM."),
			fieldStandbys: {
				Type:         framework.TypeStringSlice,
				Description:  "Where the server's hot standbys are, each as connection_url. Revocation and expiry end sessions there, too.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Standby URLs"},
			},
			fieldServerName: text("TLS server name", "Name that the server's certificate is for. Default: the host."),
		},
		Role: map[string]*framework.FieldSchema{
			fieldKey:        text("Key", `For UPDATE and DELETE: the columns that rows are chosen by, as in id,"Odd Name". The credential may read them, and no others. For INSERT: the columns that RETURNING and ON CONFLICT may name.`),
			fieldWholeTable: flag("Whole table", "For UPDATE and DELETE without a key: every row is meant. The credential can't choose rows, since that would need a right to read."),
			fieldCommand:    text("Command", "For RUN: the one predefined command, as SQL. It may have several statements."),
			fieldCommands: {
				Type:         framework.TypeMap,
				Description:  `For RUN, in place of command: several commands by name, as a JSON object: {"0042_add_note.sql": "ALTER TABLE …"}. Who reads a credential names one: command=0042_add_note.sql. The credential is for that one.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Commands"},
			},
			fieldSettings: {
				Type:         framework.TypeKVPairs,
				Description:  `For RUN: custom settings, and what they are while the command runs, as in app.user=migration. Triggers and policies may look at them, and each session can set them as it likes.`,
				DisplayAttrs: &framework.DisplayAttributes{Name: "Settings"},
			},
			fieldRunAs:   text("Run as", "For RUN: the role that the command runs as, such as the owner of what it works on. It is there already."),
			fieldRunOnce: flag("Run once", "For RUN: each credential runs the command once at most."),
			fieldSearchPath: {
				Type:         framework.TypeStringSlice,
				Description:  "For RUN: the schemas in which the command's names are looked up that name none. Nobody else may create in them. Default: none, so that every name but the server's own names its schema.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "Search path"},
			},
			fieldLimit:               number("Connection limit", fmt.Sprintf("How many connections a credential may have at once. Default: %d.", defaultLimit)),
			provider.TolerateAmbient: provider.TolerateAmbientField(`"EXECUTE on function public.f(integer)"`),
		},
		Tagged: []string{fieldKey},
		Choice: provider.Choice{Field: fieldCommands, Parameter: fieldCommand},
		Open: func(settings provider.Settings, facts provider.Facts) (provider.Provider, error) {
			opened, err := open(settings, facts)
			if err != nil {
				return nil, err
			}
			return opened, nil
		},
	}
}

// postgres is one database, and what the engine knows of it.
type postgres struct {
	server   *server
	settings provider.Settings
	facts    provider.Facts
	watch    *watch
	standbys []*standby
}

func open(settings provider.Settings, facts provider.Facts) (*postgres, error) {
	at, err := parseAddress(settings)
	if err != nil {
		return nil, err
	}
	opened := &server{address: at, username: settings.Text(fieldUsername), maxOpen: defaultMaxOpen, passwords: &passwords{all: []string{settings.Text(fieldPassword)}}}
	if opened.username == "" {
		return nil, invalid.Field(fieldUsername, "", "missing", "name the login that the engine has on the server")
	}
	if err := checkName(opened.username); err != nil {
		return nil, invalid.Field(fieldUsername, opened.username, err.Error(), "name the login as it is, without quotes")
	}
	if settings.Text(fieldPassword) == "" && settings.Text(fieldCertificate) == "" {
		return nil, invalid.Hidden(fieldPassword, "missing", "give the password of "+opened.username)
	}
	if former := settings.Text(fieldFormer); former != "" {
		opened.passwords.all = append(opened.passwords.all, former)
	}
	if limit, given := settings.Number(fieldMaxOpen); given && limit != 0 {
		if limit < 1 || limit > mostOpen {
			return nil, invalid.Field(fieldMaxOpen, fmt.Sprint(limit), "not a number of connections", fmt.Sprintf("give 1 to %d", mostOpen))
		}
		opened.maxOpen = int32(limit)
	}
	standbys, err := parseStandbys(settings, opened)
	if err != nil {
		return nil, err
	}
	return &postgres{server: opened, settings: settings, facts: facts, watch: newWatch(opened), standbys: standbys}, nil
}

// Compile implements provider.Provider.
func (p *postgres) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	asked, err := want(granted, bounds, p.server.database)
	if err != nil {
		return "", err
	}
	return asked.policy(p.server.database, bounds.Facts)
}

// Advise implements provider.Adviser.
func (p *postgres) Advise(granted scope.Scope, bounds provider.Bounds) provider.Advice {
	asked, err := want(granted, bounds, p.server.database)
	if err != nil {
		return provider.Advice{} // Compile says so
	}
	var advice provider.Advice
	if warning := provider.AmbientWarning(asked.tolerated); warning != "" {
		advice.Mint = append(advice.Mint, warning)
	}
	if asked.action == updates || asked.action == deletes {
		advice.Definition = append(advice.Definition, fmt.Sprintf("who may %s may also LOCK TABLE %s, and so keep others waiting", asked.verb(), asked.on.relation()))
	}
	return advice
}

// Prepare implements provider.Provider.
func (p *postgres) Prepare(_ context.Context, grant provider.Grant) (provider.Handle, error) {
	return provider.Handle{
		handleLogin: prefix(grant.Mount) + grant.ID, handleMount: grant.Mount, handleLedger: grant.Ledger, handleGrant: grant.ID,
	}, nil
}

// Handle keys.
const (
	handleLogin  = "login"
	handleMount  = "mount"
	handleLedger = "ledger"
	handleGrant  = "grant"
	handleOID    = "oid" // of the login; only after Mint. Sessions outlive its name
	handleHolder = "holder"
)

// mountPart is how much of a mount's UUID is in the names of its roles, in
// hexadecimal digits: a name has 63 bytes.
const mountPart = 12

// prefix is how the names of a mount's roles at the server begin.
func prefix(mount string) string {
	digits := strings.ReplaceAll(mount, "-", "")
	return "precision_" + digits[:min(mountPart, len(digits))] + "_"
}
