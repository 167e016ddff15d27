package postgresql

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// with is fields with one of them changed.
func with(fields map[string]any, name string, value any) map[string]any {
	changed := maps.Clone(fields)
	changed[name] = value
	return changed
}

// code is the server's own code of an error, empty for one that is not the server's.
func code(err error) string {
	failed := new(pgconn.PgError)
	if !errors.As(err, &failed) {
		return ""
	}
	return failed.Code
}

// denied demands of an error that the server has said no for a want of rights.
func denied(t testing.TB, what string, err error) {
	t.Helper()
	if got := code(err); got != "42501" {
		t.Errorf("%s is not denied: %v", what, err)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, longest time.Duration, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(longest); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, longest)
		}
	}
}

// noticesInto keeps what the server tells a session beside its answers.
func noticesInto(told *[]string) func(*pgconn.PgConn, *pgconn.Notice) {
	return func(_ *pgconn.PgConn, notice *pgconn.Notice) { *told = append(*told, notice.Message) }
}
