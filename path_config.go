package precision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/errgroup"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// verifyTimeout bounds the trial of a target's connection.
const verifyTimeout = 15 * time.Second

func (b *backend) pathConfig() []*framework.Path {
	fields := maps.Clone(b.configFields)
	fields["target"] = &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "Name of the target.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Target"},
	}
	fields["type"] = &framework.FieldSchema{
		Type:         framework.TypeString,
		Description:  "Type of the target: " + invalid.OneOf(b.typeNames()) + ".",
		Required:     true,
		DisplayAttrs: &framework.DisplayAttributes{Name: "Type"},
	}
	fields["verify_connection"] = &framework.FieldSchema{
		Type:         framework.TypeBool,
		Default:      true,
		Description:  "Whether the connection is tried before it is stored.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Verify connection"},
	}
	fields["force"] = &framework.FieldSchema{
		Type:         framework.TypeBool,
		Query:        true,
		Description:  "On delete: delete the target although roles or live grants use it. Their leases can't be revoked until it is configured again; their credentials end at the target at their expires_at. On write: point the target to another system although grants live on it. They are closed as lost, and the answer says what is left for a person to clean up.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Force"},
	}
	return []*framework.Path{
		{
			Pattern:      "config/?$",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "targets"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{Callback: listEntries(configPrefix), Summary: "List the targets."},
			},
			HelpSynopsis:    "List the targets.",
			HelpDescription: "Lists the names of the systems that credentials can be minted on.",
		},
		{
			Pattern:        "config/(?P<target>(?s:.+))",
			DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "target"},
			Fields:         fields,
			ExistenceCheck: entryExists(configPrefix, "target"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readConfig, Summary: "Read a target."},
				logical.CreateOperation: &framework.PathOperation{Callback: b.writeConfig, Summary: "Configure a target.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writeConfig, Summary: "Configure a target.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
				logical.DeleteOperation: &framework.PathOperation{Callback: b.deleteConfig, Summary: "Delete a target.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
			},
			HelpSynopsis:    "Configure a target, a system that credentials are minted on.",
			HelpDescription: strings.TrimSpace(configHelp),
		},
	}
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "target")
	if err != nil {
		return refuse(err)
	}
	stored, err := readTarget(ctx, req.Storage, name)
	if errors.Is(err, errNoTarget) {
		return nil, nil
	}
	if err == nil {
		err = b.settingsKnown(name, stored)
	}
	if err != nil {
		return refuse(err)
	}
	answer := map[string]any{"type": stored.Type}
	for name, fact := range stored.Facts {
		answer[name] = fact
	}
	for name, field := range b.types[stored.Type].Config {
		if value, set := stored.Settings[name]; set && !isSensitive(field) {
			answer[name] = value
		}
	}
	if ahead, known := b.clockSkew(ctx, req.Storage, name); known {
		answer["clock_skew"] = ahead
	}
	return &logical.Response{Data: answer}, nil
}

// clockSkew is by how many seconds this machine's clock is ahead of a target's, if that is known.
func (b *backend) clockSkew(ctx context.Context, storage logical.Storage, name string) (seconds float64, known bool) {
	opened, err := b.openTarget(ctx, storage, name)
	if err != nil {
		return 0, false // which a read of the target must not fail for
	}
	clock, able := opened.provider.(provider.ClockSkewed)
	if !able {
		return 0, false
	}
	ahead, known := clock.ClockSkew()
	return ahead.Round(100 * time.Millisecond).Seconds(), known
}

func isSensitive(field *framework.FieldSchema) bool {
	return field.DisplayAttrs != nil && field.DisplayAttrs.Sensitive
}

// writeConfig describes a target whole: what is left out is not set. A write
// that kept the stored secret would send it to whatever endpoint the writer
// names.
func (b *backend) writeConfig(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "target")
	if err != nil {
		return refuse(err)
	}
	force := data.Get("force").(bool)
	wanted := data.Get("type").(string)
	kind, known := b.types[wanted]
	if !known {
		return refuse(invalid.Field("type", wanted, "not a type of target", "name "+invalid.OneOf(b.typeNames())))
	}
	settings, err := settingsOf(data, b.configFields, kind.Config, "a target of type "+kind.Name)
	if err != nil {
		return refuse(err)
	}

	configured, err := b.open(target{Type: kind.Name, Settings: settings})
	if err != nil {
		return refuse(err)
	}
	var response logical.Response
	if data.Get("verify_connection").(bool) {
		verification, err := verify(ctx, configured.provider)
		if err != nil {
			return refuse(err)
		}
		if configured, err = b.open(target{Type: kind.Name, Settings: settings, Facts: verification.Facts}); err != nil {
			return refuse(err)
		}
		response.Warnings = verification.Warnings
	} else {
		response.AddWarning("the connection was not tried")
		if identified, able := configured.provider.(provider.Identified); able && identified.Identity() == "" {
			response.AddWarning("roles of this target are refused until it has been written with verify_connection=true: which system it is was not asked")
		}
	}
	defer b.edits.lock(configPrefix + name)()
	if err := b.define(ctx, req.Storage, func() error { return b.targetStays(ctx, req.Storage, name, configured, force) }); err != nil {
		return refuse(err)
	}
	err = writeEntry(ctx, req.Storage, configPrefix+name, configured.target)
	b.targets.drop(name) // on an error too: storage may have taken the write
	b.frozen.drop(frozenNow)
	b.needed.forget()
	// Whatever is minted from now on is minted there, and need not wait for the rest.
	b.definitions.Unlock()
	if err != nil {
		return refuse(err)
	}
	left, err := b.leaveBehind(ctx, req.Storage, name, configured.system, force)
	if err != nil {
		return refuse(err)
	}
	b.sweeper.Tend(req.Storage)
	return warn(append(response.Warnings, left...)), nil
}

