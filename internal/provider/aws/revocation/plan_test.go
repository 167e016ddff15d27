package revocation

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// roomOfRole is a role's without policies of its own.
var roomOfRole = Room{Inline: 10240, Managed: 10}

// planAll makes the calls of a plan and returns what is there then. After each
// it checks that what was covered still is.
func planAll(t testing.TB, old layout, room Room, revoked, live []Code) layout {
	t.Helper()
	return planned(t, old, room, revoked, live, false).layout
}

type outcome struct {
	plan
	layout layout
}

func planned(t testing.TB, old layout, room Room, revoked, live []Code, urgent bool) outcome {
	t.Helper()
	next, err := compute(old, room, revoked, live, urgent)
	if err != nil {
		t.Fatal(err)
	}
	before := attachedPrefixes(old)
	at := maps.Clone(old)
	for i, step := range next.steps {
		step.done(at)
		now := attachedPrefixes(at)
		for _, code := range revoked {
			if before.covers(code) && !now.covers(code) {
				t.Fatalf("step %d (%v on %d) uncovers %s", i, step.call, step.slot, code)
			}
		}
		if len(Document(at[step.slot].entries)) > room.document(step.slot) && step.call <= create {
			t.Fatalf("the document of slot %d has %d characters", step.slot, len(Document(at[step.slot].entries)))
		}
	}
	attached := 0
	for slot, policy := range at {
		if slot != inline && policy.attached {
			attached++
		}
	}
	if attached > room.Managed {
		t.Fatalf("%d policies attached, room for %d", attached, room.Managed)
	}
	return outcome{next, at}
}

func attachedPrefixes(at layout) prefixSet {
	set := prefixSet{}
	for _, policy := range at {
		if policy.attached {
			for _, prefix := range policy.entries {
				set[prefix] = struct{}{}
			}
		}
	}
	return set
}

func checkDenied(t testing.TB, at layout, revoked, live []Code) {
	t.Helper()
	set := attachedPrefixes(at)
	for _, code := range revoked {
		if !set.covers(code) {
			t.Fatalf("revoked %s is not denied", code)
		}
	}
	for _, code := range live {
		if set.covers(code) {
			t.Fatalf("live %s is denied", code)
		}
	}
}

// 2,000 single revocations among 5,000 fit without ending anybody else, and do so
// through rounds of expiry and new sessions; a single one more is one call.
func TestManySingleRevocations(t *testing.T) {
	random := newRandom(9)
	revoked, live := scattered(random, 5000, 2000)
	at := layout{}
	for round := range 10 {
		result := planned(t, at, roomOfRole, revoked, live, round%2 == 0)
		if len(result.collateral) > 0 || len(result.left) > 0 {
			t.Fatalf("round %d: %d ended early, %d without room", round, len(result.collateral), len(result.left))
		}
		at = result.layout
		checkDenied(t, at, revoked, live)
		entries := 0
		for _, policy := range at {
			entries += len(policy.entries)
		}
		t.Logf("round %d: %d calls, %d policies, %d prefixes", round, len(result.steps), len(at), entries)

		more := sorted(append(revoked[:len(revoked):len(revoked)], live[round]))
		if one := planned(t, at, roomOfRole, more, slices.Delete(slices.Clone(live), round, round+1), true); len(one.steps) != 1 {
			t.Errorf("round %d: one more revocation takes %d calls", round, len(one.steps))
		}

		// A third of both expires, and as many are minted and revoked.
		random.Shuffle(len(revoked), func(i, j int) { revoked[i], revoked[j] = revoked[j], revoked[i] })
		random.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
		denied := attachedPrefixes(at)
		var fresh []Code
		for len(fresh) < 1600 {
			code := randomCode(random, fmt.Sprint("role-", random.IntN(20)), fmt.Sprint("task-", random.IntN(200)))
			if !denied.covers(code) {
				fresh = append(fresh, code)
			}
		}
		revoked = sorted(append(revoked[:1400:1400], live[:600]...))
		live = sorted(append(live[600:2000:2000], fresh...))
	}
	result := planned(t, at, roomOfRole, nil, live, false)
	if len(result.layout) != 0 {
		t.Errorf("%d policies are left where nothing is revoked", len(result.layout))
	}
}

// Whatever the rooms, and whichever policies are there already: what was covered
// stays so through every call, and in the end all is covered with exactly the
// collateral that was reported, or reported as left.
func TestPlansOfAllKinds(t *testing.T) {
	random := newRandom(10)
	var widened, short int
	for range 300 {
		revoked, live := scattered(random, 50+random.IntN(1200), 30)
		at := layout{}
		for range 6 {
			room := Room{Inline: []int{0, 150, 400, 2048, 10240}[random.IntN(5)], Managed: random.IntN(4)}
			attached := 0
			for slot, policy := range at {
				if slot != inline && policy.attached {
					attached++
				}
			}
			room.Managed = max(room.Managed, attached)
			urgent := random.IntN(2) == 0
			result := planned(t, at, room, revoked, live, urgent)
			at = result.layout
			ended := newCodeSet(result.collateral)
			rest := slices.DeleteFunc(slices.Clone(live), func(code Code) bool { return ended[code] })
			if len(result.left) == 0 {
				checkDenied(t, at, revoked, nil)
			} else {
				short++
			}
			checkDenied(t, at, result.collateral, rest)
			if len(ended) > 0 {
				widened++
			}
			revoked = sorted(append(revoked, result.collateral...))
			// Some expire, some are revoked.
			random.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
			revoked = slices.DeleteFunc(revoked, func(Code) bool { return random.IntN(4) == 0 })
			cut := random.IntN(len(rest)/3 + 1)
			revoked = sorted(append(revoked, rest[:cut]...))
			live = sorted(rest[cut:])
		}
	}
	t.Logf("%d plans widened, %d without room", widened, short)
	if widened == 0 || short == 0 {
		t.Error("not every kind of plan was made")
	}
}

func newCodeSet(codes []Code) map[Code]bool {
	set := map[Code]bool{}
	for _, code := range codes {
		set[code] = true
	}
	return set
}

// A policy that others' policies have squeezed below what it holds stays as it is
// where there is no other place.
func TestRoomShrinks(t *testing.T) {
	revoked, live := scattered(newRandom(11), 600, 200)
	at := planAll(t, layout{}, Room{Inline: 10240}, revoked, live)
	result := planned(t, at, Room{Inline: 300}, revoked, live, false)
	checkDenied(t, result.layout, revoked, nil)
	result = planned(t, at, Room{Inline: 300, Managed: 1}, revoked, live, false)
	if len(result.collateral) > 0 || len(result.left) > 0 {
		t.Errorf("%d ended early, %d left, although a managed policy has room", len(result.collateral), len(result.left))
	}
	checkDenied(t, result.layout, revoked, live)
}
