package admission

import (
	"sort"
	"time"
)

// window is when something is open: from each start, a time on the clock of a
// zone, for a duration.
//
// The duration is elapsed time: four hours are four hours, whatever clocks do
// meanwhile. A start that the clock is put forward over is the moment at which it
// is; one that the clock shows twice, since it is put back, is the first. A start
// belongs to its window, and an end does not. Windows that overlap or touch are
// one.
type window struct {
	schedule
	zone     *time.Location
	duration time.Duration
}

const (
	// maxAhead is how many days ahead a start is looked for: 29 February comes
	// after eight years where the year between has none, such as 2100.
	maxAhead = 8*366 + 1
	// maxJoined bounds how many windows are joined to one. One of more ends sooner
	// than it would have to.
	maxJoined = 10_000
	// forever is longer than a window can be open for.
	forever = 366 * 24 * time.Hour
)

// closes says when the window is over that is open now, and false where none is.
// It does not look further than to horizon: if the window is open then, it says so
// much, or more.
func (w window) closes(now, horizon time.Time) (end time.Time, open bool) {
	start, any := w.latest(now)
	if !any {
		return time.Time{}, false
	}
	if end = start.Add(w.duration); !now.Before(end) {
		return time.Time{}, false
	}
	for range maxJoined {
		if !end.Before(horizon) {
			break
		}
		next, _ := w.latest(end) // there is start, at least
		if !next.After(start) {
			break
		}
		start, end = next, next.Add(w.duration)
	}
	return end, true
}

// latest is the last start up to t, if that is not so long ago that its window is
// over in any case.
func (w window) latest(t time.Time) (time.Time, bool) {
	first := dayOf(t.Add(-w.duration).In(w.zone)).AddDate(0, 0, -1)
	// The day after t's has begun by t where clocks are put back at midnight.
	for day := dayOf(t.In(w.zone)).AddDate(0, 0, 1); !day.Before(first); day = day.AddDate(0, 0, -1) {
		if !w.on(day) {
			continue
		}
		if after := w.after(day, t); after > 0 {
			return w.start(day, after-1), true
		}
	}
	return time.Time{}, false
}

// next is the first start after t, and false where there is none.
func (w window) next(t time.Time) (time.Time, bool) {
	day := dayOf(t.In(w.zone)).AddDate(0, 0, -1)
	for range maxAhead {
		if w.on(day) {
			if after := w.after(day, t); after < len(w.minutes) {
				return w.start(day, after), true
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}, false
}

// after is the index of a day's first start after t. The starts of a day are in
// order, whatever its clock does.
func (w window) after(day, t time.Time) int {
	return sort.Search(len(w.minutes), func(i int) bool { return w.start(day, i).After(t) })
}

// start is the moment of a day's start.
func (w window) start(day time.Time, i int) time.Time {
	return moment(day, w.minutes[i], w.zone)
}

// moment is when the clock of a zone shows a minute of a day for the first time,
// or is put forward over it.
func moment(day time.Time, minute int, zone *time.Location) time.Time {
	shown := time.Date(day.Year(), day.Month(), day.Day(), 0, minute, 0, 0, time.UTC)
	t := time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), 0, 0, zone)
	since, until := t.ZoneBounds()
	// As if the clock had never been changed, to compare with what it is to show.
	switch onClock := clock(t); {
	case onClock.After(shown):
		return since // the clock was put forward over it, and t is after that
	case onClock.Before(shown):
		return until // and t is before
	case since.IsZero():
		return t
	}
	_, before := since.Add(-1).Zone()
	if first := shown.Add(-time.Duration(before) * time.Second); first.Before(since) && first.Before(t) {
		return first.In(zone)
	}
	return t
}

// clock is what the clock shows at t, as if it were UTC's.
func clock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// dayOf is the day that a clock shows, as midnight in UTC: for counting days.
func dayOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
}
