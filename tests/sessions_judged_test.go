package tests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/judge"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// sessionWorld is the provider of AWS with a ledger in memory, on AWS's policies
// in memory. AWS and the engine have clocks of their own.
type sessionWorld struct {
	t      *testing.T
	iam    *fakeIAM
	judge  *judge.Judge
	scope  scope.Scope
	random *rand.Rand
	skew   time.Duration // of the engine's clock

	keeper provider.Keeper
	target provider.Provider
	stop   context.CancelFunc
	life   context.Context

	mu      sync.Mutex
	gone    time.Duration // how much AWS's clock is ahead of the machine's
	grants  []*granted
	early   int    // grants that nobody asked to end
	record  []byte // of the base
	started time.Time
	deposed error // what the ledger says to every write
}

// granted is a grant as its ledger and its holder know it.
type granted struct {
	handle    provider.Handle
	key       string
	expiresAt time.Time
	over      bool // the ledger says so
	revoked   bool // Revoke returned nil
	early     bool
}

var errDeposed = errors.New("another engine has taken this one's place")

func newSessionWorld(t *testing.T, skew time.Duration) *sessionWorld {
	t.Helper()
	granted, err := scope.New(putObject, uploads)
	if err != nil {
		t.Fatal(err)
	}
	started, err := judge.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.Close)
	w := &sessionWorld{
		t: t, started: time.Now(), iam: newFakeIAM(t), judge: started, scope: granted, skew: skew,
		random: rand.New(rand.NewPCG(7, uint64(skew))),
	}
	w.iam.clock = w.aws
	w.boot()
	t.Cleanup(func() { w.stop() })
	return w
}

// boot starts the engine anew, with nothing but its ledger.
func (w *sessionWorld) boot() {
	w.t.Helper()
	if w.stop != nil {
		w.stop()
	}
	w.life, w.stop = context.WithCancel(context.Background())
	for _, kind := range registry.Types() {
		if kind.Name != "aws" {
			continue
		}
		opened, err := kind.Open(
			provider.Settings{"region": lab.Region, "access_key": "AKIA", "secret_key": "secret", "iam_endpoint": w.iam.url, "sts_endpoint": w.iam.url},
			provider.Facts{"account_id": lab.Account, "partition": "aws", "caller_arn": lab.EngineARN},
		)
		if err != nil {
			w.t.Fatal(err)
		}
		w.target, w.keeper = opened, opened.(provider.Keeper)
		w.keeper.Remember(w)
	}
	if len(w.grants) > 0 {
		w.keep()
	}
}

// The engine's ledger: provider.Ledger.

func (w *sessionWorld) Await(context.Context) error { return nil }

func (w *sessionWorld) Identity(context.Context) (mount, id string, err error) {
	return "0f8fad5b-d9cb-469f-a165-70867728950e", "ledger", nil
}

func (w *sessionWorld) Life() context.Context { return w.life }

func (w *sessionWorld) Now() time.Time { return w.aws().Add(w.skew) }

// aws is AWS's clock.
func (w *sessionWorld) aws() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().UTC().Add(w.gone)
}

func (w *sessionWorld) OnBase(context.Context, string) ([]provider.Hanging, error) {
	now := w.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	var hanging []provider.Hanging
	for _, one := range w.grants {
		if now.Before(one.expiresAt.Add(ledger.BaseKept)) {
			hanging = append(hanging, provider.Hanging{Handle: one.handle, ExpiresAt: one.expiresAt, Over: one.over})
		}
	}
	return hanging, nil
}

func (w *sessionWorld) EndEarly(_ context.Context, _ string, early func(provider.Handle) bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deposed != nil || early == nil {
		return w.deposed
	}
	for _, one := range w.grants {
		if !one.over && early(one.handle) {
			one.over, one.early = true, true
			w.early++
		}
	}
	return nil
}

func (w *sessionWorld) FoundDenied(ctx context.Context, base string, denied func(provider.Handle) bool) error {
	return w.EndEarly(ctx, base, denied)
}

func (w *sessionWorld) Recorded(context.Context, string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record, nil
}

func (w *sessionWorld) Record(_ context.Context, _ string, record []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deposed == nil {
		w.record = record
	}
	return w.deposed
}

func (w *sessionWorld) Older(_ context.Context, base string, found, own uint64) error {
	w.t.Errorf("%s is said to bear epoch %d, and storage has %d", base, found, own)
	return nil
}

func (w *sessionWorld) Passive() bool { return false }

func (w *sessionWorld) Elapsed() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.started) + w.gone
}

// advance lets time go by.
func (w *sessionWorld) advance(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone += by
}