// maxLeft is how many of the grants that are lost an answer names.
const maxLeft = 100

// leaveBehind closes, where it is told to, what a target of that name has on other
// systems, and says what a person has to clean up there.
func (b *backend) leaveBehind(ctx context.Context, storage logical.Storage, name, system string, force bool) (warnings []string, err error) {
	for _, left := range b.grants.Installed(name) {
		if left.System == system {
			continue
		}
		if err := b.grants.Disown(ctx, storage, left); err != nil {
			return warnings, err
		}
		warnings = append(warnings, fmt.Sprintf("left on the system that the target was before, for you to remove: %v", left.Handle))
	}
	if !force {
		return warnings, nil
	}
	if err := b.awaitLedger(ctx, storage); err != nil {
		return warnings, err
	}
	open := slices.DeleteFunc(b.grants.Index.Open(ledger.Query{Target: name}, b.grants.Now()), func(grant ledger.Grant) bool { return grant.System == system })
	lost, failed := b.lose(ctx, storage, open)
	for _, grant := range lost[:min(len(lost), maxLeft)] {
		warnings = append(warnings, fmt.Sprintf("grant %s is lost: its credential lives on the system that the target was before until %s; remove it there: %v", grant.ID, stamp(grant.ExpiresAt), grant.Handle))
	}
	if len(lost) > maxLeft {
		warnings = append(warnings, fmt.Sprintf("grants that are lost: %d; list them with grants state=lost target=%s", len(lost), name))
	}
	if len(failed) > 0 {
		warnings = append(warnings, fmt.Sprintf("grants that could not be closed yet: %d; write this once more in half a minute. The first: %s", len(failed), invalid.Clip(failed[0].Error())))
	}
	return warnings, nil
}

// losers is how many grants are closed at once. One that is being ended on a system
// that hangs is waited for for some seconds.
const losers = 64

// lose closes grants as lost, and returns them, and what has failed.
func (b *backend) lose(ctx context.Context, storage logical.Storage, open []ledger.Grant) (lost []ledger.Grant, failed []error) {
	var mu sync.Mutex
	var all errgroup.Group
	all.SetLimit(losers)
	for _, grant := range open {
		all.Go(func() error {
			closed, err := b.grants.Lose(ctx, storage, grant.ID, grant.Target)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
			} else if closed {
				lost = append(lost, grant)
			}
			return nil
		})
	}
	_ = all.Wait() // failed has them
	slices.SortFunc(lost, func(a, b ledger.Grant) int { return strings.Compare(a.ID, b.ID) })
	return lost, failed
}

// verify tries a target's connection, where its provider can.
func verify(ctx context.Context, tried provider.Provider) (provider.Verification, error) {
	verifier, able := tried.(provider.Verifier)
	if !able {
		return provider.Verification{}, nil
	}
	limited, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	return verifier.Verify(limited)
}

// targetStays refuses to let a target of that name become another system while
// grants live on it: there, revoking them would find nothing and call them dead.
// The same holds for a user that can't end them.
func (b *backend) targetStays(ctx context.Context, storage logical.Storage, name string, after openTarget, force bool) error {
	read, err := readTarget(ctx, storage, name)
	switch {
	case errors.Is(err, errNoTarget):
		return nil
	case errors.Is(err, stored.ErrDamaged): // the write replaces it, and nobody knows what it was
		return b.systemStays(name, after, force)
	case err == nil:
		err = b.settingsKnown(name, read)
	}
	if err != nil {
		return err
	}
	if read.Type != after.Type {
		return invalid.Field("type", after.Type, fmt.Sprintf("target %q is of type %s", name, read.Type), "choose another name, or delete the target first")
	}
	before, err := b.open(read)
	if err != nil {
		return err
	}
	if before.system == after.system {
		return nil
	}
	live, err := b.liveGrants(name)
	if err != nil {
		return err
	}
	if live > 0 && !force {
		return invalid.Field("target", name, fmt.Sprintf("live grants on it: %d; this would point it to another system, or to a user that can't end them", live),
			"revoke their leases first, or choose another name; force=true closes them as lost")
	}
	return nil
}

