package aws

import (
	"errors"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
)

// Throttled implements provider.Throttler. A call whose turn did not come was not even
// made: AWS had throttled others.
func (a *account) Throttled(err error) bool {
	return throttled(err) || errors.Is(err, circuit.ErrPressed)
}
