// Package admission says whether a credential of a role may be minted now: for
// this task, for this caller, at this time, beside those that live. It asks no
// clock and no Vault; what it has to know comes in as arguments.
package admission

import (
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Texts are a role's rules as they are written and stored. What is empty restricts
// nothing.
type Texts struct {
	RequireTask      bool          `json:"require_task,omitempty"`
	TaskPattern      string        `json:"task_pattern,omitempty"`    // RE2; the whole task matches
	Window           string        `json:"window,omitempty"`          // a cron expression
	WindowDuration   time.Duration `json:"window_duration,omitempty"` // of each window
	WindowTimezone   string        `json:"window_timezone,omitempty"` // UTC if empty
	NotBefore        string        `json:"not_before,omitempty"`      // RFC 3339
	NotAfter         string        `json:"not_after,omitempty"`       // RFC 3339
	MaxActive        int           `json:"max_active,omitempty"`
	MaxActivePerTask int           `json:"max_active_per_task,omitempty"`
	OnLimit          string        `json:"on_limit,omitempty"` // Refuse if empty
	BoundCIDRs       []string      `json:"bound_cidrs,omitempty"`
	BoundEntityIDs   []string      `json:"bound_entity_ids,omitempty"`
	BoundGroupIDs    []string      `json:"bound_group_ids,omitempty"`
}

// What a role may say of a read for which its limits leave no room.
const (
	Refuse  = "refuse"
	Replace = "replace"
)

// Rules are Texts that have been read.
type Rules struct {
	requireTask         bool
	pattern             string         // of the task, as it is written
	task                *regexp.Regexp // nil for any
	window              *window
	notBefore, notAfter time.Time // zero for none
	limits              Limits
	cidrs               []netip.Prefix
	entityIDs, groupIDs []string
}

// maxBounds is how many addresses, entities or groups a role may name.
const maxBounds = 100

// Parse reads a role's rules. The error is an *invalid.Error.
func Parse(texts Texts) (Rules, error) {
	rules := Rules{requireTask: texts.RequireTask}
	var err error
	if texts.TaskPattern != "" {
		rules.pattern = texts.TaskPattern
		if rules.task, err = scope.WholeMatch(texts.TaskPattern); err != nil {
			return Rules{}, invalid.Field("task_pattern", texts.TaskPattern, err.Error(), scope.WriteRE2)
		}
	}
	if err := rules.parseTimes(texts); err != nil {
		return Rules{}, err
	}
	if err := rules.parseLimits(texts); err != nil {
		return Rules{}, err
	}
	if err := rules.parseCaller(texts); err != nil {
		return Rules{}, err
	}
	return rules, nil
}

func (r *Rules) parseTimes(texts Texts) error {
	switch {
	case texts.Window == "" && texts.WindowDuration != 0:
		return invalid.Field("window_duration", texts.WindowDuration.String(), "there is no window that it could be of", "write window, too: when it opens, as a cron expression")
	case texts.Window == "" && texts.WindowTimezone != "":
		return invalid.Field("window_timezone", texts.WindowTimezone, "there is no window that it could be of", "write window, too: when it opens, as a cron expression")
	case texts.Window != "" && texts.WindowDuration <= 0:
		return invalid.Hidden("window_duration", "missing: the window would never close", "say how long the window is open, as in 4h")
	case texts.Window != "":
		zone := texts.WindowTimezone
		if zone == "" {
			zone = "UTC"
		}
		parsed, err := parseWindow(texts.Window, zone, texts.WindowDuration)
		if err != nil {
			return err
		}
		r.window = &parsed
	}
	var err error
	if r.notBefore, err = parseMoment("not_before", texts.NotBefore); err != nil {
		return err
	}
	if r.notAfter, err = parseMoment("not_after", texts.NotAfter); err != nil {
		return err
	}
	if !r.notBefore.IsZero() && !r.notAfter.IsZero() && !r.notBefore.Before(r.notAfter) {
		return invalid.Field("not_after", texts.NotAfter, "not after not_before, "+texts.NotBefore, "give a later time")
	}
	return nil
}

// parseMoment reads a point in time, zero for an empty text.
func parseMoment(field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Nanosecond() != 0 || at.IsZero() {
		return time.Time{}, invalid.Field(field, text, "not a point in time in whole seconds", "write it as 2026-11-27T22:00:00+01:00, or with Z for UTC")
	}
	return at, nil
}

// checkTask says whether a credential may be read for a task, empty for none. The
// error is an *invalid.Error.
func (r Rules) checkTask(task string) error {
	if task == "" && r.TaskRequired() {
		return invalid.Hidden("task", "missing: the role's credentials are for a task", "read creds/<role>/<task>")
	}
	if r.task != nil && !r.task.MatchString(task) {
		return invalid.Field("task", task, "not a task that the role admits", "give one that matches "+r.pattern)
	}
	return nil
}

// TaskRequired says whether a credential without a task is refused.
func (r Rules) TaskRequired() bool {
	return r.requireTask || (r.task != nil && !r.task.MatchString(""))
}

// Request is a read of a credential.
type Request struct {
	Task   string // empty for none
	Caller Caller
}

// Admit says whether a credential may be minted now, and until when it may live at
// the most; zero for as long as it likes. It looks no further than to horizon: the
// end that it names may be any later one then. The error is an *invalid.Error, an
// *invalid.Denied, or the fault of one who was to tell of the caller.
func (r Rules) Admit(request Request, now, horizon time.Time) (until time.Time, err error) {
	if err := r.checkTask(request.Task); err != nil {
		return time.Time{}, err
	}
	if err := r.checkCaller(request.Caller); err != nil {
		return time.Time{}, err
	}
	return r.until(now, horizon)
}

// shortest is how long a credential lives at the least.
const shortest = time.Second

// until is Admit for the time alone.
func (r Rules) until(now, horizon time.Time) (until time.Time, err error) {
	until = r.notAfter
	open := !now.Before(r.notBefore) && (until.IsZero() || now.Before(until))
	if open && r.window != nil {
		var end time.Time
		if end, open = r.window.closes(now, horizon); until.IsZero() || end.Before(until) {
			until = end
		}
	}
	switch {
	case !open:
		return time.Time{}, invalid.Deny("the role's window is closed", r.opens(now))
	case !until.IsZero() && until.Sub(now) < shortest:
		return time.Time{}, invalid.Deny("the role's window closes in less than a second", r.opens(until))
	}
	return until, nil
}

// opens says when a credential can be read that can't be read now.
func (r Rules) opens(now time.Time) string {
	at, ever := r.NextOpening(now)
	if !ever {
		return "it does not open any more"
	}
	if r.window == nil {
		return "it opens at " + r.Show(at)
	}
	return fmt.Sprintf("it opens at %s, for %s", r.Show(at), r.window.duration)
}

// NextOpening is when credentials can be read, now or later, and false for never.
func (r Rules) NextOpening(now time.Time) (time.Time, bool) {
	at := now
	if at.Before(r.notBefore) {
		at = r.notBefore
	}
	if r.window != nil {
		if _, open := r.window.closes(at, at); !open {
			next, any := r.window.next(at)
			if !any {
				return time.Time{}, false
			}
			at = next
		}
	}
	return at, r.notAfter.IsZero() || at.Before(r.notAfter)
}

// Show is a time as the role's author thinks of it: in the window's zone.
func (r Rules) Show(at time.Time) string {
	zone := time.UTC
	if r.window != nil {
		zone = r.window.zone
	}
	return at.In(zone).Format(time.RFC3339)
}

// Cut is a life of ttl from now on, made so short that it is over when the window
// is, and what to say of that; empty where nothing was cut.
func (r Rules) Cut(ttl time.Duration, now, until time.Time) (time.Duration, string) {
	if until.IsZero() {
		return ttl, ""
	}
	left := until.Sub(now).Truncate(time.Second)
	if ttl <= left {
		return ttl, ""
	}
	return left, fmt.Sprintf("ttl of %s was cut to %s: the role's window closes at %s", ttl, left, r.Show(until))
}

// Advice is what the author of the rules should know of them.
func (r Rules) Advice(now time.Time) []string {
	var advice []string
	if _, ever := r.NextOpening(now); !ever {
		advice = append(advice, "the role's window does not open any more: no credential can be read")
	}
	if r.limits.Replace && r.limits.Any() {
		advice = append(advice, "on_limit=replace: whoever may read a credential of this role can end another's, by reading often enough")
	}
	return advice
}

// Limits are how many grants of the role may live at once.
func (r Rules) Limits() Limits { return r.limits }
