// Package lifecycle is the life of a grant: issue and end. It is the only room
// where the ledger and a provider meet, so that nothing is minted that the
// ledger does not know, and nothing is called ended that still lives.
package lifecycle

import (
	"context"
	"errors"
	"hash/maphash"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/telemetry"
)

const (
	// readyWait is how long a request waits for the ledger to be in memory.
	readyWait = 10 * time.Second
	// askPause is how long after Vault did not say what this node may do it is
	// asked again.
	askPause = time.Second
)

var (
	// ErrRebuilding is returned while the ledger is still being read into memory.
	ErrRebuilding error = logical.CodedError(http.StatusServiceUnavailable, "the ledger is still being read into memory; try again in a few seconds")
	// ErrClosed is returned once the mount is being unloaded.
	ErrClosed = errors.New("the mount is being unloaded")
)

// Manager issues and ends the grants of one mount.
type Manager struct {
	Log     hclog.Logger
	Now     func() time.Time
	Elapsed func() time.Duration // monotonic, since some moment
	Index   *ledger.Index
	Metrics *telemetry.Registry
	Mount   string // the mount's UUID
	// Rebuilt is called, if set, once the ledger is in memory, and must not block.
	Rebuilt func(logical.Storage)
	// Untidy is called, if set, when something of a dead credential is left at its
	// target, and must not block.
	Untidy func(logical.Storage)

	killing atomic.Int64 // ends under way that somebody waits for

	life    context.Context // of all that goes on behind requests
	close   context.CancelFunc
	start   sync.Once
	standby atomic.Bool
	storage atomic.Pointer[logical.Storage] // since Start
	writes  func() (bool, error)            // since Start
	held    held

	mu     sync.Mutex
	actors map[string]*actor        // the ends under way, by grant
	lanes  map[string]*lane         // by target
	mints  map[string]chan struct{} // under way, by grant; closed when they are over

	records [64]sync.Mutex // of grants that share one, by a hash of their ids
	seed    maphash.Seed

	installed installations

	idMu     sync.Mutex
	ledgerID string

	older olderStorage
}

// New makes a manager that does nothing yet.
func New(log hclog.Logger, now func() time.Time) *Manager {
	m := &Manager{Log: log, Now: now, Index: ledger.NewIndex(), Metrics: telemetry.New(), actors: map[string]*actor{}, lanes: map[string]*lane{}, mints: map[string]chan struct{}{}, seed: maphash.MakeSeed()}
	started := now() // with a monotonic reading, if it is time.Now
	m.Elapsed = func() time.Duration { return now().Sub(started) }
	m.life, m.close = context.WithCancel(context.Background())
	return m
}

// Start begins, once, to read the ledger into memory, and returns. writes says
// whether this node may write; its error means that Vault did not say, and that
// it is to be asked again.
func (m *Manager) Start(storage logical.Storage, writes func() (bool, error)) {
	m.start.Do(func() {
		m.writes = writes
		m.storage.Store(&storage)
		go m.build(storage, writes)
	})
}

func (m *Manager) build(storage logical.Storage, writes func() (bool, error)) {
	for m.life.Err() == nil {
		able, err := writes()
		switch {
		case err == nil && able:
			m.loadOlder(storage)
			m.loadInstallations(storage) // so that they are known, too, once the index is
			started := m.Now()
			if m.Index.Rebuild(m.life, storage, m.Log, m.Now) == nil { // fails when life ends
				m.Metrics.Rebuilt(m.Now().Sub(started))
				if m.Rebuilt != nil {
					m.Rebuilt(storage)
				}
			}
			return
		case err == nil:
			m.standby.Store(true)
			return
		}
		m.Log.Debug("the ledger is not read yet", "error", err)
		select {
		case <-m.life.Done():
		case <-time.After(askPause):
		}
	}
}

// Close ends what goes on behind requests. It waits for nothing.
func (m *Manager) Close() { m.close() }

// Behind does work behind requests, on a context that ends with Close.
func (m *Manager) Behind(work func(context.Context)) { go work(m.life) }

// Killing counts the ends under way that somebody waits for.
func (m *Manager) Killing() int { return int(m.killing.Load()) }

// Ready says whether the ledger is in memory.
func (m *Manager) Ready() bool {
	select {
	case <-m.Index.Ready():
		return true
	default:
		return false
	}
}

// Await waits until the ledger is in memory, but not for long. The error is
// ErrRebuilding, ErrClosed, or on a node that does not write
// logical.ErrReadOnly, which makes Vault ask the one that does.
func (m *Manager) Await(ctx context.Context) error {
	if m.Ready() {
		return nil
	}
	if m.standby.Load() {
		return logical.ErrReadOnly
	}
	timer := time.NewTimer(readyWait)
	defer timer.Stop()
	select {
	case <-m.Index.Ready():
		return nil
	case <-timer.C:
		return ErrRebuilding
	case <-m.life.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// LedgerID is the ledger's own id, see ledger.ID.
func (m *Manager) LedgerID(ctx context.Context, storage logical.Storage) (string, error) {
	m.idMu.Lock()
	defer m.idMu.Unlock()
	if m.ledgerID != "" {
		return m.ledgerID, nil
	}
	id, err := ledger.ID(ctx, storage)
	if err != nil {
		return "", err
	}
	m.ledgerID = id
	return id, nil
}

// baseOf is what a credential hangs on, see provider.Committed.
func baseOf(target provider.Provider, handle provider.Handle) string {
	committed, able := target.(provider.Committed)
	if !able {
		return ""
	}
	return committed.Base(handle)
}
