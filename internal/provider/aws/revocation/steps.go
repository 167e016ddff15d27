package revocation

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
)

// step is one call that changes a policy.
type step struct {
	call    call
	slot    int
	entries []Prefix
}

type call int

const (
	put call = iota // the inline policy, or a new version of a managed one
	create
	attach
	detach
	remove
)

// run makes the call. What it writes bears the stamp.
func (s step) run(ctx context.Context, policies Policies, stamp Stamp) error {
	switch {
	case s.call == put && s.slot == inline:
		return policies.PutInline(ctx, stamp.document(s.entries))
	case s.call == remove && s.slot == inline:
		return policies.DeleteInline(ctx)
	case s.call == put:
		return policies.Update(ctx, s.slot, stamp.document(s.entries))
	case s.call == create:
		return policies.Create(ctx, s.slot, stamp.document(s.entries))
	case s.call == attach:
		return policies.Attach(ctx, s.slot)
	case s.call == detach:
		return policies.Detach(ctx, s.slot)
	case s.call == remove:
		return policies.Delete(ctx, s.slot)
	default:
		return errors.New("revocation: no such call")
	}
}

// done changes the layout as the call has changed what is there.
func (s step) done(at layout, stamp Stamp) {
	held := at[s.slot]
	switch s.call {
	case put, create:
		at[s.slot] = policy{entries: s.entries, attached: held.attached || s.slot == inline, stamp: stamp}
	case attach, detach:
		held.attached = s.call == attach
		at[s.slot] = held
	case remove:
		delete(at, s.slot)
	}
}

// change is the calls that make one policy what it is to be.
func change(slot int, old layout, entries []Prefix) (steps []step) {
	held, exists := old[slot]
	same := exists && !held.foreign && slices.Equal(held.entries, entries)
	switch {
	case len(entries) == 0 && !exists:
	case len(entries) == 0:
		if slot != inline && held.attached {
			steps = append(steps, step{call: detach, slot: slot})
		}
		return append(steps, step{call: remove, slot: slot})
	case slot != inline && !exists:
		steps = append(steps, step{call: create, slot: slot, entries: entries})
	case !same:
		steps = append(steps, step{call: put, slot: slot, entries: entries})
	}
	if slot != inline && len(entries) > 0 && !held.attached {
		steps = append(steps, step{call: attach, slot: slot})
	}
	return steps
}

var errNoOrder = errors.New("revocation: no order of writes keeps every revoked session denied")

// order lists the calls that lead from the old layout to the target, one policy
// after the other, so that no revoked code is uncovered in between: what moves is
// added to its new policy before it leaves the old one.
func order(old layout, target arrangement, revoked []Code, room Room) ([]step, error) {
	old = maps.Clone(old)
	var pending []int
	for slot, entries := range target {
		if len(change(slot, old, entries)) > 0 {
			pending = append(pending, slot)
		}
	}
	// What only loses entries kills nobody: it comes last.
	loses := func(slot int) int {
		held := newPrefixSet(old[slot].entries)
		if old[slot].attached && !slices.ContainsFunc(target[slot], func(prefix Prefix) bool { _, found := held[prefix]; return !found }) {
			return 1
		}
		return 0
	}
	slices.SortFunc(pending, func(a, b int) int { return cmp.Or(cmp.Compare(loses(a), loses(b)), cmp.Compare(a, b)) })

	guard := newGuard(old, target, revoked)
	var steps []step
	write := func(slot int, entries []Prefix) {
		for _, step := range change(slot, old, entries) {
			steps = append(steps, step)
			step.done(old, Stamp{})
		}
	}
	for len(pending) > 0 {
		if next := slices.IndexFunc(pending, guard.safe); next >= 0 {
			write(pending[next], target[pending[next]])
			guard.written(pending[next])
			pending = slices.Delete(pending, next, next+1)
			continue
		}
		// Each waits for another. One that has room for what it is to hold beside
		// what it holds breaks the circle.
		next := slices.IndexFunc(pending, func(slot int) bool {
			both := union(old[slot].entries, target[slot], revoked)
			return old[slot].attached && !slices.Equal(both, old[slot].entries) && size(both) <= entryRoom(room.document(slot))
		})
		if next < 0 {
			return nil, errNoOrder
		}
		write(pending[next], union(old[pending[next]].entries, target[pending[next]], revoked))
		guard.added(pending[next])
	}
	return steps, nil
}

// union is the new entries, and those old ones that a revoked code needs beside
// them.
func union(old, entries []Prefix, revoked []Code) []Prefix {
	set := newPrefixSet(entries)
	both := slices.Clone(entries)
	for _, prefix := range old {
		if _, found := set.above(prefix.text); !found && len(below(revoked, prefix.text)) > 0 {
			both = append(both, prefix)
		}
	}
	slices.SortFunc(both, comparePrefixes)
	return both
}

// guard knows for each revoked code that is covered which policies cover it, now
// and at the end.
type guard struct {
	bits        map[int]uint64
	now, target []uint64 // by code, a bit for each slot
}

func newGuard(old layout, target arrangement, revoked []Code) *guard {
	g := &guard{bits: map[int]uint64{}}
	now, end := map[Prefix]uint64{}, map[Prefix]uint64{}
	note := func(in map[Prefix]uint64, slot int, prefixes []Prefix) {
		if g.bits[slot] == 0 {
			g.bits[slot] = 1 << len(g.bits)
		}
		for _, prefix := range prefixes {
			in[prefix] |= g.bits[slot]
		}
	}
	for slot, held := range old {
		if held.attached {
			note(now, slot, held.entries)
		}
		if _, changes := target[slot]; !changes && held.attached {
			note(end, slot, held.entries)
		}
	}
	for slot, entries := range target {
		note(end, slot, entries)
	}
	for _, code := range revoked {
		var before, after uint64
		for length := shortest; length <= codeLength; length++ {
			before |= now[code.prefix(length)]
			after |= end[code.prefix(length)]
		}
		if before != 0 {
			g.now, g.target = append(g.now, before), append(g.target, after)
		}
	}
	return g
}

// safe says whether writing a policy leaves every code covered.
func (g *guard) safe(slot int) bool {
	bit := g.bits[slot]
	for i, now := range g.now {
		if now&^bit|g.target[i]&bit == 0 {
			return false
		}
	}
	return true
}

// written notes that a policy holds what it is to hold.
func (g *guard) written(slot int) {
	bit := g.bits[slot]
	for i, now := range g.now {
		g.now[i] = now&^bit | g.target[i]&bit
	}
}

// added notes that a policy holds that beside what it held.
func (g *guard) added(slot int) {
	bit := g.bits[slot]
	for i := range g.now {
		g.now[i] |= g.target[i] & bit
	}
}
