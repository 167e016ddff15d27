package precision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// by does something as an entity.
func (e *engine) by(entity string, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	return e.HandleRequest(context.Background(), &logical.Request{Operation: operation, Path: path, Data: data, EntityID: entity, MountPoint: "precision/", Storage: e.storage})
}

// approved is the id of alice's request for role "two" and a task, which bob has
// approved.
func (e *engine) approved(task string) string { e.t.Helper(); return e.approvedBy("alice", task) }

// approvedBy is approved for a request of somebody else's.
func (e *engine) approvedBy(entity, task string) string {
	e.t.Helper()
	opened, err := e.by(entity, logical.UpdateOperation, "requests", map[string]any{"role": "two", "task": task, "reason": "why"})
	if err != nil || opened.IsError() {
		e.t.Fatal(opened, err)
	}
	id := opened.Data["id"].(string)
	if answer, err := e.by("bob", logical.UpdateOperation, "requests/"+id+"/approve", nil); err != nil || answer.IsError() {
		e.t.Fatal(answer, err)
	}
	return id
}

// take reads a credential of role "two" as alice.
func (e *engine) take(task string) error {
	answer, err := e.by("alice", logical.ReadOperation, "creds/two/"+task, nil)
	if err == nil && answer.IsError() {
		err = answer.Error()
	}
	return err
}

func newApprovalEngine(t testing.TB) *engine {
	e := newEngine(t)
	e.people = populated{&logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
		ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
	}, map[string]bool{}}
	e.backend = e.open(e.people)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	e.do(logical.CreateOperation, "roles/two", map[string]any{"target": "db", "action": "reset", "resource": "one", "ttl": "10m", "approvals": 1})
	return e
}

func (e *engine) stateOf(id string) string {
	e.t.Helper()
	return fmt.Sprint(e.ask(logical.ReadOperation, "requests/"+id, nil)["state"])
}

// However many read at once, on however many copies of the plugin that come one
// after the other, no more is minted than was approved.
func TestApprovalIsUsedOnce(t *testing.T) {
	e := newApprovalEngine(t)
	for round := range 20 {
		task := fmt.Sprintf("T-%d", round)
		id := e.approved(task)
		if round%2 == 1 {
			e.backend = e.open(e.System()) // as after a restart
			t.Cleanup(func() { e.Cleanup(context.Background()) })
		}
		before := e.target.Live()
		var got atomic.Int64
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				if e.take(task) == nil {
					got.Add(1)
				}
			})
		}
		all.Wait()
		if got.Load() != 1 || e.target.Live() != before+1 {
			t.Fatalf("%d credentials were answered, and %d made", got.Load(), e.target.Live()-before)
		}
		if e.stateOf(id) != "used" {
			t.Errorf("the request is %s", e.stateOf(id))
		}
	}
}

// The use is in storage before the target is asked, and stays taken whatever becomes
// of the mint.
func TestApprovalIsUsedBeforeTheMint(t *testing.T) {
	e := newApprovalEngine(t)
	id := e.approved("T-1")
	e.target.OnMint = func() error {
		if restarted := e.open(e.System()); restarted != nil {
			found, err := restarted.findRequest(t.Context(), e.storage, id)
			if err != nil || found.State != "used" || len(found.Uses) != 1 {
				t.Errorf("while the target mints, storage has %+v, %v", found, err)
			}
		}
		return errors.New("the target broke")
	}
	if err := e.take("T-1"); err == nil {
		t.Fatal("a mint that failed has succeeded")
	}
	e.target.OnMint = nil
	if err := e.take("T-1"); err == nil || !strings.Contains(err.Error(), "used") {
		t.Errorf("after a mint that failed, the approval is good for another: %v", err)
	}
}

