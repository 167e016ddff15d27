package revocation

import (
	"maps"
	"slices"
)

// inline is the slot of the inline policy; managed policies have those from 1 on.
const inline = 0

// policy is one of the base role's policies that this package writes.
type policy struct {
	entries  []Prefix // sorted
	attached bool     // an inline policy always is
	foreign  bool     // something else wrote it: entries are what it may deny
	stamp    Stamp    // of the write that it is from; none where something else wrote it
}

// layout is which policies there are, by slot.
type layout map[int]policy

// trusted are the prefixes that are certainly denied.
func (l layout) trusted() prefixSet {
	set := prefixSet{}
	for _, policy := range l {
		if policy.attached && !policy.foreign {
			for _, prefix := range policy.entries {
				set[prefix] = struct{}{}
			}
		}
	}
	return set
}

// slots are those that may hold entries, in order: the inline policy, what is
// attached, and what more may be.
func (l layout) slots(room Room) []int {
	slots := []int{inline}
	for slot, policy := range l {
		if slot != inline && policy.attached {
			slots = append(slots, slot)
		}
	}
	for slot := 1; len(slots) <= room.Managed; slot++ {
		if !l[slot].attached {
			slots = append(slots, slot)
		}
	}
	slices.Sort(slots)
	return slots
}

// overfull are the policies that hold more than they may by now.
func (l layout) overfull(room Room) map[int]bool {
	slots := map[int]bool{}
	for slot, policy := range l {
		if policy.attached && size(policy.entries) > entryRoom(room.document(slot)) {
			slots[slot] = true
		}
	}
	return slots
}

// arrangement is what policies are to hold, by slot. What is not in it stays as
// it is.
type arrangement map[int][]Prefix

// packing is an arrangement in the making.
type packing struct {
	slots  []int
	free   map[int]int // characters
	target arrangement
	frozen map[int]bool // policies that stay as they are
	fixed  prefixSet    // what these hold
}

func newPacking(old layout, room Room, frozen map[int]bool) *packing {
	p := &packing{slots: old.slots(room), free: map[int]int{}, target: arrangement{}, frozen: frozen, fixed: prefixSet{}}
	for _, slot := range p.slots {
		if frozen[slot] {
			p.free[slot] = 0
			maps.Copy(p.fixed, newPrefixSet(old[slot].entries))
		} else {
			p.free[slot] = entryRoom(room.document(slot))
		}
	}
	return p
}

func (p *packing) put(slot int, prefix Prefix) bool {
	if p.free[slot] < entrySize(prefix) {
		return false
	}
	p.free[slot] -= entrySize(prefix)
	p.target[slot] = append(p.target[slot], prefix)
	return true
}

// spread puts prefixes into one policy if one has room for all, else into the
// first that has room for each. It returns those that found no place.
func (p *packing) spread(prefixes []Prefix, slots []int) (left []Prefix) {
	if len(prefixes) == 0 {
		return nil
	}
	needed := size(prefixes)
	if one := slices.IndexFunc(slots, func(slot int) bool { return p.free[slot] >= needed }); one >= 0 {
		slots = slots[one : one+1]
	}
	for _, prefix := range prefixes {
		if !slices.ContainsFunc(slots, func(slot int) bool { return p.put(slot, prefix) }) {
			left = append(left, prefix)
		}
	}
	return left
}

func (p *packing) sorted() arrangement {
	for _, prefixes := range p.target {
		slices.SortFunc(prefixes, comparePrefixes)
	}
	return p.target
}

// arrange says which policy holds which prefix of a cover, for all policies.
// Prefixes that found no place are left.
//
// A prefix stays where it is, or goes where the first of those is that it
// replaces. It is shorter than they are, so that it fits, and so the order of the
// slots is mostly the order to write them in.
func arrange(old layout, room Room, cover []Prefix, revoked []Code, frozen map[int]bool) (p *packing, left []Prefix) {
	p = newPacking(old, room, frozen)
	for slot := range old {
		if !frozen[slot] {
			p.target[slot] = nil
		}
	}
	needed := uncovered(cover, revoked, p.fixed)
	homeless := p.settle(needed, p.homes(old, needed))
	return p, p.spread(homeless, p.slots)
}

