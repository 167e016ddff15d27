package precision

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// frozen says whether an error is the refusal of a freeze, with its reason.
func frozen(err error) bool {
	var coded logical.HTTPCodedError
	return errors.As(err, &coded) && coded.Code() == http.StatusForbidden && strings.Contains(err.Error(), "INC-7")
}

// Each subject refuses what it is of, and nothing else; the freeze outlives a restart,
// and its role.
func TestFreeze(t *testing.T) {
	e := newEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake"})
	e.do(logical.CreateOperation, "roles/elsewhere", map[string]any{"target": "other", "action": "reset", "resource": "one"})
	e.do(logical.CreateOperation, "roles/second", map[string]any{"target": "db", "action": "reset", "resource": "one"})
	refused := func() string {
		var names []string
		for _, role := range []string{"reset", "second", "elsewhere"} {
			if _, err := e.try(logical.ReadOperation, "creds/"+role+"/T-1", nil); frozen(err) {
				names = append(names, role)
			} else if err != nil {
				t.Error(err)
			}
		}
		return strings.Join(names, " ")
	}
	for subject, want := range map[string]string{"role=reset": "reset", "target=db": "reset second", "all=true": "reset second elsewhere"} {
		field, value, _ := strings.Cut(subject, "=")
		e.do(logical.UpdateOperation, "freeze", map[string]any{field: value, "reason": "INC-7"})
		if got := refused(); got != want {
			t.Errorf("%s refuses %s", subject, got)
		}
		e.backend = e.open(e.System())
		if got := refused(); got != want {
			t.Errorf("after a restart, %s refuses %s", subject, got)
		}
		e.do(logical.UpdateOperation, "unfreeze", map[string]any{field: value, "reason": "over"})
		if got := refused(); got != "" {
			t.Errorf("unfrozen, %s refuses %s", subject, got)
		}
	}
	e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"})
	e.do(logical.DeleteOperation, "roles/reset", nil)
	e.do(logical.CreateOperation, "roles/reset", map[string]any{"target": "db", "action": "reset", "resource": "one"})
	if got := refused(); got != "reset" {
		t.Errorf("once the role has been made again, %s is refused", got)
	}
	shown := e.ask(logical.ReadOperation, "freeze", nil)
	if len(shown["frozen"].([]any)) != 1 || len(shown["lifted"].([]any)) != 3 {
		t.Errorf("freeze reads as %v", shown)
	}
	if again := e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "another"}); len(again.Warnings) != 1 || again.Data["reason"] != "INC-7" {
		t.Errorf("a second freeze answers %+v", again)
	}
}

// What another node has frozen is known once Vault says that it has changed.
func TestFreezeOfAnotherNode(t *testing.T) {
	e := newEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	other := &engine{t: t, storage: e.storage, target: e.target, backend: e.open(e.System())}
	other.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"})
	e.Invalidate(t.Context(), "freeze/now/role/reset")
	if _, err := e.try(logical.ReadOperation, "creds/reset/T-1", nil); !frozen(err) {
		t.Errorf("minted: %v", err)
	}
}

// A mint that has not been admitted when a freeze answers is refused, wherever it is;
// and one that has been, when its credential is made.
func TestFreezeMeetsMintsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, far := besides(t)
		minted := make(chan error, 2)
		mint := func(role string) {
			_, err := e.try(logical.ReadOperation, "creds/"+role+"/T-1", nil)
			minted <- err
		}
		making := make(chan struct{})
		e.target.OnMint = func() error { <-making; return nil }
		go mint("far")
		go mint("reset")
		synctest.Wait()
		e.do(logical.UpdateOperation, "freeze", map[string]any{"all": true, "reason": "INC-7"})
		close(far.answers)
		if err := <-minted; !frozen(err) || far.Live() != 0 {
			t.Errorf("what was being prepared came to %v, with %d credentials", err, far.Live())
		}
		close(making)
		if err := <-minted; !frozen(err) || e.target.Live() != 0 {
			t.Errorf("what was being minted came to %v, with %d credentials", err, e.target.Live())
		}
		synctest.Wait()
		if open := e.grants.Index.Open(ledger.Query{}, time.Now()); len(open) != 0 {
			t.Errorf("grants are open: %v", open)
		}
		found := e.ask(logical.ReadOperation, "grants", map[string]any{"state": "all"})["grants"].([]any)
		if len(found) != 1 || found[0].(map[string]any)["ending"] != string(ledger.Frozen) {
			t.Errorf("the ledger has %v", found)
		}
	})
}

// While a mint is between its check and the ledger's index, no freeze answers.
func TestFreezeWaitsForAdmissions(t *testing.T) {
	e := newEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	order, _, err := e.fill(t.Context(), e.storage, wish{role: "reset"})
	if err != nil {
		t.Fatal(err)
	}
	admitted, err := e.holdTarget(t.Context(), e.storage, order)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"})
	}()
	for waits := false; !waits; {
		select {
		case <-answered:
			t.Fatal("the freeze answered before what was checked before it was admitted")
		default:
			if waits = !e.definitions.TryRLock(); !waits {
				e.definitions.RUnlock()
			}
		}
	}
	admitted()
	<-answered
	if _, err := e.holdTarget(t.Context(), e.storage, order); err == nil {
		t.Error("admitted after the freeze")
	}
}

