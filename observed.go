package precision

import (
	"sync"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// observations are what targets have said of roles' credentials, by role. They
// are in memory only: what is known on one node, and until the plugin ends.
type observations struct {
	mu sync.Mutex
	by map[string]observation
}

// observation is what was seen with a role's last credential.
type observation struct {
	values   map[string]any
	warnings []string
}

// note keeps what was seen with a credential, if anything was.
func (o *observations) note(role string, minted provider.Credential) {
	if len(minted.Observed)+len(minted.Warnings) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = map[string]observation{}
	}
	o.by[role] = observation{values: minted.Observed, warnings: minted.Warnings}
}

func (o *observations) of(role string) observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.by[role]
}

func (o *observations) forget(role string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.by, role)
}
