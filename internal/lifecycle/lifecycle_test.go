package lifecycle

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// world is a manager, its storage and a target, with a clock that stands still.
type world struct {
	*Manager
	t       *testing.T
	storage *logical.InmemStorage
	target  *providertest.Fake
	clock   time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, storage: &logical.InmemStorage{}, target: &providertest.Fake{}, clock: time.Date(2026, 3, 29, 1, 59, 59, 250_000_000, time.UTC)}
	w.restart()
	t.Cleanup(func() { w.Close() })
	return w
}

// restart is what a plugin does that was killed: what was in memory is gone.
func (w *world) restart() {
	if w.Manager != nil {
		w.Close()
	}
	w.Manager = New(hclog.NewNullLogger(), func() time.Time { return w.clock })
}

func (w *world) order(ttl time.Duration) Order {
	w.t.Helper()
	granted, err := scope.New("s3:PutObject", "arn:aws:s3:::releases/app/*")
	if err != nil {
		w.t.Fatal(err)
	}
	return Order{Provider: w.target, Target: "store", Role: "upload", Task: "T-1", Scope: granted, TTL: ttl}
}

// only reads the one grant that the ledger has.
func (w *world) only() ledger.Grant {
	w.t.Helper()
	keys, err := logical.CollectKeysWithPrefix(w.t.Context(), w.storage, ledger.Prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(keys) != 1 {
		w.t.Fatalf("the ledger has %d grants, want 1", len(keys))
	}
	grant, err := ledger.Get(w.t.Context(), w.storage, keys[0][len(ledger.Prefix)+9:])
	if err != nil {
		w.t.Fatal(err)
	}
	return grant
}

// end ends a grant as its lease does.
func (w *world) end(issued Issued) error {
	return w.End(w.t.Context(), w.storage, EndOrder{Provider: w.target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle})
}

func (w *world) expect(live int, state ledger.State, ending ledger.Cause) {
	w.t.Helper()
	if got := w.target.Live(); got != live {
		w.t.Errorf("%d credentials live, want %d", got, live)
	}
	if grant := w.only(); grant.State != state || grant.Ending != ending {
		w.t.Errorf("the ledger says %q (%q), want %q (%q)", grant.State, grant.Ending, state, ending)
	}
}

func TestIssueAndEnd(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 29, 2, 10, 0, 0, time.UTC); !issued.Grant.ExpiresAt.Equal(want) {
		t.Errorf("expires at %s, want %s", issued.Grant.ExpiresAt, want)
	}
	if issued.Lease != 10*time.Minute {
		t.Errorf("lease of %s, want 10m", issued.Lease)
	}
	w.expect(1, ledger.Pending, "")
	for range 2 {
		if err := w.end(issued); err != nil {
			t.Fatal(err)
		}
		w.expect(0, ledger.Ended, "lease revoked")
	}
}

func TestEndAfterExpiry(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	w.clock = issued.Grant.ExpiresAt
	if err := w.end(issued); err != nil {
		t.Fatal(err)
	}
	w.expect(0, ledger.Ended, "lease expired")
}

// The shortest lease is one second: 0 would be the mount's default to Vault.
func TestShortestLease(t *testing.T) {
	w := newWorld(t)
	w.target.OnMint = func() error { w.clock = w.clock.Add(1500 * time.Millisecond); return nil }
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if issued.Lease != time.Second {
		t.Errorf("lease of %s, want 1s", issued.Lease)
	}
}

func TestMintTakesLongerThanTheCredentialLives(t *testing.T) {
	w := newWorld(t)
	w.target.OnMint = func() error { w.clock = w.clock.Add(5 * time.Second); return nil }
	if _, err := w.Issue(t.Context(), w.storage, w.order(time.Second)); !errors.Is(err, ErrTooLate) {
		t.Errorf("got %v, want ErrTooLate", err)
	}
	w.expect(0, ledger.Failed, "minting took longer than the credential's life")
}

func TestCallerHangsUp(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.target.OnMint = func() error { cancel(); return nil }
	if _, err := w.Issue(ctx, w.storage, w.order(time.Minute)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	w.expect(0, ledger.Failed, "the caller hung up")
}

// hungUpOn is storage whose caller hangs up while it takes a write: the write is
// taken, and who waited for it on the caller's context hears that it failed.
type hungUpOn struct {
	*logical.InmemStorage
	hangUp func()
}

func (s hungUpOn) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.hangUp()
	return errors.Join(s.InmemStorage.Put(context.WithoutCancel(ctx), entry), ctx.Err())
}

