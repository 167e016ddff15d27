package precision

import "sync"

// cache keeps what was read from storage until it is dropped, by a write on
// this node or by Invalidate after a write on another.
type cache[T any] struct {
	mu    sync.RWMutex
	items map[string]T
}

// get returns the item of that name, and loads it where it isn't there. What
// load refuses is not kept. Loading holds the lock, so that a drop that comes
// while the old entry is being read takes effect after it.
func (c *cache[T]) get(name string, load func() (T, error)) (T, error) {
	c.mu.RLock()
	item, ok := c.items[name]
	c.mu.RUnlock()
	if ok {
		return item, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if item, ok := c.items[name]; ok {
		return item, nil
	}
	item, err := load()
	if err != nil {
		return item, err
	}
	if c.items == nil {
		c.items = map[string]T{}
	}
	c.items[name] = item
	return item, nil
}

// drop forgets the item of that name.
func (c *cache[T]) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.items, name)
}