// Where the use can't be written, or it can't be said whether it was, nothing is
// minted and no place is taken.
func TestApprovalThatCanNotBeUsed(t *testing.T) {
	e := newApprovalEngine(t)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil) // the ledger has its id then
	e.approved("T-1")
	e.storage.readOnly.Store(true)
	if err := e.take("T-1"); !errors.Is(err, logical.ErrReadOnly) {
		t.Errorf("on a node that does not write: %v", err)
	}
	e.storage.readOnly.Store(false)
	e.storage.breaks.Store(true) // takes the write, and says that it failed
	if err := e.take("T-1"); err == nil {
		t.Error("minted although the use could not be written")
	}
	e.storage.breaks.Store(false)
	if err := e.take("T-1"); err == nil {
		t.Error("minted by an approval that may have been used")
	}
	if e.target.Live() != 1 || len(e.grants.Index.Open(ledger.Query{}, time.Now())) != 1 {
		t.Errorf("%d credentials, grants %v", e.target.Live(), e.grants.Index.Open(ledger.Query{}, time.Now()))
	}
}

// A read opens no request, and what is refused writes nothing.
func TestReadsWriteNoRequest(t *testing.T) {
	e := newApprovalEngine(t)
	e.approved("T-1")
	before := e.storage.writes.Load()
	for range 100 {
		if err := e.take("T-2"); err == nil || !strings.Contains(err.Error(), `vault write precision/requests role=two task=T-2 reason="…"`) {
			t.Fatalf("without a request: %v", err)
		}
	}
	if wrote := e.storage.writes.Load() - before; wrote != 0 {
		t.Errorf("%d writes", wrote)
	}
}

// Roles that ask for no approval cost no read of storage for it.
func TestNoApprovalCostsNothing(t *testing.T) {
	e := newEngine(t)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	before := e.storage.reads.Load()
	e.do(logical.ReadOperation, "creds/reset/T-2", nil)
	if reads := e.storage.reads.Load() - before; reads != 0 {
		t.Errorf("%d reads", reads)
	}
}

// What is finished goes to the past, and is forgotten a retention after all that was
// minted by it is over; what is open stays.
func TestRequestsAreTidiedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newApprovalEngine(t)
		e.do(logical.UpdateOperation, "tidy-config", map[string]any{"retention": "1h"})
		used, lapsed := e.approved("T-1"), e.approved("T-2")
		if err := e.take("T-1"); err != nil {
			t.Fatal(err)
		}
		tidied := func() string {
			t.Helper()
			e.do(logical.UpdateOperation, "tidy", nil)
			synctest.Wait()
			status := e.ask(logical.ReadOperation, "tidy-status", nil)["requests"].(map[string]any)
			return fmt.Sprint(status["moved"], " ", status["deleted"], " ", status["problem"])
		}
		listed := func(path string) string {
			t.Helper()
			answer, err := e.by("bob", logical.ListOperation, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			keys, _ := answer.Data["keys"].([]string)
			return strings.Join(keys, " ")
		}
		if listed("requests/") != lapsed || listed("requests/past") != used {
			t.Errorf("open: %s, past: %s", listed("requests/"), listed("requests/past"))
		}
		if got := tidied(); got != "1 0 " {
			t.Errorf("tidied %s", got)
		}
		if listed("requests/") != lapsed || listed("requests/past") != used {
			t.Errorf("once moved, open: %s, past: %s", listed("requests/"), listed("requests/past"))
		}
		time.Sleep(time.Hour + time.Minute) // lapsed since a minute; the grant ended 51 minutes ago
		if got := tidied(); got != "1 0 " || e.stateOf(lapsed) != "lapsed" {
			t.Errorf("tidied %s, and the request is %s", got, e.stateOf(lapsed))
		}
		time.Sleep(10 * time.Minute)
		if got := tidied(); got != "0 1 " || listed("requests/past") != lapsed {
			t.Errorf("tidied %s, and the past is %s", got, listed("requests/past"))
		}
		time.Sleep(time.Hour)
		if got := tidied(); got != "0 1 " || listed("requests/past") != "" {
			t.Errorf("tidied %s, and the past is %s", got, listed("requests/past"))
		}
		for _, key := range must(e.storage.List(t.Context(), "requests/")) {
			if left := must(e.storage.List(t.Context(), "requests/"+key)); len(left) > 0 {
				t.Errorf("storage keeps %v", left)
			}
		}
	})
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Past requests are listed page by page.
func TestPastRequestsArePaged(t *testing.T) {
	e := newApprovalEngine(t)
	want := map[string]bool{}
	for i := range 7 {
		id := e.approved(fmt.Sprintf("T-%d", i))
		if answer, err := e.by("alice", logical.UpdateOperation, "requests/"+id+"/cancel", nil); err != nil || answer.IsError() {
			t.Fatal(answer, err)
		}
		want[id] = true
	}
	for after, pages := "", 1; ; pages++ {
		answer := must(e.by("bob", logical.ListOperation, "requests/past", map[string]any{"after": after, "limit": 3}))
		for _, id := range answer.Data["keys"].([]string) {
			if !want[id] || id <= after {
				t.Errorf("%s is listed twice or out of order", id)
			}
			delete(want, id)
			after = id
		}
		if next, more := answer.Data["next"]; !more {
			if pages != 3 || len(want) != 0 {
				t.Errorf("%d pages leave out %v", pages, want)
			}
			return
		} else if next != after {
			t.Errorf("next is %v", next)
		}
	}
}

