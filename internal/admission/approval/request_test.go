package approval

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

const group = "00000000-0000-0000-0000-000000000001"

var (
	noon    = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	wanted  = Binding{Role: "deploy", Version: "v1", Target: "db", System: "s", Task: "T-1", Scope: "x", Entity: "alice"}
	alice   = Actor{Entity: "alice"}
	bob     = Actor{Entity: "bob", DisplayName: "userpass-bob", Groups: []string{group}}
	carol   = Actor{Entity: "carol", Groups: []string{"other", group}}
	dave    = Actor{Entity: "dave", Groups: []string{"other"}}
	nobody  = Actor{Groups: []string{group}}
	twoEyes = Rule{Needed: 2, Groups: []string{group}, TTL: time.Hour}
)

// opened is a request of alice's.
func opened(t *testing.T, rule Rule) Request {
	t.Helper()
	request, err := Request{Binding: wanted, Reason: "why"}.Open("id", rule, alice, nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// A request lapses with the second that it was to live for, before it is approved
// and after.
func TestRequestLapses(t *testing.T) {
	t.Parallel()
	request := opened(t, Rule{Needed: 1, TTL: time.Hour})
	last, over := noon.Add(time.Hour-time.Nanosecond), noon.Add(time.Hour)
	if _, err := request.Approve(bob, over, "v1"); err == nil {
		t.Error("approved once it had lapsed")
	}
	approved, err := request.Approve(bob, last, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if approved.Admits(wanted, last.Add(time.Hour-time.Nanosecond)) != nil {
		t.Error("an approval does not stand for its time")
	}
	if approved.Admits(wanted, last.Add(time.Hour)) == nil {
		t.Error("an approval outlives its time")
	}
	if settled := approved.Settled(last.Add(2*time.Hour), "v1"); settled.State != Lapsed || !settled.FinishedAt.Equal(approved.ExpiresAt) {
		t.Errorf("it settles to %s at %s", settled.State, settled.FinishedAt)
	}
	if settled := approved.Settled(noon, ""); settled.State != Void {
		t.Errorf("without its role it settles to %s", settled.State)
	}
}

// Whatever differs from what was approved is not admitted.
func TestApprovalIsOfOneThing(t *testing.T) {
	t.Parallel()
	approved, err := opened(t, Rule{Needed: 1}).Approve(bob, noon, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := approved.Admits(wanted, noon); err != nil {
		t.Errorf("what was approved is refused: %v", err)
	}
	for name, change := range map[string]func(*Binding){
		"role": func(b *Binding) { b.Role = "x" }, "version": func(b *Binding) { b.Version = "v2" }, "no version": func(b *Binding) { b.Version = "" },
		"target": func(b *Binding) { b.Target = "x" }, "system": func(b *Binding) { b.System = "x" }, "task": func(b *Binding) { b.Task = "x" },
		"filling": func(b *Binding) { b.Filled = "x" },
		"scope":   func(b *Binding) { b.Scope = "y" }, "entity": func(b *Binding) { b.Entity = "bob" }, "no entity": func(b *Binding) { b.Entity = "" },
	} {
		other := wanted
		change(&other)
		if _, err := approved.Use(other, "g", noon, noon); err == nil {
			t.Errorf("another %s is admitted", name)
		}
	}
}

func TestWhoDecides(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		by     []Actor // who approve, one after the other; all but the last have to succeed
		denied string  // what the last is told; empty if it may
		state  State
	}{
		"one of two":       {[]Actor{bob}, "", Waiting},
		"two of two":       {[]Actor{bob, carol}, "", Approved},
		"the same twice":   {[]Actor{bob, bob}, "already", Waiting},
		"who asks":         {[]Actor{alice}, "somebody else", Waiting},
		"who asks, second": {[]Actor{bob, alice}, "somebody else", Waiting},
		"who asks, member": {[]Actor{{Entity: "alice", Groups: []string{group}}}, "somebody else", Waiting},
		"no member":        {[]Actor{dave}, "approver_group_ids", Waiting},
		"no entity":        {[]Actor{nobody}, "no entity", Waiting},
		"no entity twice":  {[]Actor{bob, nobody}, "no entity", Waiting},
	} {
		request := opened(t, twoEyes)
		for i, by := range test.by {
			var err error
			before := request
			request, err = request.Approve(by, noon, "v1")
			last := i == len(test.by)-1
			var refused *invalid.Denied
			if errors.As(err, &refused) != (last && test.denied != "") {
				t.Errorf("%s: %v", name, err)
			}
			if refused != nil && (!strings.Contains(refused.Error(), test.denied) || len(request.Approvals) != len(before.Approvals)) {
				t.Errorf("%s: %v", name, refused)
			}
		}
		if request.State != test.state {
			t.Errorf("%s: the request is %s, want %s", name, request.State, test.state)
		}
	}
}

// What a method returns shares nothing with what it was called on.
func TestRequestsAreValues(t *testing.T) {
	t.Parallel()
	first, err := opened(t, twoEyes).Approve(bob, noon, "v1")
	if err != nil {
		t.Fatal(err)
	}
	byCarol, err := first.Approve(carol, noon, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Approve(Actor{Entity: "erin", Groups: []string{group}}, noon, "v1"); err != nil {
		t.Fatal(err)
	}
	if byCarol.Approvals[1].Entity != "carol" || len(first.Approvals) != 1 || first.State != Waiting {
		t.Errorf("the approvals are %v and %v", byCarol.Approvals, first.Approvals)
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	request, err := opened(t, Rule{Needed: 1, Uses: 3}).Approve(bob, noon, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if request, err = request.Use(wanted, "g", noon.Add(time.Duration(i)*time.Hour), noon); err != nil {
			t.Fatalf("use %d: %v", i, err)
		}
	}
	if _, err := request.Use(wanted, "g", noon, noon); err == nil || request.State != Used {
		t.Errorf("a fourth use came to %v, and the request is %s", err, request.State)
	}
	if !request.KeptFrom().Equal(noon.Add(2 * time.Hour)) {
		t.Errorf("it is of the past from %s", request.KeptFrom())
	}
	if _, err := request.Deny(carol, "", noon, "v1"); err == nil {
		t.Error("what was used is denied")
	}
}

func TestRuleCheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rule Rule
		says string // empty if it is sound
	}{
		"nothing":           {Rule{}, ""},
		"one":               {Rule{Needed: 1}, ""},
		"all":               {Rule{Needed: 10, Groups: []string{group, group + ".ns1"}, TTL: longestApproval, Uses: 100}, ""},
		"less than none":    {Rule{Needed: -1}, "approvals"},
		"too many":          {Rule{Needed: 11}, "approvals"},
		"groups alone":      {Rule{Groups: []string{group}}, "approver_group_ids"},
		"ttl alone":         {Rule{TTL: time.Hour}, "approval_ttl"},
		"uses alone":        {Rule{Uses: 1}, "approval_uses"},
		"long":              {Rule{Needed: 1, TTL: longestApproval + time.Second}, "approval_ttl"},
		"less than no uses": {Rule{Needed: 1, Uses: -1}, "approval_uses"},
		"many uses":         {Rule{Needed: 1, Uses: 101}, "approval_uses"},
		"a group's name":    {Rule{Needed: 1, Groups: []string{"leads"}}, "leads"},
		"a group twice":     {Rule{Needed: 1, Groups: []string{group, group}}, "twice"},
		"an empty group":    {Rule{Needed: 1, Groups: []string{""}}, "approver_group_ids"},
	} {
		err := test.rule.Check()
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	for reason, fine := range map[string]bool{
		"INC-7": true, "für Straße 7 – 東京": true, "": false, " ": false, "a\nb": false, "a\tb": false, "a\x00": false, "a\u202e": false, "a\u200b": false, "\xff": false,
		strings.Repeat("x", maxReason): true, strings.Repeat("x", maxReason+1): false,
	} {
		if err := CheckReason(reason); (err == nil) != fine {
			t.Errorf("%q: %v", reason, err)
		}
	}
}