// Nothing is minted for a caller who has hung up before, and the ledger does not
// say for as long as the grant was to live that it might have been.
func TestCallerHangsUpBeforeTheMint(t *testing.T) {
	w := newWorld(t)
	w.target.OnMint = func() error { t.Error("a credential was minted"); return nil }
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := w.LedgerID(ctx, w.storage); err != nil { // which is not what is hung up on
		t.Fatal(err)
	}
	if _, err := w.Issue(ctx, hungUpOn{w.storage, cancel}, w.order(time.Minute)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	w.expect(0, ledger.Failed, "the caller hung up")
	if _, known := w.Index.Get(w.only().ID); known {
		t.Error("the index still counts the grant")
	}
}

func TestMintFailsHalfway(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("the target broke")
	w.target.OnMint = func() error { return broken }
	if _, err := w.Issue(t.Context(), w.storage, w.order(time.Minute)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	w.expect(0, ledger.Failed, "mint failed")
}

// What can't be ended is written down, so that it is not forgotten.
func TestMintFailsAndSoDoesItsEnd(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("the target broke")
	w.target.OnMint = func() error { return broken }
	w.target.OnRevoke = func() error { return broken }
	if _, err := w.Issue(t.Context(), w.storage, w.order(time.Minute)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	w.expect(1, ledger.Ending, "mint failed")
}

func TestEndFailsAndIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the target broke")
	w.target.OnRevoke = func() error { return broken }
	if err := w.end(issued); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	w.expect(1, ledger.Ending, "lease revoked")
	w.target.OnRevoke = nil
	if err := w.end(issued); err != nil {
		t.Fatal(err)
	}
	w.expect(0, ledger.Ended, "lease revoked")
}

// A lease outlives what the ledger remembers.
func TestEndOfAGrantThatTheLedgerHasLost(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := logical.ClearView(t.Context(), w.storage); err != nil {
		t.Fatal(err)
	}
	if err := w.end(issued); err != nil {
		t.Fatal(err)
	}
	if live := w.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

// A record that can't be read keeps neither its credential alive nor its lease: the end replaces it.
func TestEndOfADamagedGrant(t *testing.T) {
	w := newWorld(t)
	issued, err := w.Issue(t.Context(), w.storage, w.order(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	id := issued.Grant.ID
	if err := w.storage.Put(t.Context(), &logical.StorageEntry{Key: ledger.Prefix + id[:8] + "/" + id, Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	w.restart() // what is in memory is whole
	if err := w.end(issued); err != nil {
		t.Error(err)
	}
	if replaced, err := ledger.Get(t.Context(), w.storage, id); err != nil || replaced.State != ledger.Ended {
		t.Errorf("the record is %+v, %v", replaced, err)
	}
	if live := w.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

// Nothing is minted that could not be written down first.
func TestStorageRefuses(t *testing.T) {
	w := newWorld(t)
	w.storage.Underlying() // makes it
	w.storage.FailPut(true)
	if _, err := w.Issue(t.Context(), w.storage, w.order(time.Minute)); err == nil {
		t.Error("a credential was minted that the ledger does not know")
	}
	if live := w.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

// empty is a provider that compiles nothing.
type empty struct{ *providertest.Fake }

func (empty) Compile(scope.Scope, provider.Bounds) (provider.Policy, error) { return "", nil }

func TestAnEmptyPolicyIsNotMinted(t *testing.T) {
	w := newWorld(t)
	order := w.order(time.Minute)
	order.Provider = empty{w.target}
	if _, err := w.Issue(t.Context(), w.storage, order); err == nil {
		t.Error("a credential was minted without a policy")
	}
	if live := w.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

// halfway is a target that made something, found that what it hangs on is gone, and
// could not undo it.
type halfway struct {
	*providertest.Fake
	mints, revokes int
}

func (h *halfway) Mint(ctx context.Context, handle provider.Handle, policy provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	h.mints++
	if _, err := h.Fake.Mint(ctx, handle, policy, expiresAt); err != nil {
		return provider.Credential{}, err
	}
	return provider.Credential{}, errors.Join(provider.ErrNotInstalled, errors.New("could not be undone"))
}

func (h *halfway) Revoke(ctx context.Context, handle provider.Handle) error {
	h.revokes++
	return h.Fake.Revoke(ctx, handle)
}

// A mint is tried once more where nothing was made; what may have been made is ended.
func TestNoSecondMintOverTheFirst(t *testing.T) {
	w := newWorld(t)
	target := &halfway{Fake: w.target}
	order := w.order(time.Hour)
	order.Provider = target
	if _, err := w.Issue(t.Context(), w.storage, order); err == nil || target.mints != 1 || target.revokes != 1 || w.target.Live() != 0 {
		t.Errorf("minted %d times and ended %d, %d live: %v", target.mints, target.revokes, w.target.Live(), err)
	}
}
