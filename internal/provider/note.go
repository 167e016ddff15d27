package provider

import (
	"context"
	"slices"
	"sync"
)

// Notes collects what a provider has to tell operators about a revocation.
type Notes struct {
	mu    sync.Mutex
	texts []string
}

// All returns the notes in the order in which they came.
func (n *Notes) All() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.texts)
}

type notesKey struct{}

// WithNotes returns a context whose notes are collected.
func WithNotes(ctx context.Context) (context.Context, *Notes) {
	notes := &Notes{}
	return context.WithValue(ctx, notesKey{}, notes), notes
}

// Note tells operators about a revocation that goes otherwise than it should, such as
// of a user that somebody renamed. The text goes to the log and into the grant's record.
// It holds no secret.
func Note(ctx context.Context, text string) {
	if notes, collected := ctx.Value(notesKey{}).(*Notes); collected {
		notes.mu.Lock()
		defer notes.mu.Unlock()
		notes.texts = append(notes.texts, text)
	}
}
