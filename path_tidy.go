package precision

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/sweep"
)

// tidyConfigKey is where the sweeper's settings are in storage.
const tidyConfigKey = "tidy-config"

const (
	defaultRetention      = 30 * 24 * time.Hour
	minRetention          = time.Hour
	defaultOrphanInterval = time.Hour
	minOrphanInterval     = time.Minute // the sweeper's own beat
)

// tidyConfig is how the sweeper's settings are stored.
type tidyConfig struct {
	Retention      time.Duration `json:"retention"`
	OrphanInterval time.Duration `json:"orphan_interval"`
}

var defaultTidyConfig = tidyConfig{Retention: defaultRetention, OrphanInterval: defaultOrphanInterval}

var errNoTidyConfig = errors.New("tidy-config has not been written")

// readTidyConfig returns the sweeper's settings, from the cache where it can.
func (b *backend) readTidyConfig(ctx context.Context, storage logical.Storage) (tidyConfig, error) {
	return b.tidyConfigs.get(ctx, tidyConfigKey, func() (tidyConfig, error) {
		stored, err := readEntry[tidyConfig](ctx, storage, tidyConfigKey, errNoTidyConfig)
		if errors.Is(err, errNoTidyConfig) {
			return defaultTidyConfig, nil
		}
		return stored, err
	})
}

func (b *backend) sweepSettings(ctx context.Context, storage logical.Storage) (sweep.Settings, error) {
	config, err := b.readTidyConfig(ctx, storage)
	return sweep.Settings(config), err
}

// sweepTargets opens the targets that are configured, for the sweeper.
func (b *backend) sweepTargets(ctx context.Context, storage logical.Storage) ([]sweep.Target, error) {
	names, err := storage.List(ctx, configPrefix)
	if err != nil {
		return nil, err
	}
	var targets []sweep.Target
	for _, name := range names {
		opened, err := b.openTarget(ctx, storage, name)
		if errors.Is(err, errNoTarget) {
			continue // deleted since it was listed
		}
		targets = append(targets, sweep.Target{Name: name, System: opened.system, Provider: opened.provider, Problem: err})
	}
	return targets, nil
}

// tidyPast tidies up requests and freezes, for the sweeper. Where the storage is not
// this cluster's to write, the one that may does it.
func (b *backend) tidyPast(ctx context.Context, storage logical.Storage, before time.Time) (sweep.Tidied, error) {
	moved, forgotten, err := b.tidyRequests(ctx, storage, before)
	if err == nil {
		var lifted int
		lifted, err = b.tidyFreezes(ctx, storage, before)
		forgotten += lifted
	}
	if err == nil {
		var versions int
		versions, err = b.tidyVersions(ctx, storage, before)
		forgotten += versions
	}
	if errors.Is(err, logical.ErrReadOnly) {
		err = nil
	}
	return sweep.Tidied{Moved: moved, Deleted: forgotten}, err
}

func (b *backend) pathTidy() []*framework.Path {
	return []*framework.Path{
		{
			Pattern: "tidy",
			Fields: map[string]*framework.FieldSchema{
				"accept_restore": {
					Type:         framework.TypeBool,
					Description:  "Mint again although the storage is older than what a target has seen, as after a snapshot was restored. See tidy-status.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "Accept restore"},
				},
			},
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "tidy", OperationSuffix: "ledger"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{Callback: b.tidy, Summary: "Run the sweeper now, behind the request.", ForwardPerformanceStandby: true},
			},
			HelpSynopsis:    "Run the sweeper now.",
			HelpDescription: strings.TrimSpace(tidyHelp),
		},
		{
			Pattern:      "tidy-status",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "tidy-status"},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: b.tidyStatus, Summary: "Say what the sweeper does, and what it did last.", ForwardPerformanceStandby: true},
			},
			HelpSynopsis:    "What the sweeper does, and what it did last.",
			HelpDescription: strings.TrimSpace(tidyHelp),
		},
		{
			Pattern:      "tidy-config",
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "tidy-config"},
			Fields: map[string]*framework.FieldSchema{
				"retention": {
					Type:         framework.TypeDurationSecond,
					Description:  "How long grants are remembered after their latest end, and requests and freezes after they are over: from 1h to 8760h. Default: 720h.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "Retention"},
				},
				"orphan_interval": {
					Type:         framework.TypeDurationSecond,
					Description:  "How often targets are searched for what the ledger does not know: from 1m to 8760h. Default: 1h.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "Orphan interval"},
				},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readTidySettings, Summary: "Read the sweeper's settings."},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writeTidySettings, Summary: "Change the sweeper's settings.", ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true},
			},
			HelpSynopsis:    "How long grants are remembered, and how often targets are searched.",
			HelpDescription: strings.TrimSpace(tidyHelp),
		},
	}
}

