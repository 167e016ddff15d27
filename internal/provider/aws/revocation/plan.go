package revocation

import (
	"errors"
	"maps"
	"slices"
)

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
	next, err := computeBut(old, room, revoked, live, urgent, nil)
	if errors.Is(err, errNoOrder) {
		// A policy that holds more than it may by now, since others have used up the
		// role's room, can stay as it is: it still denies.
		next, err = computeBut(old, room, revoked, live, urgent, old.overfull(room))
	}
	return next, err
}

func computeBut(old layout, room Room, revoked, live []Code, urgent bool, frozen map[int]bool) (plan, error) {
	wanted := cover(revoked, live)
	if urgent && len(uncovered(wanted, revoked, old.trusted())) == 0 {
		return plan{}, nil
	}
	packing, left := arrange(old, room, wanted, revoked, frozen)
	var ended []Code
	if len(left) > 0 {
		packing, left, revoked, ended = squeeze(old, room, wanted, revoked, live, frozen)
	} else if !urgent {
		packing.tidy()
	}
	target, fixed := packing.sorted(), packing.fixed
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
	result := plan{steps: steps, left: left}
	// A session is ended early only where that serves.
	held := newPrefixSet(slices.Collect(maps.Values(target))...)
	for _, code := range ended {
		if held.covers(code) || fixed.covers(code) {
			result.collateral = append(result.collateral, code)
		}
	}
	return result, nil
}

// squeeze arranges a cover that doesn't fit as it is. It widens prefixes: to what
// all policies hold together if they fall well, else to a little less, as much as
// may be wasted at the ends of documents. What finds no place even so is left. It
// returns the codes that count as revoked then, and those of them that were live.
func squeeze(old layout, room Room, wanted []Prefix, revoked, live []Code, frozen map[int]bool) (p *packing, left []Prefix, all, ended []Code) {
	empty := newPacking(old, room, frozen)
	wanted = uncovered(wanted, revoked, empty.fixed)
	try := func(characters int) (fits bool) {
		wide := widen(wanted, live, characters)
		ended = touched(wide, live)
		all = sorted(slices.Concat(revoked, ended))
		p, left = arrange(old, room, Cover(all, live), all, frozen)
		return len(left) == 0
	}
	most := 0
	for _, characters := range empty.free {
		most += characters
	}
	if try(most) {
		return p, left, all, ended
	}
	least := max(most-len(empty.slots)*entrySize(Prefix{text: alphabet[:codeLength]}), 0)
	if !try(least) {
		return p, left, all, ended
	}
	for least+1 < most {
		if middle := (least + most) / 2; try(middle) {
			least = middle
		} else {
			most = middle
		}
	}
	try(least)
	return p, left, all, ended
}
