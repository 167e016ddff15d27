package provider

import (
	"context"
	"errors"
	"iter"
	"time"
)

// OrphanFinder is a Provider that can list what it has made at its target, so
// that what the ledger does not know can be found and ended.
type OrphanFinder interface {
	// Marked lists what bears a mount's mark at the target. What is of a grant
	// that known says yes to may be left out, where that saves a call: known compares
	// the grant's handle with what of it the target has said already, nil for nothing. What
	// can't be listed is an error in between or at the end; it is
	// ErrNotPermitted where the engine lacks a right that only this needs.
	Marked(ctx context.Context, mount string, known func(grant string, handle Handle) bool) iter.Seq2[Marked, error]
}

// ErrNotPermitted is returned where the engine's own user lacks a right that it
// can do without.
var ErrNotPermitted = errors.New("the engine's user lacks the right")

// Marked is an object at a target, and what its mark says. What the mark leaves
// open is empty.
type Marked struct {
	Handle    Handle // that Revoke ends it by
	Mount     string // UUID of the mount
	Ledger    string // the ledger's own id
	Grant     string // id of the grant
	Role      string
	Task      string
	ExpiresAt time.Time
}
