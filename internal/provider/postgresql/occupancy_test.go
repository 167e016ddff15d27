package postgresql

import (
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Roles are added up, by what they bound, and the warning says both numbers.
func TestCrowded(t *testing.T) {
	t.Parallel()
	roles := []provider.Occupancy{{Role: "a", MaxActive: 10, Options: provider.Settings{fieldLimit: 4}}, {Role: "b", MaxActive: 10}, {Role: "c"}}
	if got := crowded(roles, 95); got != "" {
		t.Errorf("95 sessions of 95: %s", got)
	}
	if got := crowded(roles, 94); !strings.Contains(got, "95") || !strings.Contains(got, "94") {
		t.Errorf("95 sessions of 94: %q", got)
	}
}
