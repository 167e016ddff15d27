package precision

import (
	"context"
	"errors"
	"sync"
)

// maxAbsent is how many names a cache remembers that have no item: readers choose the names.
const maxAbsent = 1024

// cache keeps what was read from storage until it is dropped, by a write on
// this node or by Invalidate after a write on another. Its lock is not held while storage is read: reads of names
// that don't exist must not hold up the others.
type cache[T any] struct {
	missing error // what load returns where there is no item; it is kept, too. Nil keeps none

	mu      sync.RWMutex
	items   map[string]T
	absent  map[string]struct{}
	loading map[string]*loading[T]
}

// loading is one load of an item, which all readers of its name share.
type loading[T any] struct {
	done chan struct{}
	item T
	err  error
}

// get returns the item of that name, and loads it where it isn't there. A drop that comes while storage is read
// takes effect after that: what was read is returned to those who asked before the drop, and is not kept.
func (c *cache[T]) get(ctx context.Context, name string, load func() (T, error)) (T, error) {
	for {
		c.mu.RLock()
		item, known := c.items[name]
		_, absent := c.absent[name]
		c.mu.RUnlock()
		switch {
		case known:
			return item, nil
		case absent:
			return item, c.missing
		}
		c.mu.Lock()
		shared := c.loading[name]
		if shared == nil {
			return c.load(name, load) // unlocks
		}
		c.mu.Unlock()
		select {
		case <-shared.done:
		case <-ctx.Done():
			return item, ctx.Err()
		}
		if shared.err == nil || (c.missing != nil && errors.Is(shared.err, c.missing)) {
			return shared.item, shared.err
		}
		// That may have been the other reader's own fault, such as that it has hung up.
	}
}

// load is called with mu held, and releases it.
func (c *cache[T]) load(name string, load func() (T, error)) (T, error) {
	if item, known := c.items[name]; known {
		c.mu.Unlock()
		return item, nil
	}
	own := &loading[T]{done: make(chan struct{}), err: errors.New("the load was broken off")}
	if c.loading == nil {
		c.loading = map[string]*loading[T]{}
	}
	c.loading[name] = own
	c.mu.Unlock()
	defer func() { // even if load panics
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.loading[name] == own { // not dropped since
			delete(c.loading, name)
			c.keep(name, own)
		}
		close(own.done)
	}()
	own.item, own.err = load()
	return own.item, own.err
}

// keep is called with mu held.
func (c *cache[T]) keep(name string, loaded *loading[T]) {
	switch {
	case loaded.err == nil:
		if c.items == nil {
			c.items = map[string]T{}
		}
		c.items[name] = loaded.item
	case c.missing != nil && errors.Is(loaded.err, c.missing):
		if c.absent == nil || len(c.absent) >= maxAbsent {
			c.absent = map[string]struct{}{}
		}
		c.absent[name] = struct{}{}
	}
}

// drop forgets the item of that name.
func (c *cache[T]) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.items, name)
	delete(c.absent, name)
	delete(c.loading, name)
}
