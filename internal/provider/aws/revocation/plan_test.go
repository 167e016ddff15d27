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
		step.done(at, testStamp)
		now := attachedPrefixes(at)
		for _, code := range revoked {
			if before.covers(code) && !now.covers(code) {
				t.Fatalf("step %d (%v on %d) uncovers %s", i, step.call, step.slot, code)
			}
		}
		if len(testStamp.document(at[step.slot].entries)) > room.document(step.slot) && step.call <= create {
			t.Fatalf("the document of slot %d has %d characters", step.slot, len(testStamp.document(at[step.slot].entries)))
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
	for range 100 {
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

// The calls of an urgent commit are those that its codes need, even where the live
// sessions have become so few that every policy could be shorter.
func TestUrgent(t *testing.T) {
	random := newRandom(12)
	revoked, live := scattered(random, 4000, 1500)
	at := planAll(t, layout{}, roomOfRole, revoked, live)
	random.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	more, rest := sorted(append(revoked, live[0])), sorted(live[1:1500])
	if all := planned(t, at, roomOfRole, more, rest, false); len(all.steps) < 3 {
		t.Fatalf("%d calls for all policies", len(all.steps))
	}
	result := planned(t, at, roomOfRole, more, rest, true)
	if len(result.steps) != 1 {
		t.Errorf("%d calls", len(result.steps))
	}
	checkDenied(t, result.layout, more, rest)
	if again := planned(t, result.layout, roomOfRole, more, rest[:1000], true); len(again.steps) != 0 {
		t.Errorf("%d calls although everything is denied", len(again.steps))
	}
	single := planAll(t, layout{}, roomOfRole, revoked[:1], live)
	if again := planned(t, single, roomOfRole, revoked[:1], nil, true); len(again.steps) != 0 {
		t.Errorf("%d calls although everything is denied", len(again.steps))
	}
}

// What is left of two policies goes into one.
func TestTidy(t *testing.T) {
	revoked, live := scattered(newRandom(13), 3000, 800)
	at := planAll(t, layout{}, roomOfRole, revoked, live)
	second := newPrefixSet(at[1].entries)
	rest := slices.DeleteFunc(slices.Clone(revoked), func(code Code) bool { return !second.covers(code) })
	if len(at) != 2 || len(rest) == 0 {
		t.Fatalf("%d policies, %d codes in the second", len(at), len(rest))
	}
	result := planned(t, at, roomOfRole, rest, live, false)
	if len(result.layout) != 1 || !result.layout[inline].attached {
		t.Errorf("%d policies", len(result.layout))
	}
	checkDenied(t, result.layout, rest, live)
}

// plainCode is a code that begins with text.
func plainCode(text string) Code {
	return Code{(text + "aaaaaaaaaaaaaaaaaaaaaaaaaaaa")[:codeLength]}
}

// Entries that have to change places between two policies: one holds both for a
// moment, or all stays as it is where there is no room for that.
func TestCircle(t *testing.T) {
	revoked := []Code{plainCode("abcdefgha"), plainCode("abcdefghb"), plainCode("bcdefghij")}
	room := Room{Inline: frameSize + 20, Managed: 1}
	for fillers, calls := range map[int]int{0: 3, entryRoom(ManagedRoom)/14 - 1: 0} {
		var more []Code
		for i := range fillers {
			more = append(more, plainCode("cc"+part("filler", "", i, 10)))
		}
		more = sorted(more)
		at := layout{
			inline: {entries: []Prefix{{"abcdefgha"}, {"bcdefghi"}}, attached: true},
			1:      {entries: slices.Concat([]Prefix{{"abcdefghb"}}, cover(more, nil)), attached: true},
		}
		all := sorted(slices.Concat(revoked, more))
		result := planned(t, at, room, all, nil, false)
		checkDenied(t, result.layout, all, nil)
		if len(result.steps) != calls {
			t.Errorf("with %d fillers %d calls, want %d", fillers, len(result.steps), calls)
		}
	}
}

// Where prefixes fit by their characters but not as they fall, one is widened.
func TestWaste(t *testing.T) {
	var revoked, live []Code
	for i := range 354 { // of 17 characters each: one fits inline, 352 into the other
		pair := part("pair", "", i, 10)
		revoked, live = append(revoked, plainCode(pair+"a")), append(live, plainCode(pair+"b"))
	}
	room := Room{Inline: frameSize + 24, Managed: 1}
	result := planned(t, layout{}, room, sorted(revoked), sorted(live), true)
	if len(result.left) > 0 || len(result.collateral) == 0 || len(result.collateral) > 10 {
		t.Errorf("%d left, %d ended early", len(result.left), len(result.collateral))
	}
	checkDenied(t, result.layout, revoked, nil)
}

// What only tidies up can't keep a session alive by failing.
func TestWhatKillsComesFirst(t *testing.T) {
	kept, expired, managed, fresh := plainCode("abcdefgh"), plainCode("bcdefghi"), plainCode("cdefghij"), plainCode("defghijk")
	at := layout{
		inline: {entries: []Prefix{kept.prefix(8), expired.prefix(8)}, attached: true},
		1:      {entries: []Prefix{managed.prefix(8)}, attached: true},
	}
	result := planned(t, at, Room{Inline: frameSize + 20, Managed: 1}, []Code{kept, managed, fresh}, nil, false)
	if len(result.steps) != 2 || result.steps[0].slot != 1 || result.steps[1].slot != inline {
		t.Errorf("steps %v", result.steps)
	}
}

// Several new entries go where all have room, in one call.
func TestAllInOne(t *testing.T) {
	first, second := plainCode("abcdefgh"), plainCode("bcdefghi")
	at := layout{
		inline: {entries: []Prefix{first.prefix(8)}, attached: true},
		1:      {entries: []Prefix{second.prefix(8)}, attached: true},
	}
	revoked := []Code{first, second, plainCode("cdefghij"), plainCode("defghijk"), plainCode("efghijkl")}
	if result := planned(t, at, Room{Inline: frameSize + 30, Managed: 1}, revoked, nil, true); len(result.steps) != 1 {
		t.Errorf("steps %v", result.steps)
	}
}
