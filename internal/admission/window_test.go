package admission

import (
	"fmt"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

func mustWindow(t *testing.T, expression, zone string, duration time.Duration) window {
	t.Helper()
	parsed, err := parseWindow(expression, zone, duration)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const (
	berlin  = "Europe/Berlin"
	newYork = "America/New_York"
)

// A window is open from its start, and not at its end: a second before, at and a
// second after each edge, and a nanosecond before it, too.
func TestWindowEdges(t *testing.T) {
	t.Parallel()
	edges := 0
	for name, test := range map[string]struct {
		expression, zone string
		duration         time.Duration
		opens, closes    string
	}{
		"Friday night":                     {"0 22 * * 5", berlin, 4 * time.Hour, "2026-11-27T22:00:00+01:00", "2026-11-28T02:00:00+01:00"},
		"Friday night, in summer":          {"0 22 * * fri", berlin, 4 * time.Hour, "2026-07-03T22:00:00+02:00", "2026-07-04T02:00:00+02:00"},
		"each day, UTC":                    {"30 6 * * *", "UTC", 15 * time.Minute, "2026-02-28T06:30:00Z", "2026-02-28T06:45:00Z"},
		"one second":                       {"30 6 * * *", "UTC", time.Second, "2026-02-28T06:30:00Z", "2026-02-28T06:30:01Z"},
		"over the year's end":              {"0 23 31 12 *", newYork, 2 * time.Hour, "2026-12-31T23:00:00-05:00", "2027-01-01T01:00:00-05:00"},
		"leap day":                         {"0 0 29 2 *", "UTC", 24 * time.Hour, "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"},
		"days long":                        {"0 9 1 * *", berlin, 240 * time.Hour, "2026-05-01T09:00:00+02:00", "2026-05-11T09:00:00+02:00"},
		"overlapping, the second's end":    {"0 9-10 * * *", "UTC", 90 * time.Minute, "2026-05-01T09:00:00Z", "2026-05-01T11:30:00Z"},
		"touching, as one":                 {"0,30 9 * * *", "UTC", 30 * time.Minute, "2026-05-01T09:00:00Z", "2026-05-01T10:00:00Z"},
		"each minute of office hours":      {"* 9-17 * * 1-5", berlin, time.Minute, "2026-05-04T09:00:00+02:00", "2026-05-04T18:00:00+02:00"},
		"half-hour zone":                   {"0 0 * * *", "Asia/Kolkata", time.Hour, "2026-05-01T00:00:00+05:30", "2026-05-01T01:00:00+05:30"},
		"Berlin, forward, before":          {"0 1 29 3 *", berlin, time.Hour, "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"},
		"Berlin, forward, across":          {"30 1 29 3 *", berlin, 2 * time.Hour, "2026-03-29T01:30:00+01:00", "2026-03-29T04:30:00+02:00"},
		"Berlin, forward, in the gap":      {"30 2 29 3 *", berlin, time.Hour, "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"},
		"Berlin, forward, after":           {"0 3 29 3 *", berlin, time.Hour, "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"},
		"Berlin, back, first of two":       {"30 2 25 10 *", berlin, 15 * time.Minute, "2026-10-25T02:30:00+02:00", "2026-10-25T02:45:00+02:00"},
		"Berlin, back, across":             {"30 2 25 10 *", berlin, 2 * time.Hour, "2026-10-25T02:30:00+02:00", "2026-10-25T03:30:00+01:00"},
		"Berlin, back, after":              {"0 3 25 10 *", berlin, time.Hour, "2026-10-25T03:00:00+01:00", "2026-10-25T04:00:00+01:00"},
		"New York, forward, across":        {"0 1 8 3 *", newYork, 2 * time.Hour, "2026-03-08T01:00:00-05:00", "2026-03-08T04:00:00-04:00"},
		"New York, forward, in the gap":    {"59 2 8 3 *", newYork, time.Hour, "2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00"},
		"New York, back, first of two":     {"0 1 1 11 *", newYork, time.Hour, "2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00"},
		"New York, back, across":           {"59 1 1 11 *", newYork, 90 * time.Minute, "2026-11-01T01:59:00-04:00", "2026-11-01T02:29:00-05:00"},
		"half an hour forward, in the gap": {"15 2 4 10 *", "Australia/Lord_Howe", time.Hour, "2026-10-04T02:30:00+11:00", "2026-10-04T03:30:00+11:00"},
		"forward at midnight":              {"0 0 4 11 *", "America/Sao_Paulo", time.Hour, "2018-11-04T01:00:00-02:00", "2018-11-04T02:00:00-02:00"},
		"back at midnight":                 {"30 23 17 2 *", "America/Sao_Paulo", time.Hour, "2018-02-17T23:30:00-02:00", "2018-02-17T23:30:00-03:00"},
		"a day that is left out":           {"0 12 30 12 *", "Pacific/Apia", time.Hour, "2011-12-31T00:00:00+14:00", "2011-12-31T01:00:00+14:00"},
		"back over midnight":               {"0 0 7 11 *", "America/St_Johns", 90 * time.Minute, "2010-11-07T00:00:00-02:30", "2010-11-07T00:30:00-03:30"},
	} {
		w := mustWindow(t, test.expression, test.zone, test.duration)
		opens, closes := at(t, test.opens), at(t, test.closes)
		for _, edge := range []struct {
			what string
			now  time.Time
			open bool
		}{
			{"a second before it opens", opens.Add(-time.Second), false},
			{"just before it opens", opens.Add(-1), false},
			{"when it opens", opens, true},
			{"a second after", opens.Add(time.Second), opens.Add(time.Second).Before(closes)},
			{"midway", opens.Add(closes.Sub(opens) / 2), true},
			{"a second before it closes", closes.Add(-time.Second), true},
			{"just before it closes", closes.Add(-1), true},
			{"when it closes", closes, false},
			{"a second after it has closed", closes.Add(time.Second), false},
		} {
			edges++
			end, open := w.closes(edge.now, edge.now.Add(forever))
			if open != edge.open || (open && !end.Equal(closes)) {
				t.Errorf("%s: %s: open: %t until %s, want %t until %s", name, edge.what, open, end, edge.open, closes)
			}
		}
		if next, any := w.next(opens.Add(-1)); !any || !next.Equal(opens) {
			t.Errorf("%s: opens next at %s, want %s", name, next, opens)
		}
	}
	figures.Log(t, "moments around the edges of windows: %d", edges)
}

// What is open is compared with what a clock shows, minute by minute, around every
// change of it in a year of zones that do odd things.
func TestWindowAgainstTheClock(t *testing.T) {
	t.Parallel()
	minutes := 0
	for _, place := range []struct {
		zone string
		year int
	}{{berlin, 2026}, {newYork, 2026}, {"Australia/Lord_Howe", 2026}, {"America/Sao_Paulo", 2018}, {"America/Havana", 2026}, {"Antarctica/Troll", 2026}, {"Africa/Casablanca", 2026}, {"Pacific/Apia", 2011}} {
		zone, err := parseZone(place.zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range changesIn(zone, place.year) {
			minutes += againstTheClock(t, zone, change)
		}
	}
	if minutes < 40_000 {
		t.Errorf("only %d minutes were looked at", minutes)
	}
	figures.Log(t, "minutes of a clock around its changes, in 8 zones: %d", minutes)
}

// changesIn are the moments of a year at which a zone's clock is changed.
func changesIn(zone *time.Location, year int) []time.Time {
	var changes []time.Time
	end := time.Date(year+1, 1, 1, 0, 0, 0, 0, zone)
	for t := time.Date(year, 1, 1, 0, 0, 0, 0, zone); ; {
		_, next := t.ZoneBounds()
		if next.IsZero() || next.After(end) {
			return changes
		}
		changes, t = append(changes, next), next
	}
}

// againstTheClock looks at each minute that a clock might show on the days around
// a change. Its moment is the first at which the clock shows it, or else the first
// at which it shows more.
func againstTheClock(t *testing.T, zone *time.Location, change time.Time) int {
	t.Helper()
	from := change.Add(-60 * time.Hour).Truncate(time.Minute)
	shown := map[time.Time]time.Time{}
	for now := from; now.Before(change.Add(60 * time.Hour)); now = now.Add(time.Minute) {
		if _, twice := shown[clock(now.In(zone))]; !twice {
			shown[clock(now.In(zone))] = now
		}
	}
	minutes := 0
	for day := dayOf(change.In(zone)).AddDate(0, 0, -1); !day.After(dayOf(change.In(zone)).AddDate(0, 0, 1)); day = day.AddDate(0, 0, 1) {
		last := time.Time{}
		for minute := range 24 * 60 {
			want, is := shown[day.Add(time.Duration(minute)*time.Minute)]
			if !is {
				want = change
			}
			got := moment(day, minute, zone)
			if !got.Equal(want) {
				t.Fatalf("%s: %s, minute %d is at %s, want %s", zone, day.Format(time.DateOnly), minute, got, want.In(zone))
			}
			if got.Before(last) {
				t.Fatalf("%s: %s, minute %d comes before the one before it", zone, day.Format(time.DateOnly), minute)
			}
			last = got
			minutes++
		}
	}
	return minutes
}

// The window that contains a time is found however its starts lie: compared with
// looking at every start.
func TestWindowAgainstAllStarts(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{"0 22 * * 5", "*/37 * * * *", "30 2 * * *", "15 1-3 * * 0", "0 0 1,15 * *", "59 23 31 * *"} {
		for _, duration := range []time.Duration{time.Second, time.Minute, 3 * time.Hour, 50 * time.Hour} {
			for _, zone := range []string{berlin, newYork} {
				w, err := parseWindow(expression, zone, duration)
				if err != nil {
					continue // one that never closes
				}
				compareWithAllStarts(t, fmt.Sprintf("%s, %s, %s", expression, duration, zone), w)
			}
		}
	}
}

func compareWithAllStarts(t *testing.T, name string, w window) {
	t.Helper()
	from, to := time.Date(2026, 10, 15, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 5, 0, 0, 0, 0, time.UTC)
	var starts []time.Time
	for day := from.AddDate(0, 0, -60); day.Before(to.AddDate(0, 0, 80)); day = day.AddDate(0, 0, 1) {
		for i := range w.minutes {
			if w.on(day) {
				starts = append(starts, w.start(day, i))
			}
		}
	}
	for now := from; now.Before(to); now = now.Add(97*time.Minute + 30*time.Second) {
		var want, next time.Time
		for _, start := range starts {
			end := start.Add(w.duration)
			if reached := want; (!start.After(now) && now.Before(end)) || (!reached.IsZero() && !start.After(reached)) {
				want = end
			}
			if next.IsZero() && start.After(now) {
				next = start
			}
		}
		end, open := w.closes(now, now.Add(forever))
		if open == want.IsZero() || (open && !end.Equal(want)) {
			t.Fatalf("%s: at %s: open: %t until %s, want until %s", name, now, open, end, want)
		}
		if got, _ := w.next(now); !got.Equal(next) {
			t.Fatalf("%s: at %s: opens next at %s, want %s", name, now, got, next)
		}
	}
}

// A window is not looked into further than has to be, and one of very many ends
// sooner than it could: never later.
func TestWindowOfManyStarts(t *testing.T) {
	t.Parallel()
	w := mustWindow(t, "* * * * 1-6", "UTC", time.Minute)
	monday := at(t, "2026-05-04T00:00:00Z")
	if end, open := w.closes(monday, monday.Add(time.Hour)); !open || end.Before(monday.Add(time.Hour)) || end.After(monday.Add(2*time.Hour)) {
		t.Errorf("looked at for an hour: until %s", end)
	}
	if end, open := w.closes(monday, monday.Add(forever)); !open || !end.Equal(at(t, "2026-05-10T00:00:00Z")) {
		t.Errorf("until %s, want Sunday", end)
	}
	long := mustWindow(t, "* * * 1-11 *", "UTC", time.Minute)
	if end, open := long.closes(monday, monday.Add(forever)); !open || end.After(monday.Add(maxJoined*time.Minute+time.Minute)) || end.Before(monday.Add(24*time.Hour)) {
		t.Errorf("until %s", end)
	}
}

func TestBadWindows(t *testing.T) {
	t.Parallel()
	for expression, says := range map[string]string{
		"":                               "five fields",
		"* * * *":                        "five fields",
		"0 0 22 * * 5":                   "five fields",
		"@daily":                         "five fields",
		"@every 1h":                      "five fields",
		"TZ=UTC 0 22 * * 5":              "five fields",
		"TZ=UTC":                         "five fields",
		"CRON_TZ=UTC":                    "five fields",
		"TZ=UTC 22 * * 5":                "no field",
		"60 * * * *":                     "above maximum",
		"* 24 * * *":                     "above maximum",
		"* * 0 * *":                      "below minimum",
		"* * 32 * *":                     "above maximum",
		"* * * 13 *":                     "above maximum",
		"* * * * 7":                      "above maximum",
		"* * * * sunday":                 "sunday",
		"*-5 * * * *":                    "no field",
		"5-1 * * * *":                    "beyond end",
		"1-5-9 * * * *":                  "no field",
		"1,, * * * *":                    "no field",
		", * * * *":                      "no field",
		"+5 * * * *":                     "no field",
		"-5 * * * *":                     "no field",
		"5/10 * * * *":                   "no field",
		"? * * * *":                      "no field",
		"*/0 * * * *":                    "positive",
		"0 0 L * *":                      "L",
		"0 0 1W * *":                     "1W",
		"0 0 * * 5#1":                    "no field",
		"٣ * * * *":                      "no field",
		"0 22 1-7 * 5":                   "different ways",
		"0 0 30 2 *":                     "no such day",
		"0 0 31 4,6,9,11 *":              "no such day",
		"*/99999999999999999999 * * * *": "99999999999999999999",
		"0 22 * * 5\x00":                 "no field",
	} {
		if _, err := parseWindow(expression, "UTC", time.Hour); err == nil {
			t.Errorf("%q: taken", expression)
		} else if !contains(err.Error(), says) || !contains(err.Error(), "window") {
			t.Errorf("%q: %v does not say %q", expression, err, says)
		}
	}
	for _, zone := range []string{"", "Local", "local", "localtime", "berlin", "Europe/Nowhere", "../Europe/Berlin", "/etc/passwd", "posix/Europe/Berlin", "right/Europe/Berlin", "Factory", "Europe//Berlin", "Europe/Berlin/", "Europe/Berlin\x00", "UTC+1"} {
		if _, err := parseWindow("0 22 * * 5", zone, time.Hour); err == nil || !contains(err.Error(), "window_timezone") {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
	for expression, duration := range map[string]time.Duration{"0 * * * *": time.Hour, "0 0 * * *": 25 * time.Hour, "0 0 1 * *": 31 * 24 * time.Hour, "0 0 1 1 *": 366 * 24 * time.Hour} {
		if _, err := parseWindow(expression, "UTC", duration); err == nil || !contains(err.Error(), "never does") {
			t.Errorf("%q of %s never closes: %v", expression, duration, err)
		}
	}
}

// Whatever is taken for a window has starts, and is open from each of them on and
// not at its end.
func FuzzWindow(f *testing.F) {
	for _, seed := range []struct {
		expression, zone string
		seconds, at      int64
	}{
		{"0 22 * * 5", berlin, 14400, 1_795_816_800}, {"*/7 1-3,5 * 2,mar-jun *", newYork, 1, 1_772_953_200}, {"30 2 31 * *", "Antarctica/Troll", 86_400, 0},
		{"TZ=UTC 0 22 * * 5", "Local", 60, 1}, {"59 23 29 2 *", "UTC", 31_536_000, 4_107_542_400}, {"0 0 * * sun-sat", "America/Sao_Paulo", 3600, 1_518_912_000},
	} {
		f.Add(seed.expression, seed.zone, seed.seconds, seed.at)
	}
	f.Fuzz(func(t *testing.T, expression, zone string, seconds, at int64) {
		const year = 31_622_400
		duration := time.Duration(1+max(seconds, -seconds)%year) * time.Second
		w, err := parseWindow(expression, zone, max(duration, time.Second))
		if err != nil {
			return
		}
		now := time.Unix(at%(100*year), 0)
		start, any := w.next(now)
		if !any || !start.After(now) {
			t.Fatalf("opens next at %s, %t, after %s", start, any, now)
		}
		end, open := w.closes(start, start.Add(time.Second))
		if !open || end.Before(start.Add(w.duration)) {
			t.Fatalf("at its start, %s: open: %t until %s", start, open, end)
		}
		if end, open = w.closes(start, start.Add(forever)); !open || !end.After(start) {
			t.Fatalf("at its start, %s: open: %t until %s", start, open, end)
		}
		if last, open := w.closes(end.Add(-1), end.Add(forever)); !open || last.Before(end) {
			t.Fatalf("just before its end, %s: open: %t until %s", end, open, last)
		}
		if before, any := w.latest(start); !any || !before.Equal(start) {
			t.Fatalf("the latest start at %s is %s, %t", start, before, any)
		}
	})
}
