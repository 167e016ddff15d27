package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Query names grants by what they have in common. An empty field asks nothing.
type Query struct {
	Role, Task, EntityID, Target, Base, Installed string
}

func (q Query) values() [keys]string {
	return [keys]string{byRole: q.Role, byTask: q.Task, byEntity: q.EntityID, byTarget: q.Target, byBase: q.Base, byInstalled: q.Installed}
}

// Counts counts grants while the index is held for an admission.
type Counts struct {
	x   *Index
	now time.Time
}

// Live is Index.Taken. It looks at no open grant where at most one field is set.
func (c Counts) Live(query Query) int { return c.x.taken(query, c.now) }

// Taken counts what takes up the limits of a query: its open grants, and the unexpired records that can't be read and
// show its names all the same.
func (x *Index) Taken(query Query, now time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	return x.taken(query, now)
}

func (x *Index) taken(query Query, now time.Time) int {
	count := x.count(query)
	for _, one := range x.unreadable {
		if now.Before(one.ExpiresBy) && one.named.within(query) {
			count++
		}
	}
	return count
}

// within says whether a query names all that another one does.
func (q Query) within(other Query) bool {
	own := q.values()
	for by, name := range other.values() {
		if name != "" && own[by] != name {
			return false
		}
	}
	return true
}

// Count counts the open grants that the query names: those that a clock which is ahead calls expired, too.
func (x *Index) Count(query Query, now time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	return x.count(query)
}

// Live returns the open grants that the query names, see Grant.Open, by their latest ends: those that a clock which is
// ahead calls expired, too. What changes meanwhile may or may not be among them.
func (x *Index) Live(query Query, now time.Time) []Grant {
	return x.list(query, now, func(e *entry) bool { return e.counted })
}

// Oldest returns the open grant of those that the query names which was issued
// first, and false where none is open.
func (x *Index) Oldest(query Query, now time.Time) (Grant, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	members, _ := x.smallest(query)
	var oldest *entry
	for _, e := range members {
		if !e.counted || !e.matches(query) {
			continue
		}
		if oldest == nil || e.issuedAt < oldest.issuedAt || (e.issuedAt == oldest.issuedAt && e.id < oldest.id) {
			oldest = e
		}
	}
	if oldest == nil {
		return Grant{}, false
	}
	return oldest.grant(), true
}

// Open returns the grants that the query names and that aren't finished, by
// their latest ends: those that live, and those that are still to be ended.
func (x *Index) Open(query Query, now time.Time) []Grant {
	return x.list(query, now, func(e *entry) bool { return !e.finished() })
}

// Needs says whether a grant that isn't finished needs an installation.
func (x *Index) Needs(installed string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	group := x.groups[byInstalled][installed]
	return group != nil && slices.ContainsFunc(group.members, func(e *entry) bool { return !e.finished() })
}

// OnBase returns the grants that hang on a base: those that aren't finished, and the others until BaseKept after they
// expire, since their revocation must be kept up.
func (x *Index) OnBase(base string, now time.Time) []Grant {
	return x.list(Query{Base: base}, now, func(e *entry) bool { return !e.finished() || e.expiresAt+int64(BaseKept) > now.UnixNano() })
}

// Hanging returns one grant for each base, and for each target that grants on it
// were minted by.
func (x *Index) Hanging(now time.Time) []Grant {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	var grants []Grant
	for _, group := range x.groups[byBase] {
		targets := map[string]bool{}
		for _, e := range group.members {
			if target := e.key(byTarget); !targets[target] {
				targets[target] = true
				grants = append(grants, e.grant())
			}
		}
	}
	sortByID(grants)
	return grants
}

func (x *Index) count(query Query) int {
	set := 0
	for _, name := range query.values() {
		if name != "" {
			set++
		}
	}
	members, open := x.smallest(query)
	if set <= 1 {
		return open
	}
	open = 0
	for _, e := range members {
		if e.counted && e.matches(query) {
			open++
		}
	}
	return open
}

// smallest returns the members of the smallest group that the query names, and
// how many of them are open. Without a name, only the latter.
func (x *Index) smallest(query Query) (members []*entry, open int) {
	open, first := x.open, true
	for by, name := range query.values() {
		if name == "" {
			continue
		}
		g := x.groups[by][name]
		if g == nil {
			return nil, 0
		}
		if first || len(g.members) < len(members) {
			members, open, first = g.members, g.open, false
		}
	}
	return members, open
}

func (e *entry) matches(query Query) bool {
	for by, name := range query.values() {
		if name != "" && e.key(by) != name {
			return false
		}
	}
	return true
}

// list holds the index for a thousand grants at a time, so that mints go on
// beside a long list.
func (x *Index) list(query Query, now time.Time, wanted func(*entry) bool) []Grant {
	const atOnce = 1000
	x.mu.Lock()
	x.advance(now)
	members, _ := x.smallest(query)
	members = slices.Clone(members)
	if query == (Query{}) {
		members = slices.Collect(maps.Values(x.byID))
	}
	x.mu.Unlock()
	var grants []Grant
	for some := range slices.Chunk(members, atOnce) {
		x.mu.Lock()
		for _, e := range some {
			if x.byID[e.id] == e && wanted(e) && e.matches(query) {
				grants = append(grants, e.grant())
			}
		}
		x.mu.Unlock()
	}
	sortByID(grants)
	return grants
}

func sortByID(grants []Grant) {
	slices.SortFunc(grants, func(a, b Grant) int { return cmp.Compare(a.ID, b.ID) })
}
