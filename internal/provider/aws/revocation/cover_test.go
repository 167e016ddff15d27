package revocation

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// smallCodes are distinct codes that differ in few characters, around the
// shortest prefix.
func smallCodes(r *rand.Rand, count int) []Code {
	seen := map[Code]bool{}
	for len(seen) < count {
		text := []byte(strings.Repeat("a", codeLength))
		for _, at := range []int{6, 7, 8, 9, 11, 27} {
			text[at] = alphabet[r.IntN(2)]
		}
		seen[Code{string(text)}] = true
	}
	codes := make([]Code, 0, count)
	for code := range seen {
		codes = append(codes, code)
	}
	slices.SortFunc(codes, compareCodes) // the map's order is no order
	r.Shuffle(len(codes), func(i, j int) { codes[i], codes[j] = codes[j], codes[i] })
	return codes
}

// candidate is a prefix as a brute force sees it.
type candidate struct {
	prefix        Prefix
	revoked, live uint64 // bits of the codes that it covers
}

// candidates are all prefixes that cover a revoked code; of those that cover the
// same codes the shortest.
func candidates(revoked, live []Code) []candidate {
	shortestOf := map[[2]uint64]Prefix{}
	for _, code := range revoked {
		for length := shortest; length <= codeLength; length++ {
			prefix := code.prefix(length)
			var key [2]uint64
			for kind, codes := range [][]Code{revoked, live} {
				for i, code := range codes {
					if prefix.Covers(code) {
						key[kind] |= 1 << i
					}
				}
			}
			if known, found := shortestOf[key]; !found || len(prefix.text) < len(known.text) {
				shortestOf[key] = prefix
			}
		}
	}
	var all []candidate
	for key, prefix := range shortestOf {
		all = append(all, candidate{prefix, key[0], key[1]})
	}
	return all
}

func TestCoverIsMinimal(t *testing.T) {
	random := newRandom(3)
	for round := range 3000 {
		codes := smallCodes(random, 1+random.IntN(14))
		cut := 1 + random.IntN(min(len(codes), 5))
		revoked, live := codes[:cut], codes[cut:]
		got := Cover(revoked, live)
		checkCover(t, got, revoked, live)

		best := len(revoked) + 1
		all := slices.DeleteFunc(candidates(revoked, live), func(one candidate) bool { return one.live != 0 })
		for choice := range uint64(1) << len(all) {
			var covered uint64
			for i, one := range all {
				if choice>>i&1 == 1 {
					covered |= one.revoked
				}
			}
			if bits.OnesCount64(covered) == len(revoked) {
				best = min(best, bits.OnesCount64(choice))
			}
		}
		if len(got) != best {
			t.Fatalf("round %d: %v for revoked %v, live %v: %d prefixes would do", round, got, revoked, live, best)
		}
	}
}

// checkCover checks what every cover must be.
func checkCover(t *testing.T, prefixes []Prefix, revoked, live []Code) {
	t.Helper()
	set := newPrefixSet(prefixes)
	for _, code := range revoked {
		if !set.covers(code) {
			t.Fatalf("%s is not covered by %v", code, prefixes)
		}
	}
	for _, code := range live {
		if prefix, found := set.above(code.text); found {
			t.Fatalf("live %s is covered by %s", code, prefix)
		}
	}
	for i, prefix := range prefixes {
		if len(prefix.text) < 8 {
			t.Fatalf("%s is shorter than mark and role part", prefix)
		}
		if i > 0 && (prefixes[i-1].text >= prefix.text || strings.HasPrefix(prefix.text, prefixes[i-1].text)) {
			t.Fatalf("%v are not sorted, or one begins another", prefixes)
		}
		// One character less would be too wide.
		if shorter := prefix.text[:len(prefix.text)-1]; len(prefix.text) > 8 && !slices.ContainsFunc(live, func(code Code) bool { return strings.HasPrefix(code.text, shorter) }) {
			t.Fatalf("%s could be shorter", prefix)
		}
	}
}

