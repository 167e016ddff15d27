package telemetry

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ContentType is that of Text.
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// text writes families of metrics, each under one name with its samples behind it.
type text struct{ bytes.Buffer }

func (t *text) family(name, kind, help string) {
	fmt.Fprintf(t, "# HELP %[1]s %[3]s\n# TYPE %[1]s %[2]s\n", name, kind, help)
}

// labels are pairs of a name and a value.
type labels []string

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (l labels) String() string {
	if len(l) == 0 {
		return ""
	}
	pairs := make([]string, 0, len(l)/2)
	for pair := range slices.Chunk(l, 2) {
		pairs = append(pairs, pair[0]+`="`+escape.Replace(pair[1])+`"`)
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

func (t *text) sample(name string, labelled labels, value float64) {
	fmt.Fprintf(t, "%s%s %s\n", name, labelled, number(value))
}

func (t *text) histogram(name string, labelled labels, counted Histogram) {
	for _, bound := range bounds {
		t.sample(name+"_bucket", append(slices.Clone(labelled), "le", number(bound)), float64(counted.Buckets[number(bound)]))
	}
	t.sample(name+"_bucket", append(slices.Clone(labelled), "le", "+Inf"), float64(counted.Count))
	t.sample(name+"_sum", labelled, counted.Sum)
	t.sample(name+"_count", labelled, float64(counted.Count))
}

// gauge writes one value a target, of the targets that have one.
func (t *text) gauge(shown Snapshot, name, help string, value func(Present) *int) {
	t.family(name, "gauge", help)
	shown.each(func(labelled labels, one Target) {
		if got := value(one.Present); got != nil {
			t.sample(name, labelled, float64(*got))
		}
	})
}

// each calls with each target and its labels, in order.
func (s Snapshot) each(call func(labels, Target)) {
	for _, name := range slices.Sorted(maps.Keys(s.Targets)) {
		call(labels{"target", name, "type", s.Targets[name].Type}, s.Targets[name])
	}
}

// Text is the snapshot in Prometheus's text format.
func (s Snapshot) Text() []byte {
	t := &text{}
	const operations = "precision_operations_total"
	t.family(operations, "counter", "Credentials that were asked for (mint) and attempts to end one (revoke), by outcome.")
	s.each(func(labelled labels, one Target) {
		for _, operation := range Operations {
			for _, outcome := range Outcomes {
				t.sample(operations, append(slices.Clone(labelled), "operation", string(operation), "outcome", string(outcome)), float64(one.Operations[operation][outcome]))
			}
		}
	})
	const seconds = "precision_target_seconds"
	t.family(seconds, "histogram", "How long the target took for a mint or a revoke, whatever came of it.")
	s.each(func(labelled labels, one Target) {
		for _, operation := range Operations {
			t.histogram(seconds, append(slices.Clone(labelled), "operation", string(operation)), one.Seconds[operation])
		}
	})
	t.gauge(s, "precision_live_grants", "Grants whose credentials may work.", func(p Present) *int { return p.Live })
	t.gauge(s, "precision_unended_grants", "Grants that are to end and could not be ended yet.", func(p Present) *int { return p.Unended })
	t.gauge(s, "precision_untidy_grants", "Grants that are dead, and of which something is left at the target.", func(p Present) *int { return p.Untidy })
	t.gauge(s, "precision_target_up", "0 while the target does not answer.", func(p Present) *int { return new(truth(p.Answers)) })
	t.gauge(s, "precision_mints_under_way", "Mints that the target has not answered yet.", func(p Present) *int { return &p.UnderWay.Mints })
	t.gauge(s, "precision_revokes_under_way", "Revokes that the target has not answered yet.", func(p Present) *int { return &p.UnderWay.Revokes })
	t.gauge(s, "precision_calls_waiting", "Mints and revokes that wait until the target may be called.", func(p Present) *int { return &p.UnderWay.Waiting })

	const skew = "precision_target_clock_skew_seconds"
	t.family(skew, "gauge", "By how much this machine's clock is ahead of the target's, as its last answer told it.")
	s.each(func(labelled labels, one Target) {
		if one.Present.ClockSkew != nil {
			t.sample(skew, labelled, *one.Present.ClockSkew)
		}
	})

	const swept = "precision_swept_total"
	t.family(swept, "counter", "What the sweeper has done: grants ended, attempts failed, grants packed, segments retired.")
	for _, one := range []struct {
		result string
		count  uint64
	}{{"ended", s.Sweeps.Ended}, {"failed", s.Sweeps.Failed}, {"packed", s.Sweeps.Packed}, {"retired", s.Sweeps.Retired}} {
		t.sample(swept, labels{"result", one.result}, float64(one.count))
	}
	const sweep = "precision_sweep_seconds"
	t.family(sweep, "histogram", "How long a sweep took.")
	t.histogram(sweep, nil, s.Sweeps.Seconds)
	if s.Sweeps.LastRun != nil {
		t.single("precision_sweep_last_run_timestamp_seconds", "When the last sweep ended.", float64(s.Sweeps.LastRun.Unix()))
	}
	t.single("precision_ledger_in_memory", "0 while the ledger is being read into memory.", float64(truth(s.Ledger.InMemory)))
	t.single("precision_ledger_restored", "1 while mints are frozen because a target knows newer storage than this.", float64(truth(s.Ledger.Restored)))
	t.single("precision_ledger_damaged_records", "Records of the ledger that could not be read.", float64(s.Ledger.Damaged))
	t.single("precision_ledger_rebuild_seconds", "How long it took to read the ledger into memory; 0 before that.", s.Ledger.RebuildSeconds)
	return t.Bytes()
}

func (t *text) single(name, help string, value float64) {
	t.family(name, "gauge", help)
	t.sample(name, nil, value)
}

func truth(is bool) int {
	if is {
		return 1
	}
	return 0
}
