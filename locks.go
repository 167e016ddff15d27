package precision

import "sync"

// keyedLocks are locks by key. One that nobody holds takes no memory.
type keyedLocks struct {
	mu    sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	sync.Mutex
	users int // who hold it or wait for it
}

// lock locks a key, until unlock is called.
func (k *keyedLocks) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedLock{}
	}
	one := k.locks[key]
	if one == nil {
		one = &keyedLock{}
		k.locks[key] = one
	}
	one.users++
	k.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(k.locks, key)
		}
	}
}
