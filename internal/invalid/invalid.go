// Package invalid is the one shape of an error that a caller can mend: which
// field, what it held, what is wrong with it, and what would be right.
package invalid

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// shown is the number of characters of an offending value that an error
// repeats: enough to recognise it, too few to flood a log.
const shown = 120

// Error says that a field's value can't be used. Handlers answer it with
// status 400; everything else is a fault and becomes a 500.
type Error struct {
	Field   string // the field's name as the caller writes it
	Problem string // what is wrong, without a full stop
	Remedy  string // what would be right, without a full stop

	value    string
	hasValue bool
	cause    error
}

// Field reports that field holds value, why that is wrong, and what would be
// right.
func Field(field, value, problem, remedy string) *Error {
	return &Error{Field: field, Problem: problem, Remedy: remedy, value: Clip(value), hasValue: true}
}

// Hidden is Field without the value: it is a secret, may hold one, or is missing.
func Hidden(field, problem, remedy string) *Error {
	return &Error{Field: field, Problem: problem, Remedy: remedy}
}

// Because gives the error a cause that errors.Is finds. The text stays as it is.
func (e *Error) Because(cause error) *Error {
	e.cause = cause
	return e
}

// Unwrap is the cause, nil where none was given.
func (e *Error) Unwrap() error { return e.cause }

// Error implements error.
func (e *Error) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "invalid %s", e.Field)
	if e.hasValue {
		fmt.Fprintf(&text, " %q", e.value)
	}
	fmt.Fprintf(&text, ": %s", e.Problem)
	if e.Remedy != "" {
		fmt.Fprintf(&text, "; %s", e.Remedy)
	}
	return text.String()
}

// Clip cuts value to a length that an error may repeat.
func Clip(value string) string {
	if len(value) <= shown {
		return value
	}
	cut := shown
	for cut > 0 && !utf8.RuneStart(value[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes)", value[:cut], len(value))
}

// Mask shows the start of an identifier that stands beside a secret, enough to
// recognise it: operators swap the two, and Vault's audit log keeps errors as
// they are.
func Mask(value string) string {
	const start = 4
	runes := []rune(value)
	if len(runes) <= start {
		return value
	}
	return string(runes[:start]) + "…"
}

// OneOf lists allowed values for a remedy: "name a, b or c".
func OneOf(values []string) string { return enumerate(values, "or") }

// AllOf lists values that something is true of: "a, b and c".
func AllOf(values []string) string { return enumerate(values, "and") }

func enumerate(values []string, conjunction string) string {
	switch len(values) {
	case 0:
		return "nothing"
	case 1:
		return values[0]
	default:
		last := len(values) - 1
		return strings.Join(values[:last], ", ") + " " + conjunction + " " + values[last]
	}
}
