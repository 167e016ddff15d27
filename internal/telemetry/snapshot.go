package telemetry

import (
	"maps"
	"strconv"
	"time"
)

// Snapshot is what a registry had counted at one moment, with what its reader
// adds of the present. Its JSON form is what "metrics" answers.
type Snapshot struct {
	Targets map[string]Target `json:"targets"`
	Sweeps  Sweeps            `json:"sweeps"`
	Ledger  Ledger            `json:"ledger"`
}

// Target is what is known of one target.
type Target struct {
	Type       string                           `json:"type"`
	Operations map[Operation]map[Outcome]uint64 `json:"operations"` // those that have occurred
	Seconds    map[Operation]Histogram          `json:"seconds"`    // that the target took
	Present    Present                          `json:"present"`    // from the reader
}

// Present is the state of a target now.
type Present struct {
	Answers  bool       `json:"answers"`
	Since    *time.Time `json:"unanswered_since,omitempty"`
	Live     *int       `json:"live_grants,omitempty"`    // nil while the ledger is not in memory
	Unended  *int       `json:"unended_grants,omitempty"` // that are to end, and don't yet; nil likewise
	Untidy   *int       `json:"untidy_grants,omitempty"`  // that are dead, and of which something is left; nil likewise
	UnderWay UnderWay   `json:"under_way"`
	// ClockSkew is by how many seconds this machine's clock is ahead of the target's; nil where that is not known.
	ClockSkew *float64 `json:"clock_skew,omitempty"`
}

// UnderWay counts calls.
type UnderWay struct {
	Mints   int `json:"mints"`
	Revokes int `json:"revokes"`
	Waiting int `json:"waiting"`
}

// Sweeps is what the sweeper has done.
type Sweeps struct {
	Runs    uint64     `json:"runs"`
	Ended   uint64     `json:"ended"`   // grants
	Failed  uint64     `json:"failed"`  // attempts to end one
	Packed  uint64     `json:"packed"`  // grants, into the history
	Retired uint64     `json:"retired"` // segments of the history, and damaged records
	LastRun *time.Time `json:"last_run,omitempty"`
	Seconds Histogram  `json:"seconds"` // that a run took
}

// Ledger is the state of the ledger.
type Ledger struct {
	InMemory       bool    `json:"in_memory"` // from the reader
	Damaged        int     `json:"damaged"`   // records; from the reader
	Restored       bool    `json:"restored"`  // it is older than what has written at a target, and mints are frozen; from the reader
	RebuildSeconds float64 `json:"rebuild_seconds"`
}

// Histogram counts durations: in each bucket those of at most so many seconds.
type Histogram struct {
	Count   uint64            `json:"count"`
	Sum     float64           `json:"sum"` // seconds
	Buckets map[string]uint64 `json:"buckets"`
}

func (h *histogram) snapshot() Histogram {
	shown := Histogram{Sum: h.sum.Seconds(), Buckets: map[string]uint64{}}
	for i, bound := range bounds {
		if h.buckets != nil {
			shown.Count += h.buckets[i]
		}
		shown.Buckets[number(bound)] = shown.Count
	}
	if h.buckets != nil {
		shown.Count += h.buckets[len(bounds)]
	}
	return shown
}

// number writes a number as Prometheus reads it.
func number(value float64) string { return strconv.FormatFloat(value, 'g', -1, 64) }

// Snapshot returns what has been counted.
func (r *Registry) Snapshot() Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	shown := Snapshot{Targets: map[string]Target{}, Sweeps: r.sweeps, Ledger: Ledger{RebuildSeconds: r.rebuild.Seconds()}}
	shown.Sweeps.Seconds = r.sweep.snapshot()
	for name, known := range r.targets {
		one := Target{Type: known.kind, Operations: map[Operation]map[Outcome]uint64{}, Seconds: map[Operation]Histogram{}}
		for _, operation := range Operations {
			one.Operations[operation] = maps.Clone(known.counts[operation])
			one.Seconds[operation] = known.duration[operation].snapshot()
		}
		shown.Targets[name] = one
	}
	return shown
}
