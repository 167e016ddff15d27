package precision

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// At a secondary, approvals are the primary's: it is asked before anything is ended here
// to make room.
func TestApprovalsAreThePrimarys(t *testing.T) {
	for local, want := range map[bool]error{false: logical.ErrReadOnly, true: nil} {
		e := newApprovalEngine(t)
		e.do(logical.UpdateOperation, "roles/two", map[string]any{"max_active": 1, "on_limit": "replace", "approval_uses": 2})
		e.approved("T-1")
		if err := e.take("T-1"); err != nil {
			t.Fatal(err)
		}
		e.people.LocalMountVal, e.people.ReplicationStateVal = local, consts.ReplicationPerformanceSecondary|consts.ReplicationDRDisabled
		e.backend = e.open(e.people)
		t.Cleanup(func() { e.Cleanup(context.Background()) })
		ends := 0
		e.target.OnRevoke = func() error { ends++; return nil }
		if err := e.take("T-1"); !errors.Is(err, want) || (ends > 0) != local {
			t.Errorf("local: %t: the read came to %v, and %d gave way", local, err, ends)
		}
	}
}

// Tokens of an entity that was merged into another ask for nothing, decide nothing and
// get nothing: their owner would be two.
func TestMergedEntitiesAreNobody(t *testing.T) {
	e := newApprovalEngine(t)
	id := must(e.by("carol", logical.UpdateOperation, "requests", map[string]any{"role": "two", "task": "T-2", "reason": "why"})).Data["id"].(string)
	e.approved("T-1")
	e.people.merged["alice"], e.people.merged["bob"] = true, true
	forbidden(t, e.take("T-1"), "merged into another")
	_, err := e.by("bob", logical.UpdateOperation, "requests/"+id+"/approve", nil)
	forbidden(t, err, "merged into another")
	_, err = e.by("alice", logical.UpdateOperation, "requests", map[string]any{"role": "two", "task": "T-3", "reason": "why"})
	forbidden(t, err, "merged into another")
	e.people.merged["alice"] = false
	if err := e.take("T-1"); err != nil {
		t.Error(err)
	}
}

// Whose request was for less than the role allows is told what that has cut.
func TestApprovalCutsTheTTL(t *testing.T) {
	e := newApprovalEngine(t)
	opened := must(e.by("alice", logical.UpdateOperation, "requests", map[string]any{"role": "two", "task": "T-1", "reason": "why", "ttl": "2m"}))
	id := opened.Data["id"].(string)
	must(e.by("bob", logical.UpdateOperation, "requests/"+id+"/approve", nil))
	answer := must(e.by("alice", logical.ReadOperation, "creds/two/T-1", nil))
	if len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "ttl of 10m0s was cut to 2m0s: request "+id) || answer.Secret.TTL > 2*time.Minute {
		t.Errorf("a lease of %s, with %q", answer.Secret.TTL, answer.Warnings)
	}
}

// A second read with the same approval, which another has used by then, ends nobody's
// credential to make room for one that it does not get.
func TestNothingGivesWayToWhatIsNotApproved(t *testing.T) {
	for name, late := range map[string]func(e *engine){
		"used": func(*engine) {},
		"frozen": func(e *engine) {
			e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "two", "reason": "INC-7"})
		},
		"cancelled": func(e *engine) {
			for _, one := range must(e.by("alice", logical.ListOperation, "requests/", nil)).Data["keys"].([]string) {
				must(e.by("alice", logical.UpdateOperation, "requests/"+one+"/cancel", nil))
			}
		},
		"of a role that was written anew": func(e *engine) { e.do(logical.UpdateOperation, "roles/two", map[string]any{"ttl": "9m"}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newApprovalEngine(t)
				uses := 2
				if name == "used" {
					uses = 1
				}
				e.do(logical.UpdateOperation, "roles/two", map[string]any{"max_active": 1, "on_limit": "replace", "approval_uses": uses})
				e.approved("T-1")
				making := make(chan struct{})
				e.target.OnMint = func() error { <-making; return nil }
				var got, refused atomic.Int64
				for range 2 {
					go func() {
						if e.take("T-1") == nil {
							got.Add(1)
						} else {
							refused.Add(1)
						}
					}()
				}
				synctest.Wait() // one is made, and the other waits for that
				late(e)
				close(making)
				synctest.Wait()
				if name == "frozen" { // which refuses the first, too
					if e.target.Live() != 0 || refused.Load() != 2 {
						t.Errorf("%d live, and %d were refused", e.target.Live(), refused.Load())
					}
					return
				}
				if e.target.Live() != 1 || got.Load() != 1 || refused.Load() != 1 {
					t.Errorf("%d live, %d were answered and %d refused", e.target.Live(), got.Load(), refused.Load())
				}
			})
		})
	}
}