// With 32 callers that mint as fast as they can: once the freeze has answered, no
// grant is put into the ledger.
func TestFreezeUnderLoad(t *testing.T) {
	e := newEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	for round := range 20 {
		stop := make(chan struct{})
		var all sync.WaitGroup
		for caller := range 32 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, err := e.try(logical.ReadOperation, fmt.Sprintf("creds/reset/T-%d", caller), nil)
						if err != nil && !frozen(err) {
							t.Error(err)
						}
					}
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"})
		answered := time.Now()
		time.Sleep(5 * time.Millisecond)
		close(stop)
		all.Wait()
		for _, grant := range e.grants.Index.Live(ledger.Query{}, time.Now()) {
			if grant.IssuedAt.After(answered) {
				t.Fatalf("round %d: a grant was issued %s after the freeze", round, grant.IssuedAt.Sub(answered))
			}
		}
		e.do(logical.UpdateOperation, "unfreeze", map[string]any{"role": "reset", "reason": "over"})
	}
}

// A frozen lease is not renewed, and a frozen role's approval is not used up.
func TestFreezeOfRenewalsAndApprovals(t *testing.T) {
	e := newApprovalEngine(t)
	e.do(logical.CreateOperation, "roles/long", map[string]any{"target": "db", "action": "reset", "resource": "one", "ttl": "10m", "renewable": true})
	lease := e.do(logical.ReadOperation, "creds/long/T-1", nil).Secret
	id := e.approved("T-1")
	e.do(logical.UpdateOperation, "freeze", map[string]any{"target": "db", "reason": "INC-7"})
	renew := func() error {
		_, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RenewOperation, Path: "creds/long/T-1", Secret: kept(t, lease), Storage: e.storage})
		return err
	}
	if err := renew(); !frozen(err) {
		t.Errorf("renewed: %v", err)
	}
	if err := e.take("T-1"); !frozen(err) || e.stateOf(id) != "approved" {
		t.Errorf("an approved read came to %v, and its request is %s", err, e.stateOf(id))
	}
	e.do(logical.UpdateOperation, "unfreeze", map[string]any{"target": "db", "reason": "over"})
	if err := renew(); err != nil {
		t.Error(err)
	}
	if err := e.take("T-1"); err != nil {
		t.Error(err)
	}
	if err := e.revokeLease(lease); err != nil {
		t.Error(err)
	}
}

// A renewal that waits for another when a freeze answers is refused: nothing is moved
// any more.
func TestFreezeMeetsRenewalsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		t.Cleanup(func() { e.Cleanup(context.Background()) })
		e.do(logical.CreateOperation, "roles/long", map[string]any{"target": "db", "action": "reset", "resource": "one", "ttl": "10m", "renewable": true})
		lease := e.do(logical.ReadOperation, "creds/long/T-1", nil).Secret
		moving, asked := make(chan struct{}), 0
		e.target.OnRenew = func() error { asked++; <-moving; return nil }
		renewed := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := e.HandleRequest(context.Background(), &logical.Request{Operation: logical.RenewOperation, Path: "creds/long/T-1", Secret: kept(t, lease), Storage: e.storage})
				renewed <- err
			}()
		}
		synctest.Wait()
		e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "long", "reason": "INC-7"})
		close(moving)
		if one, other := <-renewed, <-renewed; frozen(one) == frozen(other) || asked != 1 {
			t.Errorf("the target was asked %d times, and the renewals came to %v and %v", asked, one, other)
		}
	})
}