// uncovered are the prefixes that some revoked code needs beyond the set.
func uncovered(cover []Prefix, revoked []Code, set prefixSet) []Prefix {
	var needed []Prefix
	for _, prefix := range cover {
		if slices.ContainsFunc(below(revoked, prefix.text), func(code Code) bool { return !set.covers(code) }) {
			needed = append(needed, prefix)
		}
	}
	return needed
}

// homes are the policies in force whose entries the prefixes equal or replace: the
// one that holds the very prefix, else the first.
func (p *packing) homes(old layout, prefixes []Prefix) map[Prefix]int {
	set := newPrefixSet(prefixes)
	homes := map[Prefix]int{}
	exact := map[Prefix]bool{}
	note := func(prefix Prefix, slot int, same bool) {
		if _, found := homes[prefix]; !found || same && !exact[prefix] {
			homes[prefix], exact[prefix] = slot, same
		}
	}
	for _, slot := range p.slots {
		if !old[slot].attached || p.frozen[slot] {
			continue
		}
		for _, entry := range old[slot].entries {
			if prefix, found := set.above(entry.text); found {
				note(prefix, slot, prefix == entry)
				continue
			}
			// The entry is wider than it may be, as where somebody else wrote it.
			from, _ := slices.BinarySearchFunc(prefixes, entry, comparePrefixes)
			for _, prefix := range prefixes[from:] {
				if common(prefix.text, entry.text) < len(entry.text) {
					break
				}
				note(prefix, slot, false)
			}
		}
	}
	return homes
}

// settle puts prefixes into their homes and returns those without one.
func (p *packing) settle(prefixes []Prefix, homes map[Prefix]int) (homeless []Prefix) {
	for _, prefix := range prefixes {
		if slot, found := homes[prefix]; !found || !p.put(slot, prefix) {
			homeless = append(homeless, prefix)
		}
	}
	return homeless
}

// tidy empties the last policies as far as those before have room.
func (p *packing) tidy() {
	for i := len(p.slots) - 1; i > 0; i-- {
		slot := p.slots[i]
		if len(p.target[slot]) == 0 {
			continue
		}
		trial := &packing{free: maps.Clone(p.free), target: arrangement{}}
		for before, prefixes := range p.target {
			trial.target[before] = slices.Clone(prefixes)
		}
		if len(trial.spread(p.target[slot], p.slots[:i])) > 0 {
			return
		}
		p.free, p.target = trial.free, trial.target
		p.free[slot], p.target[slot] = entryRoom(ManagedRoom), nil
	}
}

// extend is an arrangement that adds what covers the codes that nothing in force
// covers yet, and changes no other policy. It reports whether all found a place.
func extend(old layout, room Room, cover []Prefix, revoked []Code) (*packing, bool) {
	fresh := uncovered(cover, revoked, old.trusted())
	replaced := newPrefixSet(fresh)
	p := newPacking(old, room, nil)
	kept := map[int][]Prefix{}
	for _, slot := range p.slots {
		if old[slot].foreign {
			p.free[slot] = 0
		}
		for _, entry := range old[slot].entries {
			if _, found := replaced.above(entry.text); !found && old[slot].attached && len(below(revoked, entry.text)) > 0 {
				kept[slot] = append(kept[slot], entry)
				p.free[slot] -= entrySize(entry)
			}
		}
	}
	if len(p.spread(p.settle(fresh, p.homes(old, fresh)), p.slots)) > 0 {
		return nil, false
	}
	for slot := range p.target {
		p.target[slot] = append(p.target[slot], kept[slot]...)
	}
	return p, true
}