// systemStays is targetStays of a target whose entry is damaged: the grants tell which system it was.
func (b *backend) systemStays(name string, after openTarget, force bool) error {
	if !b.grants.Ready() {
		return lifecycle.ErrRebuilding
	}
	elsewhere := slices.DeleteFunc(b.grants.Index.Open(ledger.Query{Target: name}, b.grants.Now()), func(grant ledger.Grant) bool { return grant.System == after.system })
	if len(elsewhere) > 0 && !force {
		return invalid.Field("target", name, fmt.Sprintf("what is stored of it can't be read, and %d grants that aren't finished are on another system", len(elsewhere)),
			"configure it as it was, or choose another name; force=true closes them as lost")
	}
	return nil
}

// liveGrants counts the grants that live on a target. The error is
// lifecycle.ErrRebuilding where that is not known yet.
func (b *backend) liveGrants(name string) (int, error) {
	if !b.grants.Ready() {
		return 0, lifecycle.ErrRebuilding
	}
	return b.grants.Index.Count(ledger.Query{Target: name}, b.grants.Now()), nil
}

// define locks definitions and has a change checked, and leaves them locked if the check has nothing against it.
// Where it has to wait for the ledger, mints don't wait with it.
func (b *backend) define(ctx context.Context, storage logical.Storage, check func() error) error {
	for {
		b.definitions.Lock()
		err := check()
		if err == nil {
			return nil
		}
		b.definitions.Unlock()
		if !errors.Is(err, lifecycle.ErrRebuilding) {
			return err
		}
		b.grants.Start(storage, b.writes)
		if err := b.grants.Await(ctx); err != nil {
			return err
		}
	}
}

func (b *backend) deleteConfig(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "target")
	if err != nil {
		return refuse(err)
	}
	force := data.Get("force").(bool)
	if !force {
		if err := b.removeInstalled(ctx, req.Storage, name); err != nil {
			return refuse(err)
		}
	}
	defer b.edits.lock(configPrefix + name)() // so that no role begins to name it
	var unreadable []string
	if !force {
		if unreadable, err = b.unnamed(ctx, req.Storage, name); err != nil {
			return refuse(err)
		}
	}
	if err := b.define(ctx, req.Storage, func() error {
		if force {
			return nil
		}
		return b.targetUnused(name)
	}); err != nil {
		return refuse(err)
	}
	defer b.definitions.Unlock()
	err = deleteEntry(ctx, req.Storage, configPrefix+name)
	b.targets.drop(name)
	if err != nil {
		return refuse(err)
	}
	b.needed.forget()
	left, err := b.disown(ctx, req.Storage, name)
	if err != nil {
		return refuse(err)
	}
	b.grants.Forget(name)
	if len(unreadable) > 0 {
		left = append(left, "roles that can't be read, and may name the target: "+invalid.OneOf(unreadable))
	}
	return warn(left), nil
}

const unuse = "delete the roles and revoke the leases first, or delete with force=true"

// unnamed refuses where roles name the target. It returns the roles that can't be read.
func (b *backend) unnamed(ctx context.Context, storage logical.Storage, name string) (unreadable []string, err error) {
	roles, err := storage.List(ctx, rolePrefix)
	if err != nil {
		return nil, fmt.Errorf("listing roles: %w", err)
	}
	for _, roleName := range roles {
		read, err := readRole(ctx, storage, roleName)
		switch {
		case errors.Is(err, errNoRole):
		case stored.Unreadable(err):
			unreadable = append(unreadable, roleName)
		case err != nil:
			return nil, err
		case read.Target == name:
			return nil, invalid.Field("target", name, fmt.Sprintf("role %q uses it", roleName), unuse)
		}
	}
	return unreadable, nil
}

// targetUnused refuses where grants live on the target, or something of its roles is left there.
func (b *backend) targetUnused(name string) error {
	live, err := b.liveGrants(name)
	if err != nil {
		return err
	}
	if live > 0 {
		return invalid.Field("target", name, fmt.Sprintf("live grants on it: %d", live), unuse)
	}
	if left := b.grants.Installed(name); len(left) > 0 {
		return invalid.Field("target", name, fmt.Sprintf("its roles have left %d objects on it that are not removed yet", len(left)), "try again when the target answers and the grants that need them have ended, or delete with force=true")
	}
	return nil
}

const configHelp = `
A target is one system that credentials are minted on: one AWS account, one
MinIO store. A mount has as many as it likes; each role names one.

A write describes the target whole: what it leaves out is not set. The
connection is tried first, and nothing is stored where it fails, unless
verify_connection=false. Secrets are stored sealed and never read back.

A read says as "clock_skew" by how many seconds Vault's clock is ahead of the
target's, where its answers have told its time on this node; negative where it is
behind.

A target that roles name or that live grants are on is only deleted with
force=true, and a target that live grants are on can't be pointed to another
system, or to a user that can't end them.
`
