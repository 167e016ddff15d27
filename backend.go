// Package precision is a secrets engine for HashiCorp Vault that mints
// credentials for one action on one resource, for one task, for as long as the
// task needs them.
package precision

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ending"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/sweep"
)

// Version is what the plugin tells Vault that it is; the build sets it.
var Version = "v0.1.0"

// operationPrefix starts the names of this engine's operations in the OpenAPI
// document, and so the names of generated clients' functions.
const operationPrefix = "precision"

type backend struct {
	*framework.Backend

	types        map[string]provider.Type
	configFields map[string]*framework.FieldSchema // what the types add to config/:target
	roleFields   map[string]*framework.FieldSchema // what the types add to roles/:role
	captured     map[*framework.Path][]string      // the fields in each path's own pattern
	mountUUID    string
	system       *cachedSystem

	grants   *lifecycle.Manager
	sweeper  *sweep.Sweeper
	ends     *ending.Runner
	targets  cache[openTarget]
	roles    cache[openRole]
	requests requests // for approvals
	// frozen is what is frozen, in one entry; freezing is held while that is changed.
	frozen   cache[admission.Freezes]
	freezing sync.Mutex
	held     heldFreezes // those that storage has not taken yet
	// observed is what the target said of each role's last credential.
	observed observations
	needed   neededKeys

	tidyConfigs cache[tidyConfig] // of one entry
	// edits are held by the keys of a role and of its target, in this order, while either is stored or deleted, so
	// that what was checked against the other still holds. None is held while a target is called to check a role.
	edits keyedLocks
	// definitions is held while a target is written or deleted, after its lock of edits; and,
	// for reading, while a mint makes sure of its target and puts its grant into
	// the ledger's index, so that a target is not deleted or moved under a grant
	// that can't be seen yet.
	definitions sync.RWMutex
	rotating    sync.Mutex // held while a root credential is rotated, or what that has left is cleared away
}

// Factory makes the engine for one mount. It has no side effects.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	return newBackend(ctx, conf, registry.Types(), time.Now)
}

func newBackend(ctx context.Context, conf *logical.BackendConfig, types []provider.Type, now func() time.Time) (*backend, error) {
	if conf == nil {
		return nil, errors.New("the mount's configuration is missing")
	}
	b := &backend{
		types:        map[string]provider.Type{},
		configFields: mergeFields(types, func(kind provider.Type) map[string]*framework.FieldSchema { return kind.Config }),
		roleFields:   mergeFields(types, func(kind provider.Type) map[string]*framework.FieldSchema { return kind.Role }),
		captured:     map[*framework.Path][]string{},
		mountUUID:    conf.BackendUUID,
		targets:      cache[openTarget]{missing: errNoTarget},
		roles:        cache[openRole]{missing: errNoRole},
	}
	for _, kind := range types {
		b.types[kind.Name] = kind
	}
	b.Backend = &framework.Backend{
		Help:           strings.TrimSpace(backendHelp),
		BackendType:    logical.TypeLogical,
		RunningVersion: Version,
		Paths: framework.PathAppend(
			b.pathConfig(),
			b.pathRotateRoot(),
			b.pathRoles(),
			b.pathCreds(),
			b.pathRequests(),
			b.pathFreeze(),
			b.pathPreview(),
			b.pathCheck(),
			b.pathCatalog(),
			b.pathMetrics(),
			b.pathGrants(),
			b.pathEnd(),
			b.pathTidy(),
		),
		Secrets: []*framework.Secret{b.secret()},
		PathsSpecial: &logical.Paths{
			SealWrapStorage: []string{configPrefix},
			LocalStorage:    []string{ledger.Prefix, ledger.HistoryPrefix, ledger.InstallPrefix, ledger.OwnPrefix, ending.Prefix, framework.WALPrefix},
		},
		InitializeFunc:    b.initialize,
		PeriodicFunc:      b.periodic,
		WALRollback:       b.rollBack,
		WALRollbackMinAge: rollbackAge,
		Clean:             func(context.Context) { b.grants.Close() },
		Invalidate:        b.invalidate,
	}
	for _, path := range b.Paths {
		for _, name := range regexp.MustCompile(path.Pattern).SubexpNames() {
			if name != "" {
				b.captured[path] = append(b.captured[path], name)
			}
		}
	}
	b.system = &cachedSystem{SystemView: conf.System, now: now}
	cached := *conf
	cached.System = b.system
	if err := b.Setup(ctx, &cached); err != nil {
		return nil, err
	}
	b.grants = lifecycle.New(b.Logger(), now)
	b.sweeper = &sweep.Sweeper{
		Grants: b.grants, Mount: b.mountUUID, Open: b.enderOf, Targets: b.sweepTargets, Needed: b.neededByRoles, Settings: b.sweepSettings, Tidy: b.tidyPast, Log: b.Logger(),
	}
	b.grants.Mount = conf.BackendUUID
	b.ends = &ending.Runner{Grants: b.grants, Open: b.enderOf, Log: b.Logger()}
	b.grants.Untidy = b.sweeper.TidyUp
	b.grants.Rebuilt = func(storage logical.Storage) {
		b.sweeper.Keep(storage)
		b.sweeper.Tend(storage)
		b.ends.Resume(storage)
	}
	return b, nil
}

