package precision

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// adviseOccupancy warns where the roles of a target, one of which is about to be written,
// can together take more than the target has.
func (b *backend) adviseOccupancy(ctx context.Context, storage logical.Storage, name string, written role, opened openTarget) (string, error) {
	adviser, able := opened.provider.(provider.OccupancyAdviser)
	if !able {
		return "", nil
	}
	names, err := storage.List(ctx, rolePrefix)
	if err != nil {
		return "", fmt.Errorf("listing roles: %w", err)
	}
	roles := []provider.Occupancy{{Role: name, Options: written.Options, MaxActive: written.Admission.MaxActive}}
	for _, other := range names {
		if other == name {
			continue
		}
		stored, err := b.openRole(ctx, storage, other)
		switch {
		case errors.Is(err, errNoRole): // deleted since it was listed
		case err != nil:
			return "", fmt.Errorf("role %q: %w", other, err)
		case stored.Target == written.Target:
			roles = append(roles, provider.Occupancy{Role: other, Options: stored.Options, MaxActive: stored.Admission.MaxActive})
		}
	}
	return adviser.AdviseOccupancy(ctx, roles)
}
