package precision

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// readAs mints as an entity.
func (e *engine) readAs(entity, path string) *logical.Response {
	e.t.Helper()
	response, err := e.HandleRequest(e.t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: path, Storage: e.storage, EntityID: entity, DisplayName: "name-" + entity})
	if err != nil || response.IsError() {
		e.t.Fatalf("%v %v", response, err)
	}
	return response
}

func (e *engine) grantState(minted *logical.Response) ledger.State {
	e.t.Helper()
	return e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil).Data["state"].(ledger.State)
}

// An end ends exactly what its filter names, and the ledger says who asked and why.
func TestEndEndsWhatItsFilterNames(t *testing.T) {
	for name, filter := range map[string]func(minted []*logical.Response) map[string]any{
		"entity": func([]*logical.Response) map[string]any { return map[string]any{"entity_id": "a"} },
		"task":   func([]*logical.Response) map[string]any { return map[string]any{"task": "T-0"} },
		"grant": func(minted []*logical.Response) map[string]any {
			return map[string]any{"grant_id": minted[0].Data["grant_id"]}
		},
		"entity and task": func([]*logical.Response) map[string]any { return map[string]any{"entity_id": "a", "task": "T-0"} },
		"role":            func([]*logical.Response) map[string]any { return map[string]any{"role": "reset"} },
		"target":          func([]*logical.Response) map[string]any { return map[string]any{"target": "db"} },
		"all":             func([]*logical.Response) map[string]any { return map[string]any{"all": true} },
		"since":           func([]*logical.Response) map[string]any { return map[string]any{"since": "1h"} },
		"until":           func([]*logical.Response) map[string]any { return map[string]any{"until": "1h"} },
		"another entity":  func([]*logical.Response) map[string]any { return map[string]any{"entity_id": "c"} },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.initialize()
			e.do(logical.CreateOperation, "roles/other", map[string]any{"target": "db", "action": "reset", "resource": "two"})
			var minted []*logical.Response
			var ends []bool
			for i, entity := range []string{"a", "b", "a"} {
				for j, role := range []string{"reset", "other"} {
					task := fmt.Sprintf("T-%d", i/2*2)
					minted = append(minted, e.readAs(entity, "creds/"+role+"/"+task))
					ends = append(ends, map[string]bool{
						"entity": entity == "a", "task": task == "T-0", "grant": i+j == 0, "entity and task": entity == "a" && task == "T-0",
						"role": role == "reset", "target": true, "all": true, "since": true, "until": false, "another entity": false,
					}[name])
				}
			}
			asked := filter(minted)
			asked["reason"] = "a drill"
			asked["dry_run"] = true
			matched := e.do(logical.UpdateOperation, "end", asked).Data["matched"].(int)
			if live := e.target.Live(); live != len(minted) {
				t.Fatalf("a dry run ended something: %d live", live)
			}
			delete(asked, "dry_run")
			answer := e.do(logical.UpdateOperation, "end", asked).Data
			want := 0
			for i, end := range ends {
				state, dead := e.grantState(minted[i]), e.target.End(minted[i].Data["grant_id"].(string)).IsZero()
				if end {
					want++
				}
				if dead != end || (state == ledger.Revoked) != end {
					t.Errorf("grant %d: dead %t and %s, want ended %t", i, dead, state, end)
				}
				if record := e.do(logical.ReadOperation, "grants/"+minted[i].Data["grant_id"].(string), nil).Data; end && (record["end_reason"] != "a drill" || record["ending"] != ledger.Requested) {
					t.Errorf("the ledger does not say why: %v", record)
				}
			}
			if matched != want || answer["matched"] != want || answer["ended"] != want || answer["failed"] != 0 || answer["running"] != false {
				t.Errorf("a dry run named %d, the answer is %v; want %d", matched, answer, want)
			}
		})
	}
}

// What names no grants, or says no reason, ends nothing.
func TestEndRefuses(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	for name, data := range map[string]map[string]any{
		"filter":          {"reason": "x"},
		"reason":          {"all": true},
		"reason ":         {"all": true, "reason": " "},
		"reason: ":        {"all": true, "reason": "a\nb"},
		"reason is":       {"all": true, "reason": strings.Repeat("x", 600)},
		"all":             {"all": true, "role": "reset", "reason": "x"},
		"role":            {"role": "", "reason": "x"},
		"task":            {"task": "../x", "reason": "x"},
		"grant_id":        {"grant_id": "nope", "reason": "x"},
		"since":           {"since": "", "reason": "x"},
		"since ":          {"since": "yesterday", "reason": "x"},
		"until":           {"since": "1h", "until": "2h", "reason": "x"},
		"until is":        {"role": "reset", "until": "0001-01-01T00:00:00Z", "reason": "x"},
		"since is":        {"role": "reset", "since": "0001-01-01T00:00:00Z", "reason": "x"},
		"role is":         {"role": " reset", "reason": "x"},
		"entity_id":       {"entity_id": "", "reason": "x"},
		"all=false named": {"all": false, "reason": "x"},
	} {
		response, err := e.try(logical.UpdateOperation, "end", data)
		if err != nil || !response.IsError() {
			t.Errorf("%s: %v was not refused: %v %v", name, data, response, err)
		}
	}
	if e.target.Live() != 1 {
		t.Error("a refused end ended something")
	}
}