func TestCoverOfNothing(t *testing.T) {
	codes := smallCodes(newRandom(4), 5)
	if got := Cover(nil, codes); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// A whole role or task is one prefix, however many sessions it has.
func TestCoverOfWhole(t *testing.T) {
	random := newRandom(5)
	var role, task, rest []Code
	for i := range 500 {
		task = append(task, randomCode(random, "upload", "T-1"))
		role = append(role, randomCode(random, "download", fmt.Sprint(i)))
		rest = append(rest, randomCode(random, "upload", fmt.Sprint("T-", 2+i%7)))
	}
	got := Cover(slices.Concat(role, task), rest)
	checkCover(t, got, slices.Concat(role, task), rest)
	if len(got) != 2 || max(len(got[0].text), len(got[1].text)) > taskEnd {
		t.Errorf("got %v", got)
	}
}

func TestCodeThatIsBoth(t *testing.T) {
	codes := smallCodes(newRandom(6), 6)
	checkCover(t, Cover(codes[:3], codes[2:]), codes[:3], codes[3:])
}

func TestWiden(t *testing.T) {
	random := newRandom(7)
	var got, best, worse int
	for range 1500 {
		codes := smallCodes(random, 6+random.IntN(14))
		cut := 2 + random.IntN(4)
		revoked, live := sorted(codes[:cut]), sorted(codes[cut:])
		minimal := cover(revoked, live)
		room := entrySize(Prefix{codes[0].text[:shortest]}) + random.IntN(size(minimal))
		wide := widen(minimal, live, room)
		set := newPrefixSet(wide)
		for _, code := range revoked {
			if !set.covers(code) {
				t.Fatalf("%s is not covered by %v", code, wide)
			}
		}
		optimum := optimalCollateral(candidates(revoked, live), len(revoked), room)
		switch ended := len(touched(wide, live)); {
		case optimum < 0 && size(wide) <= room:
			t.Fatalf("%v fits into %d, which a brute force denies", wide, room)
		case optimum < 0:
			for _, prefix := range wide {
				if len(prefix.text) != shortest {
					t.Fatalf("%v could be wider", wide)
				}
			}
		case size(wide) > room:
			t.Fatalf("%v has %d characters, room for %d", wide, size(wide), room)
		case ended < optimum:
			t.Fatalf("%v touches %d, a brute force %d", wide, ended, optimum)
		default:
			got, best = got+ended, best+optimum
			if ended > optimum {
				worse++
			}
		}
	}
	t.Logf("%d live sessions touched, %d by the best choices, %d choices worse", got, best, worse)
	if got > best+best/20 {
		t.Errorf("%d live sessions are touched where %d would do", got, best)
	}
}

// optimalCollateral is the least number of live codes that prefixes within room
// touch, or -1.
func optimalCollateral(all []candidate, revoked, room int) int {
	best := -1
	var search func(from int, covered, touched uint64, room int)
	search = func(from int, covered, touched uint64, room int) {
		if room < 0 || best >= 0 && bits.OnesCount64(touched) >= best {
			return
		}
		if bits.OnesCount64(covered) == revoked {
			best = bits.OnesCount64(touched)
			return
		}
		for i := from; i < len(all); i++ {
			if all[i].revoked&^covered != 0 {
				search(i+1, covered|all[i].revoked, touched|all[i].live, room-entrySize(all[i].prefix))
			}
		}
	}
	search(0, 0, 0, room)
	return best
}

// scattered are sessions of many roles and tasks, of which some are revoked one
// by one.
func scattered(r *rand.Rand, sessions, revoked int) (ended, live []Code) {
	codes := make([]Code, sessions)
	for i := range codes {
		codes[i] = randomCode(r, fmt.Sprint("role-", r.IntN(20)), fmt.Sprint("task-", r.IntN(200)))
	}
	return sorted(codes[:revoked]), sorted(codes[revoked:])
}

func BenchmarkCover(b *testing.B) {
	revoked, live := scattered(newRandom(8), 5000, 2000)
	for b.Loop() {
		Cover(revoked, live)
	}
}

func BenchmarkPlan(b *testing.B) {
	revoked, live := scattered(newRandom(8), 5000, 2000)
	old, room := planAll(b, layout{}, roomOfRole, revoked, live), roomOfRole
	more := sorted(append(revoked[:len(revoked):len(revoked)], live[17]))
	rest := slices.Delete(slices.Clone(live), 17, 18)
	for b.Loop() {
		if _, err := compute(old, room, more, rest, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWiden(b *testing.B) {
	revoked, live := scattered(newRandom(8), 5000, 2000)
	minimal := cover(revoked, live)
	for b.Loop() {
		widen(minimal, live, 10240)
	}
}
