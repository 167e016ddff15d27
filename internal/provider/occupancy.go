package provider

import "context"

// Occupancy is what the live credentials of one role can take of what a target has only
// so many of, such as connections.
type Occupancy struct {
	Role      string
	Options   Settings // the role's fields for this provider
	MaxActive int      // how many of its credentials can live at once; 0 for any number
}

// OccupancyAdviser is a Provider that knows how many credentials its target has room for.
type OccupancyAdviser interface {
	// AdviseOccupancy returns a warning where all the roles of a target together can take
	// more than there is; empty where they can't.
	AdviseOccupancy(ctx context.Context, roles []Occupancy) (warning string, err error)
}