func (b *backend) tidy(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	if err := b.awaitLedger(ctx, req.Storage); err != nil {
		return refuse(err)
	}
	var warnings []string
	if data.Get("accept_restore").(bool) {
		accepted, err := b.grants.AcceptOlder(ctx, req.Storage, requester(req))
		switch {
		case err != nil:
			return refuse(err)
		case accepted:
			warnings = append(warnings, "the storage is accepted as it is: credentials are minted again")
		default:
			warnings = append(warnings, "there was nothing to accept: no target is known to have seen newer storage")
		}
	}
	hint := "the sweeper runs: read tidy-status for what it does"
	if !b.sweeper.Run(req.Storage) {
		hint = "the sweeper is running already, and will run again after that: read tidy-status for what it does"
	}
	return logical.RespondWithStatusCode(&logical.Response{Warnings: append(warnings, hint)}, req, http.StatusAccepted)
}

func (b *backend) tidyStatus(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	if err := b.awaitLedger(ctx, req.Storage); err != nil {
		return refuse(err)
	}
	id, err := b.grants.LedgerID(ctx, req.Storage)
	if err != nil {
		return refuse(err)
	}
	older, err := b.grants.Older(ctx, req.Storage)
	if err != nil {
		return refuse(err)
	}
	status := b.sweeper.Status()
	response := &logical.Response{Data: map[string]any{
		"running":         status.Step != "",
		"step":            status.Step,
		"step_since":      stamp(status.Begun),
		"ledger_id":       id,
		"restored":        restoredStatus(older),
		"plugin_version":  Version,
		"storage_version": stored.Version,
		"mount_uuid":      b.mountUUID,
		"untidy":          b.untidy(),
		"live":            b.grants.Index.Count(ledger.Query{}, b.grants.Now()),
		"retried":         status.Again,
		"unreachable":     status.Unreachable,
		"access":          status.Access,
		"cleanup_blocked": describeBlocked(status.Blocked),
		"damaged":         b.grants.Index.Damaged(),
		"end":             map[string]any{"at": stamp(status.End.At), "ended": status.End.Ended, "failed": status.End.Failed},
		"remove":          map[string]any{"at": stamp(status.Remove.At), "removed": status.Remove.Removed, "staying": orZero(status.Remove.Staying), "problem": status.Remove.Problem},
		"pack":            map[string]any{"at": stamp(status.Pack.At), "packed": status.Pack.Grants, "damaged": status.Pack.Damaged, "problem": status.Pack.Problem},
		"retire":          map[string]any{"at": stamp(status.Retire.At), "deleted": status.Retire.Deleted, "problem": status.Retire.Problem},
		"requests":        map[string]any{"at": stamp(status.Tidy.At), "moved": status.Tidy.Moved, "deleted": status.Tidy.Deleted, "problem": status.Tidy.Problem},
		"orphans":         map[string]any{"at": stamp(status.Orphans.At), "problem": status.Orphans.Problem, "targets": describeTargets(status.Orphans.Targets)},
		"unwritten":       len(b.grants.AllHeld()) + len(b.grants.HeldBases()) + len(b.held.all()),
	}}
	b.addUnreadable(req, response)
	return response, nil
}

// restoredStatus describes that the storage is older than what it was, if it is.
func restoredStatus(older *ledger.Older) map[string]any {
	if older == nil {
		return map[string]any{"suspected": false}
	}
	return map[string]any{
		"suspected": true, "since": stamp(older.At), "base": older.Base, "storage_epoch": older.Own, "target_epoch": older.Found,
		"mints_frozen": true, "problem": describeOlder(*older),
	}
}

