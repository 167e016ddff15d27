// Package telemetry counts what the engine does: how often, on which target, how
// it came out and how long the target took. Its labels are bounded: operations
// and outcomes are constants, and targets are those that are configured.
package telemetry

import (
	"slices"
	"sync"
	"time"
)

// Operation is what a target is asked for.
type Operation string

// The operations.
const (
	Mint   Operation = "mint"
	Revoke Operation = "revoke"
)

// Operations lists all of them.
var Operations = []Operation{Mint, Revoke}

// Outcome is how an operation came out.
type Outcome string

// The outcomes.
const (
	OK          Outcome = "ok"
	Refused     Outcome = "refused"     // by the engine: the request asks for what may not or can't be
	Failed      Outcome = "failed"      // the target, or storage, answered with an error
	Throttled   Outcome = "throttled"   // the target answered that it is asked too much
	Timeout     Outcome = "timeout"     // the target did not answer in time
	Unreachable Outcome = "unreachable" // the target was not reached, or hung up
	Down        Outcome = "down"        // not tried: the target does not answer
	Busy        Outcome = "busy"        // not tried: too many calls of the target were under way
	HungUp      Outcome = "hung_up"     // the caller did, or the mount was unloaded
	TooLate     Outcome = "too_late"    // the credential had expired when it was minted
	Overtaken   Outcome = "overtaken"   // the grant was ended while it was being minted
	Blocked     Outcome = "blocked"     // clean-up of a disabled credential: something that is not the engine's is in the way
)

// Outcomes lists all of them.
var Outcomes = []Outcome{OK, Refused, Failed, Throttled, Timeout, Unreachable, Down, Busy, HungUp, TooLate, Overtaken, Blocked}

// bounds are the upper ends of a histogram's buckets, in seconds. The last two
// are the deadlines of a mint and of a revoke.
var bounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120}

// histogram counts durations by how long they were.
type histogram struct {
	buckets []uint64 // one more than there are bounds
	sum     time.Duration
}

func (h *histogram) add(took time.Duration) {
	if h.buckets == nil {
		h.buckets = make([]uint64, len(bounds)+1)
	}
	at, _ := slices.BinarySearch(bounds, took.Seconds())
	h.buckets[at]++
	h.sum += took
}

// Registry counts for one mount. It is safe for concurrent use, and starts at
// zero with each start of the plugin.
type Registry struct {
	mu      sync.Mutex
	targets map[string]*target
	sweeps  Sweeps
	sweep   histogram
	rebuild time.Duration // 0: not yet
}

type target struct {
	kind     string
	counts   map[Operation]map[Outcome]uint64
	duration map[Operation]*histogram
}

// New makes a registry without targets.
func New() *Registry { return &Registry{targets: map[string]*target{}} }

// Know has a target of a type counted from now on. What has been counted of it
// stays.
func (r *Registry) Know(name, kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.targets[name]
	if known == nil {
		known = &target{counts: map[Operation]map[Outcome]uint64{}, duration: map[Operation]*histogram{}}
		for _, operation := range Operations {
			known.counts[operation], known.duration[operation] = map[Outcome]uint64{}, &histogram{}
		}
		r.targets[name] = known
	}
	known.kind = kind
}

// Forget drops a target and what has been counted of it.
func (r *Registry) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.targets, name)
}

// Count counts an operation. One on a target that is not known is left out.
func (r *Registry) Count(name string, operation Operation, outcome Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.targets[name]; known != nil {
		known.counts[operation][outcome]++
	}
}

// Took counts how long a target took for an operation that it was asked for,
// whatever came of it.
func (r *Registry) Took(name string, operation Operation, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.targets[name]; known != nil {
		known.duration[operation].add(took)
	}
}

// Swept counts a sweep that ended at a time.
func (r *Registry) Swept(at time.Time, took time.Duration, ended, failed, packed, retired int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep.add(took)
	r.sweeps.Runs++
	r.sweeps.LastRun = &at
	r.sweeps.Ended += uint64(ended)
	r.sweeps.Failed += uint64(failed)
	r.sweeps.Packed += uint64(packed)
	r.sweeps.Retired += uint64(retired)
}

// Rebuilt notes how long it took to read the ledger into memory.
func (r *Registry) Rebuilt(took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rebuild = took
}
