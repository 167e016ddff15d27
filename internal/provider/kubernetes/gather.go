package kubernetes

import (
	"context"
	"sync"
	"time"
)

// gathered is a question that many ask at the same time. Each gets an answer that was
// asked for after it came, so none is older than who gets it; and however many come,
// there is one question under way.
type gathered[T any] struct {
	mu    sync.Mutex
	next  *round[T] // that has not begun; nil for none
	under bool      // whether one is under way
}

type round[T any] struct {
	ask   func(context.Context) (T, error)
	done  chan struct{}
	value T
	err   error
}

// ask waits for an answer. The question has a context of its own, which ends after
// limit: who gives up must not take the answer from others.
func (g *gathered[T]) ask(ctx context.Context, limit time.Duration, ask func(context.Context) (T, error)) (T, error) {
	g.mu.Lock()
	if g.next == nil {
		g.next = &round[T]{ask: ask, done: make(chan struct{})}
	}
	mine := g.next
	if !g.under {
		g.under = true
		go g.rounds(context.WithoutCancel(ctx), limit)
	}
	g.mu.Unlock()
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
}

// rounds asks until nobody waits any more.
func (g *gathered[T]) rounds(ctx context.Context, limit time.Duration) {
	for {
		g.mu.Lock()
		mine := g.next
		g.next = nil
		g.under = mine != nil
		g.mu.Unlock()
		if mine == nil {
			return
		}
		limited, cancel := context.WithTimeout(ctx, limit)
		mine.value, mine.err = mine.ask(limited)
		cancel()
		close(mine.done)
	}
}
