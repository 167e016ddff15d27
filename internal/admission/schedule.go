package admission

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	// A machine that runs Vault may have no time zones: an image with nothing but
	// Vault in it has none, and a role's window must not depend on that.
	_ "time/tzdata"

	"github.com/robfig/cron/v3"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// schedule is a cron expression of five fields.
type schedule struct {
	months, days, weekdays uint64 // a bit for each
	minutes                []int  // of a day, in order
}

// on says whether there are starts on a day.
func (s schedule) on(day time.Time) bool {
	return s.months&(1<<day.Month()) != 0 && s.days&(1<<day.Day()) != 0 && s.weekdays&(1<<day.Weekday()) != 0
}

// maxExpression is longer than a schedule that a person can read.
const maxExpression = 128

const cronItem = `(?:\*(?:/[0-9]+)?|[0-9A-Za-z]+(?:-[0-9A-Za-z]+(?:/[0-9]+)?)?)`

var (
	cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	// cronField is a list of "*", "*/2", "1", "1-5", "1-5/2" and names. The parser
	// takes more: "*-5" for "*", and "," for never.
	cronField = regexp.MustCompile(`\A` + cronItem + `(?:,` + cronItem + `)*\z`)
	zoneName  = regexp.MustCompile(`\A[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*\z`)
)

// parseSchedule reads a cron expression. The error is an *invalid.Error.
func parseSchedule(text string) (schedule, error) {
	wrong := func(problem, remedy string) (schedule, error) {
		return schedule{}, invalid.Field("window", text, problem, remedy)
	}
	if len(text) > maxExpression {
		return wrong(fmt.Sprintf("longer than %d characters", maxExpression), "shorten it")
	}
	const form = "write minute, hour, day of month, month and day of week: \"0 22 * * 5\" is each Friday at 22:00"
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return wrong("not the five fields of a cron expression", form)
	}
	for _, field := range fields {
		if !cronField.MatchString(field) {
			return wrong(fmt.Sprintf("%q is no field of a cron expression", field), form)
		}
	}
	// Most crons start where either day matches, and some where both do: "1-7 * 5"
	// would be the first Friday, or the first week and each Friday.
	if !strings.HasPrefix(fields[2], "*") && !strings.HasPrefix(fields[4], "*") {
		return wrong("it restricts the day of month and the day of week, which cron programs understand in different ways", "leave one of the two \"*\"")
	}
	parsed, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil {
		return wrong(err.Error(), form+"; Sunday is 0 or sun")
	}
	spec, known := parsed.(*cron.SpecSchedule)
	if !known {
		return wrong("not a schedule of days and times", form)
	}
	read := schedule{months: spec.Month, days: spec.Dom, weekdays: spec.Dow}
	for minute := range 24 * 60 {
		if spec.Hour&(1<<(minute/60)) != 0 && spec.Minute&(1<<(minute%60)) != 0 {
			read.minutes = append(read.minutes, minute)
		}
	}
	return read, nil
}

// parseZone finds a time zone by its name in the IANA's database. The error is an
// *invalid.Error.
func parseZone(name string) (*time.Location, error) {
	wrong := func() (*time.Location, error) {
		return nil, invalid.Field("window_timezone", name, "not the name of a time zone", "write one of https://www.iana.org/time-zones, such as Europe/Berlin or UTC")
	}
	// "Local" is the machine's own, and what is not written large is no zone: copies
	// of the database with leap seconds, and links.
	if !zoneName.MatchString(name) || name == "Local" || name == "Factory" {
		return wrong()
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return wrong()
	}
	return zone, nil
}

// parseWindow reads a window. The error is an *invalid.Error.
func parseWindow(expression, zone string, duration time.Duration) (window, error) {
	parsed, err := parseSchedule(expression)
	if err != nil {
		return window{}, err
	}
	read := window{schedule: parsed, duration: duration}
	if read.zone, err = parseZone(zone); err != nil {
		return window{}, err
	}
	// Any year will do to see whether there is a start at all.
	first, any := read.next(time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC))
	if !any {
		return window{}, invalid.Field("window", expression, "there is no such day", "name a day that comes")
	}
	if end, _ := read.closes(first, first.Add(forever)); !end.Before(first.Add(forever)) {
		return window{}, invalid.Field("window_duration", duration.String(), "the window opens again before it closes, and so it never does", "shorten it, or leave the window out")
	}
	return read, nil
}