// initialize must not block: Vault waits for it while it unseals.
func (b *backend) initialize(_ context.Context, req *logical.InitializationRequest) error {
	b.grants.Start(req.Storage, b.writes)
	return nil
}

// periodic is called each minute, and must not block either.
func (b *backend) periodic(_ context.Context, req *logical.Request) error {
	b.grants.Start(req.Storage, b.writes)
	b.sweeper.Tend(req.Storage)
	b.sweeper.Nudge(req.Storage)
	return nil
}

// writes says whether this node may write to the mount's local storage. A Vault
// that is gone answers with zero.
func (b *backend) writes() (bool, error) {
	state := b.System().ReplicationState()
	if state == consts.ReplicationUnknown {
		return false, errors.New("vault did not say what this node may do")
	}
	return !state.HasState(consts.ReplicationDRSecondary | consts.ReplicationPerformanceStandby), nil
}

// HandleRequest checks the raw request before the framework reads it.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	switch req.Operation {
	case logical.CreateOperation, logical.ReadOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation, logical.ListOperation:
		if path := b.Route(req.Path); path != nil {
			if err := guard(path, b.captured[path], req); err != nil {
				return refuse(err)
			}
		}
	default:
		// Vault's own: help, revocation (whose data is the lease's answer), roll back.
	}
	return b.Backend.HandleRequest(ctx, req)
}

// HandleExistenceCheck asks the framework without the request's data, which
// only HandleRequest may judge.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	bodyless := *req
	bodyless.Data = nil
	return b.Backend.HandleExistenceCheck(ctx, &bodyless)
}

// invalidate drops what another node has changed.
func (b *backend) invalidate(_ context.Context, key string) {
	if name, ok := strings.CutPrefix(key, configPrefix); ok {
		b.targets.drop(name)
		b.frozen.drop(frozenNow) // which knows what system a target is
		b.needed.forget()
	}
	if name, ok := strings.CutPrefix(key, rolePrefix); ok {
		b.roleChanged(name)
	}
	if strings.HasPrefix(key, freezePrefix) {
		b.frozen.drop(frozenNow)
	}
	if key == tidyConfigKey {
		b.tidyConfigs.drop(key)
	}
}

// refuse turns an error into an answer: what the caller can mend has status
// 400 and says how, what is not allowed has 403, the rest is a fault.
func refuse(err error) (*logical.Response, error) {
	var mendable *invalid.Error
	if errors.As(err, &mendable) {
		return logical.ErrorResponse(mendable.Error()), nil
	}
	return nil, bare(err)
}

// refuses says whether an error is for the caller: what to mend, or that it is not
// allowed.
func refuses(err error) bool {
	var mendable *invalid.Error
	var denied *invalid.Denied
	return errors.As(err, &mendable) || errors.As(err, &denied)
}

// bare returns the errors that mean something to Vault as Vault knows them:
// across the plugin's connection a wrapped one would be any other fault.
func bare(err error) error {
	var denied *invalid.Denied
	switch {
	case errors.As(err, &denied):
		return logical.CodedError(http.StatusForbidden, denied.Error())
	case errors.Is(err, logical.ErrReadOnly):
		return logical.ErrReadOnly
	case errors.Is(err, provider.ErrUnavailable), errors.As(err, new(*lifecycle.UnavailableError)):
		return logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, stored.ErrNewer):
		return logical.CodedError(http.StatusConflict, err.Error()+"; run that version again")
	case errors.Is(err, lifecycle.ErrOvertaken), errors.Is(err, lifecycle.ErrTooLate), errors.Is(err, lifecycle.ErrBusy), lifecycle.Unanswered(err):
		return logical.CodedError(http.StatusServiceUnavailable, err.Error()+retryHint)
	default:
		return err
	}
}

// retryHint ends the text of an answer with status 503. Vault passes no Retry-After
// header of a plugin on to the client, so the text has to say it.
const retryHint = "; retry in a few seconds"

const backendHelp = `
The precision secrets engine mints credentials that can do one action on one
resource of one target system, for one task, and that end by themselves.

Configure a target at "config/", define what may be done on it at "roles/", and
read credentials from "creds/". Each credential has a lease; when the lease ends,
the credential is dead at the target.
`
