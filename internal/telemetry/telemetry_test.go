package telemetry

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	model "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	names "github.com/prometheus/common/model"
)

// parse reads the text as Prometheus does, and returns the value that a sample
// with these labels has; histograms give their count.
func parse(t *testing.T, text []byte) func(name string, labelled ...string) float64 {
	t.Helper()
	parser := expfmt.NewTextParser(names.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return func(name string, labelled ...string) float64 {
		t.Helper()
		for _, metric := range families[name].GetMetric() {
			var got []string
			for _, label := range metric.GetLabel() {
				got = append(got, label.GetName(), label.GetValue())
			}
			if !slices.Equal(got, labelled) {
				continue
			}
			switch families[name].GetType() {
			case model.MetricType_COUNTER:
				return metric.GetCounter().GetValue()
			case model.MetricType_GAUGE:
				return metric.GetGauge().GetValue()
			default:
				return float64(metric.GetHistogram().GetSampleCount())
			}
		}
		return math.NaN()
	}
}

const odd = "a\"b\\c\nd" // no target is called so; what is written has to be read all the same

func counted() Snapshot {
	r := New()
	r.Know("store", "minio")
	r.Know(odd, "fake")
	for range 3 {
		r.Count("store", Mint, OK)
	}
	r.Count("store", Mint, Timeout)
	r.Count("store", Revoke, Down)
	r.Count("nowhere", Mint, OK)
	r.Took("nowhere", Mint, time.Second)
	for _, took := range []time.Duration{0, 5 * time.Millisecond, 6 * time.Millisecond, 30 * time.Second, time.Hour} {
		r.Took("store", Mint, took)
	}
	r.Swept(time.Unix(1_800_000_000, 0), time.Second, 1, 2, 3, 4)
	r.Swept(time.Unix(1_800_000_060, 0), time.Second, 1, 0, 0, 0)
	r.Rebuilt(1500 * time.Millisecond)
	shown := r.Snapshot()
	store := shown.Targets["store"]
	store.Present = Present{Answers: true, Live: new(7), UnderWay: UnderWay{Mints: 2, Revokes: 1, Waiting: 5}}
	shown.Targets["store"] = store
	shown.Ledger.InMemory = true
	return shown
}

func TestText(t *testing.T) {
	value := parse(t, counted().Text())
	for _, test := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{3, "precision_operations_total", []string{"target", "store", "type", "minio", "operation", "mint", "outcome", "ok"}},
		{1, "precision_operations_total", []string{"target", "store", "type", "minio", "operation", "mint", "outcome", "timeout"}},
		{0, "precision_operations_total", []string{"target", "store", "type", "minio", "operation", "mint", "outcome", "throttled"}},
		{1, "precision_operations_total", []string{"target", "store", "type", "minio", "operation", "revoke", "outcome", "down"}},
		{0, "precision_operations_total", []string{"target", odd, "type", "fake", "operation", "mint", "outcome", "ok"}},
		{math.NaN(), "precision_operations_total", []string{"target", "nowhere", "type", "", "operation", "mint", "outcome", "ok"}},
		{5, "precision_target_seconds", []string{"target", "store", "type", "minio", "operation", "mint"}},
		{0, "precision_target_seconds", []string{"target", "store", "type", "minio", "operation", "revoke"}},
		{7, "precision_live_grants", []string{"target", "store", "type", "minio"}},
		{math.NaN(), "precision_live_grants", []string{"target", odd, "type", "fake"}}, // not known
		{1, "precision_target_up", []string{"target", "store", "type", "minio"}},
		{0, "precision_target_up", []string{"target", odd, "type", "fake"}},
		{2, "precision_mints_under_way", []string{"target", "store", "type", "minio"}},
		{1, "precision_revokes_under_way", []string{"target", "store", "type", "minio"}},
		{5, "precision_calls_waiting", []string{"target", "store", "type", "minio"}},
		{2, "precision_swept_total", []string{"result", "ended"}},
		{2, "precision_swept_total", []string{"result", "failed"}},
		{3, "precision_swept_total", []string{"result", "packed"}},
		{4, "precision_swept_total", []string{"result", "retired"}},
		{2, "precision_sweep_seconds", nil},
		{1_800_000_060, "precision_sweep_last_run_timestamp_seconds", nil},
		{1, "precision_ledger_in_memory", nil},
		{0, "precision_ledger_damaged_records", nil},
		{1.5, "precision_ledger_rebuild_seconds", nil},
	} {
		if got := value(test.name, test.labels...); got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("%s%v is %v, want %v", test.name, test.labels, got, test.want)
		}
	}
}

// What is in a bucket is at most as long as it says, and is in all the later ones.
func TestBuckets(t *testing.T) {
	shown := counted().Targets["store"].Seconds[Mint]
	for bound, want := range map[string]uint64{"0.005": 2, "0.01": 3, "10": 3, "30": 4, "120": 4} {
		if got := shown.Buckets[bound]; got != want {
			t.Errorf("%d of at most %s s, want %d", got, bound, want)
		}
	}
	if shown.Count != 5 || shown.Sum != 3630.011 {
		t.Errorf("%d in %v s", shown.Count, shown.Sum)
	}
}

// An outcome that has not occurred is not in the JSON form, but one that has is.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(counted().Targets["store"].Operations)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"mint":{"ok":3,"timeout":1},"revoke":{"down":1}}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestAForgottenTarget(t *testing.T) {
	r := New()
	r.Know("store", "minio")
	r.Count("store", Mint, OK)
	r.Know("store", "aws")
	if got := r.Snapshot().Targets["store"]; got.Type != "aws" || got.Operations[Mint][OK] != 1 {
		t.Errorf("after it was opened anew: %+v", got)
	}
	r.Forget("store")
	r.Count("store", Mint, OK)
	if targets := r.Snapshot().Targets; len(targets) != 0 {
		t.Errorf("%v are left", targets)
	}
}
