package admission

import (
	"testing"
	"time"
)

// A mint asks once when its window closes.
func BenchmarkCloses(b *testing.B) {
	for name, test := range map[string]struct {
		expression string
		duration   time.Duration
		ttl        time.Duration
	}{
		"each week":                {"0 22 * * 5", 4 * time.Hour, time.Hour},
		"each minute, for an hour": {"* 9-17 * * 1-5", time.Minute, time.Hour},
		"each minute, for days":    {"* * * * 1-6", time.Minute, 144 * time.Hour},
		"a year long":              {"0 0 1 1 *", 8000 * time.Hour, time.Hour},
	} {
		w, err := parseWindow(test.expression, berlin, test.duration)
		if err != nil {
			b.Fatal(err)
		}
		now, _ := w.next(time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC))
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, open := w.closes(now, now.Add(test.ttl)); !open {
					b.Fatal("closed")
				}
			}
		})
	}
}