func (w *sessionWorld) keep() {
	w.t.Helper()
	if err := w.keeper.Keep(w.t.Context(), lab.RoleARN(lab.BaseRole)); err != nil {
		w.t.Fatal(err)
	}
}

// mint mints a session of one of many roles and tasks.
func (w *sessionWorld) mint(life time.Duration) (*granted, error) {
	expiresAt := w.Now().Add(life).Truncate(time.Second)
	options := provider.Settings{"credential_type": "assumed_role", "role_arn": lab.RoleARN(lab.BaseRole)}
	policy, err := w.target.Compile(w.scope, provider.Bounds{ExpiresAt: expiresAt, TTL: life, Options: options})
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	role, task := fmt.Sprintf("role-%d", w.random.IntN(30)), fmt.Sprintf("JIRA-%d", w.random.IntN(40))
	w.mu.Unlock()
	handle, err := w.target.Prepare(w.t.Context(), provider.Grant{ID: ledger.NewID(expiresAt), Role: role, Task: task, ExpiresAt: expiresAt, Options: options})
	if err != nil {
		return nil, err
	}
	minted, err := w.target.Mint(w.t.Context(), handle, policy, expiresAt)
	if err != nil {
		return nil, err
	}
	made := &granted{handle: minted.Handle, key: minted.Fields["access_key"].(string), expiresAt: expiresAt}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grants = append(w.grants, made)
	return made, nil
}

func (w *sessionWorld) mintMany(count int, shortest, longest time.Duration) {
	w.t.Helper()
	lives := make([]time.Duration, count)
	for i := range lives {
		lives[i] = shortest + time.Duration(w.random.Int64N(int64(longest-shortest)))
	}
	w.sideBySide(count, func(i int) error { _, err := w.mint(lives[i]); return err })
}

func (w *sessionWorld) sideBySide(count int, work func(int) error) {
	w.t.Helper()
	failed := make([]error, count)
	turns := make(chan struct{}, 200)
	var all sync.WaitGroup
	for i := range count {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			failed[i] = work(i)
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		w.t.Fatal(err)
	}
}

// live are the grants that are not over and have not expired by either clock.
func (w *sessionWorld) live() []*granted {
	now, at := w.Now(), w.aws()
	w.mu.Lock()
	defer w.mu.Unlock()
	var live []*granted
	for _, one := range w.grants {
		if !one.over && now.Add(time.Minute).Before(one.expiresAt) && at.Before(one.expiresAt) {
			live = append(live, one)
		}
	}
	return live
}

// revokeSome revokes as many live sessions, picked at random.
func (w *sessionWorld) revokeSome(count int) {
	w.t.Helper()
	live := w.live()
	w.random.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	w.sideBySide(min(count, len(live)), func(i int) error { return w.revoke(live[i]) })
}

// revoke is what lifecycle does: the ledger first.
func (w *sessionWorld) revoke(one *granted) error {
	w.mu.Lock()
	one.over = true
	w.mu.Unlock()
	err := w.target.Revoke(w.t.Context(), one.handle)
	w.mu.Lock()
	defer w.mu.Unlock()
	one.revoked = one.revoked || err == nil
	return err
}

// verify has the judge decide on grants: what lives by AWS's clock and is not over
// works, and nothing else does. It returns how many live and how many are over.
func (w *sessionWorld) verify(grants []*granted) (live, over int) {
	w.t.Helper()
	policies, at := w.iam.inForce(), w.aws().Truncate(time.Second)
	wrong := map[string]int{}
	for some := range slices.Chunk(grants, 500) {
		var requests []judge.Request
		for _, one := range some {
			requests = append(requests, request(w.iam.session(one.key), policies, at))
		}
		verdicts, err := w.judge.Decide(w.t.Context(), requests)
		if err != nil {
			w.t.Fatal(err)
		}
		for i, one := range some {
			want := judge.Allowed
			if one.over || !at.Before(one.expiresAt) {
				want = judge.ExplicitlyDenied
			}
			if want == judge.Allowed {
				live++
			} else if one.over {
				over++
			}
			if verdicts[i] != want {
				wrong[fmt.Sprintf("%s instead of %s", verdicts[i], want)]++
			}
		}
	}
	for what, count := range wrong {
		w.t.Errorf("%d of %d sessions are %s", count, len(grants), what)
	}
	return live, over
}

// sample is some of the grants that have not long expired.
func (w *sessionWorld) sample(count int) []*granted {
	at := w.aws()
	w.mu.Lock()
	defer w.mu.Unlock()
	recent := slices.DeleteFunc(slices.Clone(w.grants), func(one *granted) bool { return at.After(one.expiresAt.Add(10 * time.Minute)) })
	w.random.Shuffle(len(recent), func(i, j int) { recent[i], recent[j] = recent[j], recent[i] })
	return recent[:min(count, len(recent))]
}