// untidy counts, by target, the grants that are dead and of which something is left.
func (b *backend) untidy() map[string]int {
	left := map[string]int{}
	for _, grant := range b.grants.Index.Untidy() {
		left[grant.Target]++
	}
	return left
}

// describeBlocked names the clean-ups that something of others stops, and the remedy.
func describeBlocked(blocked []sweep.Blocked) []map[string]any {
	described := make([]map[string]any, 0, len(blocked))
	for _, one := range blocked {
		described = append(described, map[string]any{
			"grant_id": one.Grant, "target": one.Target, "reason": one.Reason, "remedy": one.Remedy,
		})
	}
	return described
}

func orZero(counts map[string]int) map[string]int {
	if counts == nil {
		return map[string]int{}
	}
	return counts
}

func describeTargets(steps []sweep.TargetStep) map[string]any {
	targets := map[string]any{}
	for _, step := range steps {
		orphans := make([]map[string]any, 0, len(step.Orphans))
		for _, orphan := range step.Orphans {
			orphans = append(orphans, map[string]any{"name": orphan.Name, "grant_id": orphan.Grant, "ends_at": stamp(orphan.EndsAt), "fate": orphan.Fate})
		}
		targets[step.Target] = map[string]any{
			"listed": step.Listed, "foreign": step.Foreign, "ended": step.Ended, "orphans": orphans, "problem": step.Problem,
		}
	}
	return targets
}

func (b *backend) readTidySettings(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	config, err := b.readTidyConfig(ctx, req.Storage)
	if err != nil {
		return refuse(err)
	}
	return &logical.Response{Data: map[string]any{
		"retention": int64(config.Retention.Seconds()), "orphan_interval": int64(config.OrphanInterval.Seconds()),
	}}, nil
}

func (b *backend) writeTidySettings(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	config, err := b.readTidyConfig(ctx, req.Storage)
	if errors.Is(err, stored.ErrDamaged) {
		config, err = defaultTidyConfig, nil // the write replaces it
	}
	if err != nil {
		return refuse(err)
	}
	for _, setting := range []struct {
		field string
		value *time.Duration
		least time.Duration
	}{
		{"retention", &config.Retention, minRetention},
		{"orphan_interval", &config.OrphanInterval, minOrphanInterval},
	} {
		seconds, given := data.GetOk(setting.field)
		if !given {
			continue
		}
		if *setting.value = time.Duration(seconds.(int)) * time.Second; *setting.value < setting.least {
			return refuse(invalid.Field(setting.field, setting.value.String(), "less than "+setting.least.String(), "give "+setting.least.String()+" or more"))
		}
	}
	err = writeEntry(ctx, req.Storage, tidyConfigKey, config)
	b.tidyConfigs.drop(tidyConfigKey) // on an error too: storage may have taken the write
	if err != nil {
		return refuse(err)
	}
	return nil, nil
}

const tidyHelp = `
The sweeper runs each minute. It ends grants that have outlived their leases, and
tries again what could not be ended; it packs the ledger's past, and forgets it
after "retention", as it does requests and lifted freezes. Each "orphan_interval"
it searches the targets for what bears this mount's and this ledger's mark and is
no grant of the ledger: that is reported at once, and ended once the end that its
own mark states has passed. It removes what was installed at a target for roles
and grants that are no more, and what a mass revoke has left of dead credentials.

A write to "tidy" runs all of this now, behind the request; "tidy-status" says
what is being done and what each step did last. Grants whose target is not
configured any more are counted as unreachable; once the target is there again,
a write to "tidy" ends them. "untidy" counts the dead credentials of which
something is left, and "remove" says what of the installed could not be removed.
"cleanup_blocked" names those that something of others at the target keeps from being
removed, and the statement or command that takes it out of the way.

"restored" says whether a target bears the marks of an engine on newer storage than
this, as after a snapshot was restored, or of one on a copy of it. Nothing is minted
then until accept_restore=true is written to "tidy".
`
