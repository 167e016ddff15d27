package revocation

import "slices"

// plan is what a commit does.
type plan struct {
	steps []step
	// collateral are the live codes that it ends early, since the policies are full.
	collateral []Code
	// left are prefixes of the cover that not even that made room for.
	left []Prefix
}

// compute plans the way from what is there to the cover of the revoked codes,
// sorted and disjoint from the live ones as those are. An urgent commit makes the
// calls that the codes need which nothing in force covers; one that isn't leaves
// the policies exactly and tidily as they ought to be.
func compute(old layout, room Room, revoked, live []Code, urgent bool) (plan, error) {
	wanted := cover(revoked, live)
	if urgent && len(uncovered(wanted, revoked, old.trusted())) == 0 {
		return plan{}, nil
	}
	packing, left := arrange(old, room, wanted, revoked)
	var ended []Code
	if len(left) > 0 {
		packing, left, revoked, ended = squeeze(old, room, wanted, revoked, live)
	} else if !urgent {
		packing.tidy()
	}
	target := packing.sorted()
	steps, err := order(old, target, revoked, room)
	if len(ended) == 0 && len(left) == 0 && (err != nil || urgent && len(steps) > 1) {
		// The rest can wait until the next check.
		if packing, fits := extend(old, room, wanted, revoked); fits {
			target = packing.sorted()
			steps, err = order(old, target, revoked, room)
		}
	}
	if err != nil {
		return plan{}, err
	}
	// A session is ended early only where that serves.
	held := prefixSet{}
	for _, entries := range target {
		for _, prefix := range entries {
			held[prefix] = struct{}{}
		}
	}
	result := plan{steps: steps, left: left}
	for _, code := range ended {
		if held.covers(code) {
			result.collateral = append(result.collateral, code)
		}
	}
	return result, nil
}

// squeeze arranges a cover that doesn't fit as it is: it widens prefixes, first to
// what all policies hold together, then to what they hold however the prefixes
// fall, and in the end leaves out what has no place. It returns the codes that
// count as revoked then, and those of them that were live.
func squeeze(old layout, room Room, wanted []Prefix, revoked, live []Code) (p *packing, left []Prefix, all, ended []Code) {
	slots := old.slots(room)
	total := 0
	for _, slot := range slots {
		total += entryRoom(room.document(slot))
	}
	waste := len(slots) * entrySize(Prefix{text: alphabet[:codeLength]})
	var wide []Prefix
	for _, characters := range []int{total, max(total-waste, 0)} {
		wide = widen(wanted, live, characters)
		ended = touched(wide, live)
		all = sorted(slices.Concat(revoked, ended))
		wide = Cover(all, live)
		if p, left = arrange(old, room, wide, all); len(left) == 0 {
			return p, nil, all, ended
		}
	}
	p, left = arrangeWhatFits(old, room, wide, all)
	return p, left, all, ended
}