// strangers are the policies that are not the engine's.
func (w *sessionWorld) strangers() map[string]string {
	documents := w.iam.inForce()
	maps.DeleteFunc(documents, func(name, _ string) bool { return strings.HasPrefix(name, "precision-revoked-") })
	return documents
}

// Two thousand of five thousand sessions of many roles and tasks are revoked, at
// random: those end, and nothing else does. Then sessions expire and new ones are
// minted, the engine is started anew, and clocks differ.
func TestRandomRevocationsAreJudged(t *testing.T) {
	for name, skew := range map[string]time.Duration{"the engine's clock is fast": 50 * time.Second, "the engine's clock is slow": -50 * time.Second} {
		t.Run(name, func(t *testing.T) {
			w := newSessionWorld(t, skew)
			strangers := w.strangers()
			w.mintMany(5000, 20*time.Minute, 12*time.Hour)
			w.revokeSome(2000)
			if live, over := w.verify(w.grants); live != 3000 || over != 2000 {
				t.Errorf("%d sessions live and %d are over, want 3000 and 2000", live, over)
			}
			for round := range 10 {
				w.advance(time.Hour + time.Duration(w.random.Int64N(int64(20*time.Minute))))
				if round == 4 {
					w.boot()
				}
				w.keep()
				w.mintMany(150, 16*time.Minute, 12*time.Hour)
				w.revokeSome(120)
				w.verify(w.sample(200))
			}
			figures.Log(t, "sessions: 5000 live, 2000 of them revoked, 10 rounds of expiry and new ones; judged wrong: 0, ended early: %d", w.early)
			if w.early > 0 {
				t.Errorf("%d sessions were ended early although there is room", w.early)
			}
			w.advance(13 * time.Hour)
			w.keep()
			if left := w.iam.inForce(); !maps.Equal(left, strangers) {
				t.Errorf("when nothing is left to deny, the base role has %v, want %v", slices.Sorted(maps.Keys(left)), slices.Sorted(maps.Keys(strangers)))
			}
			if len(w.iam.managed) > 0 {
				t.Errorf("%d managed policies are left", len(w.iam.managed))
			}
		})
	}
}

// Where the base role's policies are full, what is revoked ends all the same, and
// what ends with it is in the ledger, and nothing else ends.
func TestFullPoliciesEndOthersToo(t *testing.T) {
	w := newSessionWorld(t, 0)
	w.iam.fill(9400, 10)
	w.mintMany(400, time.Hour, 12*time.Hour)
	w.revokeSome(100)
	live, over := w.verify(w.grants)
	figures.Log(t, "100 of 400 sessions revoked while the policies are full: %d others ended early, all of them in the ledger", w.early)
	if w.early == 0 || live != 300-w.early || over != 100+w.early {
		t.Errorf("%d sessions live and %d are over, %d of them early: want 100 that were revoked, and some early", live, over, w.early)
	}
	w.boot()
	w.verify(w.grants)
}

// An engine whose place another has taken changes nothing at AWS.
func TestDeposedEngineCommitsNothing(t *testing.T) {
	w := newSessionWorld(t, 0)
	w.mintMany(10, time.Hour, 2*time.Hour)
	before, calls := w.iam.inForce(), w.iam.count()
	w.mu.Lock()
	w.deposed = errDeposed
	w.mu.Unlock()
	if err := w.revoke(w.grants[0]); !errors.Is(err, errDeposed) {
		t.Errorf("a revoke of a deposed engine says %v, want %v", err, errDeposed)
	}
	if after := w.iam.inForce(); !maps.Equal(before, after) || len(writes(w.iam.calls[calls:])) > 0 {
		t.Errorf("a deposed engine has made the calls %v", w.iam.calls[calls:])
	}
	w.mu.Lock()
	w.deposed = nil
	w.mu.Unlock()
	w.keep() // what failed is tried again, though nobody asks
	w.verify(w.grants)
}

// What somebody has changed of the policies is put right by the next check. The
// engine needs no rights over managed policies for that.
func TestChangedPoliciesArePutRight(t *testing.T) {
	w := newSessionWorld(t, 0)
	w.iam.narrow = true
	w.mintMany(20, time.Hour, 2*time.Hour)
	w.revokeSome(10)
	w.iam.mu.Lock()
	for name := range w.iam.inline {
		if strings.HasPrefix(name, "precision-revoked-") {
			delete(w.iam.inline, name)
		}
	}
	w.iam.mu.Unlock()
	w.keep()
	if live, over := w.verify(w.grants); live != 10 || over != 10 {
		t.Errorf("%d sessions live and %d are over", live, over)
	}
}
