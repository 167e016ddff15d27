package postgresql

import (
	"context"
	"fmt"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// AdviseOccupancy implements provider.OccupancyAdviser: sessions of credentials must not
// take all connections of the server. Roles that bound neither count as one credential.
func (p *postgres) AdviseOccupancy(ctx context.Context, roles []provider.Occupancy) (string, error) {
	conn, err := p.server.borrow(ctx)
	if err != nil {
		return "", p.unreached(err)
	}
	defer conn.Release()
	var most int
	err = conn.QueryRow(ctx, `SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
     - coalesce(current_setting('reserved_connections', true)::integer, 0)`).Scan(&most)
	if err != nil {
		return "", said("how many connections the server takes", err)
	}
	return crowded(roles, most), nil
}

// crowded is the warning where roles can have more sessions than a server takes.
func crowded(roles []provider.Occupancy, most int) string {
	sessions := 0
	for _, role := range roles {
		limit, given := role.Options.Number(fieldLimit)
		if !given {
			limit = defaultLimit
		}
		sessions += limit * max(1, role.MaxActive)
	}
	if sessions <= most {
		return ""
	}
	return fmt.Sprintf("the credentials of this target's roles can have %d sessions at once (connection_limit times max_active, of %d roles), and the server takes %d: "+
		"lower them, or nobody else gets in while they are used", sessions, len(roles), most)
}