// An end that a crash interrupts goes on, and ends what was issued before it only.
func TestAnInterruptedEndGoesOn(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	for range 20 {
		e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	}
	var broken atomic.Bool
	broken.Store(true)
	reached := make(chan struct{}, 100)
	e.target.OnRevoke = func() error {
		if broken.Load() {
			reached <- struct{}{}
			return errors.New("the target broke")
		}
		return nil
	}
	go func() { // its caller is cut off, too
		_, _ = e.try(logical.UpdateOperation, "end", map[string]any{"task": "T-1", "reason": "a drill"})
	}()
	<-reached
	before := e.backend
	before.Cleanup(t.Context())
	broken.Store(false)
	time.Sleep(10 * time.Millisecond) // issued after the end, on any clock
	e.backend = e.open(e.System())
	later := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.initialize()
	for range 500 {
		if e.target.Live() == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if e.grantState(later) != ledger.Active || e.target.Live() != 1 {
		t.Errorf("%d live, want the one that was issued later; it is %s", e.target.Live(), e.grantState(later))
	}
	for range 100 {
		ends := e.do(logical.ReadOperation, "end-status", nil).Data["ends"].([]map[string]any)
		if len(ends) == 1 && ends[0]["running"] == false && ends[0]["matched"] == 20 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the end is not said to be done: %v", e.do(logical.ReadOperation, "end-status", nil).Data)
}

// A time is what people see of a grant: whole seconds.
func TestEndTakesTheTimeThatItShows(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	issued := e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil).Data["issued_at"]
	for _, filter := range []map[string]any{{"until": issued}, {"since": issued}, {"since": issued, "until": issued}} {
		filter["reason"], filter["dry_run"] = "a drill", true
		if matched := e.do(logical.UpdateOperation, "end", filter).Data["matched"]; matched != 1 {
			t.Errorf("%v names %v grants, want 1", filter, matched)
		}
	}
	if matched := e.do(logical.UpdateOperation, "end", map[string]any{"until": stamp(time.Now().Add(-time.Minute)), "reason": "a drill", "dry_run": true}).Data["matched"]; matched != 0 {
		t.Errorf("%v grants are named that were issued later", matched)
	}
}

// What an end can't reach is the sweeper's: it is written down that it is to end, by
// whom and why, and it ends once its target is there again.
func TestWhatAnEndCantReachIsSwept(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	minted := e.readAs("a", "creds/reset/T-1")
	e.do(logical.DeleteOperation, "config/db", map[string]any{"force": true})
	answer := e.do(logical.UpdateOperation, "end", map[string]any{"entity_id": "a", "reason": "a drill"}).Data
	if answer["failed"] != 1 || answer["ended"] != 0 || e.grantState(minted) != ledger.Ending {
		t.Fatalf("the answer is %v, and the grant %s", answer, e.grantState(minted))
	}
	e.do(logical.CreateOperation, "config/db", map[string]any{"type": "fake", "password": "hunter2"})
	for range 300 {
		e.sweeper.Run(e.storage)
		if e.target.Live() == 0 && e.grantState(minted) == ledger.Revoked {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	record := e.do(logical.ReadOperation, "grants/"+minted.Data["grant_id"].(string), nil).Data
	if e.target.Live() != 0 || record["ending"] != ledger.Requested || record["end_reason"] != "a drill" {
		t.Errorf("%d live, and the ledger says %v", e.target.Live(), record)
	}
}

// A name that no grant has ever had is refused with the nearest, and a filter that names
// no grant says so: in an incident neither may read as success.
func TestEndRefusesNamesThatNothingHad(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	lease, _ := e.as("ann", "reset/T-1")
	for field, misspelt := range map[string]string{"role": "rest", "target": "bd", "task": "T-11"} {
		for _, dry := range []bool{false, true} {
			response, err := e.try(logical.UpdateOperation, "end", map[string]any{field: misspelt, "reason": "a drill", "dry_run": dry})
			right := map[string]string{"role": "reset", "target": "db", "task": "T-1"}[field]
			if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "did you mean "+right) {
				t.Errorf("%s=%s was not refused with %s: %v %v", field, misspelt, right, response, err)
			}
		}
	}
	if e.target.Live() != 1 {
		t.Error("a refused request revoked something")
	}
	if err := e.revokeLease(lease); err != nil {
		t.Fatal(err)
	}
	for _, data := range []map[string]any{{"role": "reset"}, {"task": "T-1"}, {"entity_id": "nobody"}, {"all": true}} {
		data["reason"] = "a drill"
		answer := e.do(logical.UpdateOperation, "end", data)
		if len(answer.Warnings) != 1 || !strings.HasPrefix(answer.Warnings[0], "matched=0") {
			t.Errorf("%v: warnings %q", data, answer.Warnings)
		}
	}
}
