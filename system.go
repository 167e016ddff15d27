package precision

import (
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// systemTTL is how long an answer of Vault's is taken for granted. Each question
// is a round trip to Vault's process, and the framework asks one per request.
const systemTTL = 5 * time.Second

// cachedSystem is Vault's view of the mount with the answers that every request
// needs kept for systemTTL. What Vault could not answer, which is a zero value
// for want of an error, is asked again.
type cachedSystem struct {
	logical.SystemView
	now          func() time.Time
	defaultTTL   cachedAnswer[time.Duration]
	maxTTL       cachedAnswer[time.Duration]
	replications cachedAnswer[consts.ReplicationState]
}

func (s *cachedSystem) DefaultLeaseTTL() time.Duration {
	return s.defaultTTL.get(s.now(), s.SystemView.DefaultLeaseTTL)
}

func (s *cachedSystem) MaxLeaseTTL() time.Duration {
	return s.maxTTL.get(s.now(), s.SystemView.MaxLeaseTTL)
}

func (s *cachedSystem) ReplicationState() consts.ReplicationState {
	return s.replications.get(s.now(), s.SystemView.ReplicationState)
}

// maxLeaseTTLNow asks Vault anew, since the mount may have been tuned a moment ago.
func (s *cachedSystem) maxLeaseTTLNow() time.Duration {
	s.maxTTL.forget()
	return s.MaxLeaseTTL()
}

type cachedAnswer[T comparable] struct {
	mu     sync.Mutex
	answer T
	until  time.Time
}

// forget has the next get ask.
func (c *cachedAnswer[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
}

func (c *cachedAnswer[T]) get(now time.Time, ask func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.until) {
		return c.answer
	}
	c.answer = ask()
	if c.answer != *new(T) {
		c.until = now.Add(systemTTL)
	}
	return c.answer
}