// A lifted freeze is forgotten after the retention; one that is in force never.
func TestLiftedFreezesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		t.Cleanup(func() { e.Cleanup(context.Background()) })
		e.do(logical.UpdateOperation, "tidy-config", map[string]any{"retention": "1h"})
		e.do(logical.UpdateOperation, "freeze", map[string]any{"role": "reset", "reason": "INC-7"})
		e.do(logical.UpdateOperation, "freeze", map[string]any{"target": "db", "reason": "INC-7"})
		e.do(logical.UpdateOperation, "unfreeze", map[string]any{"role": "reset", "reason": "over"})
		for _, lifted := range []int{1, 0} {
			e.do(logical.UpdateOperation, "tidy", nil)
			synctest.Wait()
			shown := e.ask(logical.ReadOperation, "freeze", nil)
			if len(shown["frozen"].([]any)) != 1 || len(shown["lifted"].([]any)) != lifted {
				t.Errorf("freeze reads as %v", shown)
			}
			time.Sleep(time.Hour + time.Minute)
		}
	})
}

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"deploy", "deploy-prod", "upload", "rotate"}
	for name, want := range map[string]string{"depoly": "deploy", "Deploy": "deploy deploy-prod", "uplaod": "upload", "prod": "deploy-prod", "zzz": "", "rotates": "rotate"} {
		if got := strings.Join(nearest(name, names), " "); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

// A frozen target freezes every other target that is the same system.
func TestFreezeHoldsOtherTargetsOfTheSystem(t *testing.T) {
	e, _ := newPlacedEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	for name, where := range map[string]string{"first": "here", "second": "here", "third": "elsewhere"} {
		e.do(logical.CreateOperation, "config/"+name, map[string]any{"type": "fake", "where": where})
		e.do(logical.CreateOperation, "roles/"+name, map[string]any{"target": name, "action": "reset", "resource": "one"})
	}
	answer := e.do(logical.UpdateOperation, "freeze", map[string]any{"target": "first", "reason": "INC-7"})
	if warnings := strings.Join(answer.Warnings, "\n"); !strings.Contains(warnings, "second") || strings.Contains(warnings, "third") {
		t.Errorf("the answer warns of %q", warnings)
	}
	for range 2 { // the second time after a restart
		for role, want := range map[string]bool{"first": true, "second": true, "third": false} {
			if _, err := e.try(logical.ReadOperation, "creds/"+role+"/T-1", nil); frozen(err) != want {
				t.Errorf("%s: %v", role, err)
			}
		}
		e.backend = e.open(e.System())
	}
	e.do(logical.UpdateOperation, "unfreeze", map[string]any{"target": "first", "reason": "over"})
	e.do(logical.ReadOperation, "creds/second/T-1", nil)
}

// A second freeze of a target says of the other targets that are the same system what is so: they are frozen once the
// freeze knows the system, and not where it is of what the target was before.
func TestASecondFreezeLearnsOfTheSystem(t *testing.T) {
	e, _ := newPlacedEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	for name, where := range map[string]string{"first": "here", "second": "here", "third": "elsewhere"} {
		e.do(logical.CreateOperation, "config/"+name, map[string]any{"type": "fake", "where": where})
		e.do(logical.CreateOperation, "roles/"+name, map[string]any{"target": name, "action": "reset", "resource": "one"})
	}
	subject := admission.Subject{Kind: admission.FreezeTarget, Name: "first"}
	old := admission.Freeze{
		ID: newFreezeID(time.Now()), Subject: subject, By: approval.Decision{At: time.Now(), Reason: "INC-7"},
	}
	if err := writeEntry(t.Context(), e.storage, freezeKey(subject), old); err != nil {
		t.Fatal(err)
	}
	freeze := func() (warnings string) {
		t.Helper()
		answer := e.do(logical.UpdateOperation, "freeze", map[string]any{"target": "first", "reason": "INC-8"})
		if answer.Data["id"] != old.ID || answer.Data["reason"] != "INC-7" {
			t.Errorf("the freeze that was there became %v", answer.Data)
		}
		return strings.Join(answer.Warnings, "\n")
	}
	if _, err := e.try(logical.ReadOperation, "creds/second/T-1", nil); !frozen(err) {
		t.Errorf("before the freeze knows the system, a mint on it comes to %v", err)
	}
	if warnings := freeze(); !strings.Contains(warnings, "second") || strings.Contains(warnings, "does not hold") {
		t.Errorf("the answer warns of %q", warnings)
	}
	e.backend = e.open(e.System())
	if _, err := e.try(logical.ReadOperation, "creds/second/T-1", nil); !frozen(err) {
		t.Errorf("after a restart, a mint on the same system comes to %v", err)
	}
	e.do(logical.UpdateOperation, "config/first", map[string]any{"type": "fake", "where": "elsewhere"})
	if warnings := freeze(); !strings.Contains(warnings, `third, whose roles this freeze does not hold`) {
		t.Errorf("the answer warns of %q", warnings)
	}
	e.do(logical.ReadOperation, "creds/third/T-1", nil)
}

// A freeze whose record is damaged still holds every target that is the same system as its own.
func TestADamagedFreezeHoldsOtherTargetsOfTheSystem(t *testing.T) {
	e, _ := newPlacedEngine(t)
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	for name, where := range map[string]string{"first": "here", "second": "here", "third": "elsewhere"} {
		e.do(logical.CreateOperation, "config/"+name, map[string]any{"type": "fake", "where": where})
		e.do(logical.CreateOperation, "roles/"+name, map[string]any{"target": name, "action": "reset", "resource": "one"})
	}
	e.damage(freezeKey(admission.Subject{Kind: admission.FreezeTarget, Name: "first"}), []byte("{"))
	for role, want := range map[string]bool{"first": true, "second": true, "third": false} {
		if _, err := e.try(logical.ReadOperation, "creds/"+role+"/T-1", nil); (err != nil) != want {
			t.Errorf("%s: %v", role, err)
		}
	}
}