// Who opens and cancels in turns has to wait for the sweeper.
func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newApprovalEngine(t)
		for range maxKept {
			answer := must(e.by("alice", logical.UpdateOperation, "requests", map[string]any{"role": "two", "task": "T-1", "reason": "why"}))
			must(e.by("alice", logical.UpdateOperation, "requests/"+answer.Data["id"].(string)+"/cancel", nil))
		}
		open := func() error {
			_, err := e.by("alice", logical.UpdateOperation, "requests", map[string]any{"role": "two", "task": "T-1", "reason": "why"})
			return err
		}
		if err := open(); err == nil || !strings.Contains(err.Error(), "try again in ten minutes") {
			t.Errorf("one more came to %v", err)
		}
		e.approvedBy("carol", "T-1") // others go on
		for range 2 {                // once the ledger is in memory
			if err := e.PeriodicFunc(t.Context(), &logical.Request{Storage: e.storage}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := open(); err != nil {
			t.Error(err)
		}
	})
}

// Two entities may share a tag, and so a record: each sees but its own.
func TestRequestsOfOneTag(t *testing.T) {
	e := newApprovalEngine(t)
	id := e.approved("T-1")
	kept := must(readOpen(t.Context(), e.storage, tagOf("alice")))
	kept[0].Binding.Entity = "mallory" // whose tag is the same
	if err := writeOpen(t.Context(), e.storage, tagOf("alice"), kept); err != nil {
		t.Fatal(err)
	}
	if err := e.take("T-1"); err == nil {
		t.Error("alice has used mallory's approval")
	}
	if answer, err := e.by("alice", logical.UpdateOperation, "requests/"+id+"/cancel", nil); err == nil && !answer.IsError() {
		t.Error("alice has cancelled mallory's request")
	}
}

// staleStorage lets one node act between another's reading of a request and its writing, as where a leader that was
// deposed goes on with what it has read before.
type staleStorage struct {
	logical.Storage
	between func()
}

func (s *staleStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, key)
	if act := s.between; act != nil && strings.HasPrefix(key, openRequests) {
		s.between = nil
		act()
	}
	return entry, err
}

// Storage that lets a stale writer in does not make two mints of one approval.
func TestAnApprovalIsUsedOnceThoughAStaleWriterGetsIn(t *testing.T) {
	for read := range 4 {
		e := newApprovalEngine(t)
		e.approved("T-1")
		deposed := e.open(e.System())
		t.Cleanup(func() { deposed.Cleanup(context.Background()) })
		before := e.target.Live()
		storage := &staleStorage{Storage: e.storage}
		reads := 0
		var act func()
		act = func() { // at its read of that number, the other node takes the approval
			if reads++; reads <= read {
				storage.between = act
				return
			}
			if err := e.take("T-1"); err != nil {
				t.Logf("read %d: the leader: %v", read, err)
			}
		}
		storage.between = act
		answer, err := deposed.HandleRequest(context.Background(), &logical.Request{
			Operation: logical.ReadOperation, Path: "creds/two/T-1", EntityID: "alice", MountPoint: "precision/", Storage: storage,
		})
		t.Logf("read %d of %d: the deposed node: %v, %v", read, reads, answer.IsError(), err)
		if minted := e.target.Live() - before; minted > 1 {
			t.Errorf("read %d: one approval made %d mints", read, minted)
		}
	}
}
