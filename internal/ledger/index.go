package ledger

import (
	"cmp"
	"container/heap"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// SweepDelay is how long after its own end a grant is left to its lease.
const SweepDelay = 2 * time.Minute

// BaseKept is how long after its own end a grant is remembered that hangs on a
// base: that end is the target's to keep, by another clock, and what was committed
// for it has to be withdrawn.
const BaseKept = time.Hour

// Index knows, in memory, every grant of one mount that isn't finished, and
// those that hang on a base until BaseKept after they expire. Nothing is listed in storage
// where it is asked. It is for the node that writes: what another node writes
// it does not see.
type Index struct {
	mu         sync.Mutex
	byID       map[string]*entry
	groups     [keys]map[string]*group
	ending     map[*entry]struct{}   // Ending or Dead
	unfinished map[string]int        // by bucket
	open       int                   // grants that may still work at their targets
	untidy     int                   // Dead
	ends       queue                 // what has not expired, or is kept for its base
	overdue    queue                 // what has, and isn't finished
	unreadable map[string]Unreadable // the records that the rebuild could not read, by id
	strays     int                   // what else is in the records' place
	recent     recent

	// gone are the grants that were finished while the index was being rebuilt:
	// what was read of them before is no longer so. It is nil afterwards.
	gone  map[string]struct{}
	ready chan struct{}
}

// NewIndex makes an index that knows nothing yet, and takes what is put into it.
func NewIndex() *Index {
	x := &Index{
		byID: map[string]*entry{}, ending: map[*entry]struct{}{}, unfinished: map[string]int{}, unreadable: map[string]Unreadable{},
		recent: recent{}, gone: map[string]struct{}{}, ready: make(chan struct{}),
	}
	for by := range x.groups {
		x.groups[by] = map[string]*group{}
	}
	return x
}

// Ready is closed once the index knows all that storage does.
func (x *Index) Ready() <-chan struct{} { return x.ready }

// errTwice is a fault of this program: ids are drawn anew for each grant.
var errTwice = errors.New("ledger: the index has a grant of this id")

// Admit puts a new grant into the index, if limit, called before and with the
// index held, has nothing against it. Nothing else is admitted in between. A
// nil limit admits.
func (x *Index) Admit(grant Grant, now time.Time, limit func(Counts) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	if _, known := x.byID[grant.ID]; known {
		return errTwice
	}
	if limit != nil {
		if err := limit(Counts{x: x, now: now}); err != nil {
			return err
		}
	}
	x.insert(grant, now)
	return nil
}

// Minted keeps what the mint has added to the grant's handle. It is false where
// the grant is no longer pending: it was ended while it was being minted.
func (x *Index) Minted(grant Grant) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, known := x.byID[grant.ID]
	if !known || State(e.state.Value()) != Pending {
		return false
	}
	e.handle = pack(grant.Handle)
	return true
}

// Update puts a grant into the index as it has just been written to storage.
func (x *Index) Update(grant Grant, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	delete(x.unreadable, grant.ID) // it was replaced
	given := false                 // out by Overdue, and not back yet
	if e, known := x.byID[grant.ID]; known {
		given = e.queue == nil
		x.drop(e)
	}
	x.recent.remove(grant.ID) // what was found at a target may be to end again
	if kept(grant, now) {
		if e := x.insert(grant, now); given && e.queue == &x.overdue {
			heap.Remove(e.queue, int(e.place))
		}
		return
	}
	x.recent.add(grant)
	if x.gone != nil {
		x.gone[grant.ID] = struct{}{}
	}
}

// Remove takes a grant out that was admitted and could not be written.
func (x *Index) Remove(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, known := x.byID[id]; known {
		x.drop(e)
	}
}

// Get returns the grant of an id, if the index knows it.
func (x *Index) Get(id string) (Grant, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, known := x.byID[id]
	if !known {
		return Grant{}, false
	}
	return e.grant(), true
}

// Unended returns the grants that are to end and don't yet, because that failed
// or is under way.
func (x *Index) Unended() []Grant { return x.inState(Ending) }

// Untidy returns the grants that are dead, and of which something is left at the
// target.
func (x *Index) Untidy() []Grant { return x.inState(Dead) }

// CountUntidy counts them.
func (x *Index) CountUntidy() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.untidy
}

// inState returns the grants in a state that x.ending is for.
func (x *Index) inState(state State) []Grant {
	x.mu.Lock()
	defer x.mu.Unlock()
	var grants []Grant
	for e := range x.ending {
		if State(e.state.Value()) == state {
			grants = append(grants, e.grant())
		}
	}
	sortByID(grants)
	return grants
}

// Overdue gives out, once, at most limit grants that expired SweepDelay ago and
// aren't finished, those that expired first before others. Retry brings one back.
func (x *Index) Overdue(limit int, now time.Time) []Grant {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(now)
	var grants []Grant
	for len(x.overdue) > 0 && x.overdue[0].due <= now.UnixNano() && len(grants) < limit {
		grants = append(grants, heap.Pop(&x.overdue).(*entry).grant())
	}
	return grants
}

// Retry has Overdue give a grant out again from then on, if it isn't finished.
func (x *Index) Retry(id string, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, known := x.byID[id]; known && e.queue == nil {
		e.due = at.UnixNano()
		heap.Push(&x.overdue, e)
	}
}

// Discount no longer counts a grant that has expired and that nobody can revoke, since its target is not configured as
// it was. It would fill its role's limits for good.
func (x *Index) Discount(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, known := x.byID[id]; known {
		x.recount(e, 0)
	}
}

// Unfinished counts the grants of an id's bucket, or of a bucket, that aren't
// finished.
func (x *Index) Unfinished(id string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.unfinished[id[:min(len(id), bucketDigits)]]
}

// Unreadable is a record that this plugin can't read: the grant that it is of is in no answer.
type Unreadable struct {
	ID        string
	ExpiresBy time.Time // when its credential has expired at the target at the latest
	Newer     bool      // a newer plugin wrote it
	named     Query     // what can be told of it all the same, see glimpse
}

// Damaged counts the records that could not be read when the index was rebuilt, and were not replaced since.
func (x *Index) Damaged() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.unreadable) + x.strays
}

// Unreadable returns the records that could not be read and were not replaced since, by their ids.
func (x *Index) Unreadable() []Unreadable {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.SortedFunc(maps.Values(x.unreadable), func(a, b Unreadable) int { return cmp.Compare(a.ID, b.ID) })
}

// Release no longer counts a record that can't be read in limits: its credential is revoked.
func (x *Index) Release(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if one, known := x.unreadable[id]; known {
		one.named = Query{}
		x.unreadable[id] = one
	}
}

// Forget drops the records that could not be read whose credentials have expired before a time, as Retire does.
func (x *Index) Forget(before time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	maps.DeleteFunc(x.unreadable, func(_ string, one Unreadable) bool { return !one.Newer && one.ExpiresBy.Before(before) })
}

// missed keeps what the rebuild could not read, and what it could tell of it.
func (x *Index) missed(id string, err error, named Query) {
	x.mu.Lock()
	defer x.mu.Unlock()
	latest, misnamed := LatestEnd(id)
	if misnamed != nil || !IsID(id) {
		x.strays++
		return
	}
	if _, known := x.byID[id]; !known { // it was replaced meanwhile
		x.unreadable[id] = Unreadable{ID: id, ExpiresBy: latest, Newer: errors.Is(err, stored.ErrNewer), named: named}
	}
}

// restore puts in what was read from storage, unless something newer is known.
func (x *Index) restore(grant Grant, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, known := x.byID[grant.ID]
	_, gone := x.gone[grant.ID]
	switch {
	case known || gone:
	case kept(grant, now):
		x.insert(grant, now)
	default:
		x.recent.add(grant)
	}
}

// complete tells those that wait that the index is whole.
func (x *Index) complete() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = nil
	close(x.ready)
}

// kept says whether the index has to know a grant.
func kept(grant Grant, now time.Time) bool {
	return !grant.Finished() || (grant.Base != "" && now.Before(grant.ExpiresAt.Add(BaseKept)))
}

func (x *Index) insert(grant Grant, now time.Time) *entry {
	e := newEntry(grant)
	x.byID[e.id] = e
	for by, name := range grant.names().values() {
		if name == "" {
			continue
		}
		known := x.groups[by][name]
		if known == nil {
			known = &group{name: name}
			x.groups[by][name] = known
		}
		known.add(e, by)
	}
	if !grant.Finished() {
		x.unfinished[e.id[:bucketDigits]]++
	}
	if grant.State == Ending || grant.State == Dead {
		x.ending[e] = struct{}{}
	}
	if grant.State == Dead {
		x.untidy++
	}
	if grant.Open() {
		x.recount(e, 1)
	}
	switch e.due = e.expiresAt; {
	case now.Before(grant.ExpiresAt):
		heap.Push(&x.ends, e)
	case grant.Finished():
		e.due += int64(BaseKept)
		heap.Push(&x.ends, e)
	default:
		e.due += int64(SweepDelay)
		heap.Push(&x.overdue, e)
	}
	return e
}

func (x *Index) drop(e *entry) {
	delete(x.byID, e.id)
	x.recount(e, 0)
	for by, g := range e.groups {
		if g == nil {
			continue
		}
		g.remove(e, by)
		if len(g.members) == 0 {
			delete(x.groups[by], g.name)
		}
	}
	if !e.finished() {
		name := e.id[:bucketDigits]
		if x.unfinished[name]--; x.unfinished[name] == 0 {
			delete(x.unfinished, name)
		}
	}
	delete(x.ending, e)
	if State(e.state.Value()) == Dead {
		x.untidy--
	}
	if e.queue != nil {
		heap.Remove(e.queue, int(e.place))
	}
}

// recount counts an entry as open, once, or no longer.
func (x *Index) recount(e *entry, open int) {
	change := open
	if e.counted {
		change--
	}
	e.counted = open == 1
	x.open += change
	for _, g := range e.groups {
		if g != nil {
			g.open += change
		}
	}
}

// advance moves what has expired by now from one queue to the other, or out. It changes no count: the clock may be
// wrong, and what has expired by it may still work at its target.
func (x *Index) advance(now time.Time) {
	for len(x.ends) > 0 && x.ends[0].due <= now.UnixNano() {
		e := heap.Pop(&x.ends).(*entry)
		switch until := e.expiresAt + int64(BaseKept); {
		case e.finished() && e.key(byBase) != "" && now.UnixNano() < until:
			e.due = until
			heap.Push(&x.ends, e)
		case e.finished():
			x.recent.add(e.grant())
			x.drop(e)
		default:
			e.due = e.expiresAt + int64(SweepDelay)
			heap.Push(&x.overdue, e)
		}
	}
}
