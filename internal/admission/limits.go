package admission

import (
	"fmt"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Limits are how many grants may live at once; 0 for any number.
type Limits struct {
	Active, PerTask int
	Replace         bool // the oldest gives way, instead of the newest being refused
}

// Any says whether there is a limit at all.
func (l Limits) Any() bool { return l.Active > 0 || l.PerTask > 0 }

func (r *Rules) parseLimits(texts Texts) error {
	for _, limit := range []struct {
		field string
		value int
	}{{"max_active", texts.MaxActive}, {"max_active_per_task", texts.MaxActivePerTask}} {
		if limit.value < 0 {
			return invalid.Field(limit.field, fmt.Sprint(limit.value), "less than 0", "give how many may live at once, or 0 for any number")
		}
	}
	r.limits = Limits{Active: texts.MaxActive, PerTask: texts.MaxActivePerTask}
	switch texts.OnLimit {
	case "", Refuse:
	case Replace:
		r.limits.Replace = true
	default:
		return invalid.Field("on_limit", texts.OnLimit, "nothing that can be done on a limit", "write "+Refuse+" or "+Replace)
	}
	// Credentials without a task would have no limit.
	if r.limits.PerTask > 0 && !r.TaskRequired() {
		return invalid.Field("max_active_per_task", fmt.Sprint(r.limits.PerTask), "a credential can be read without a task, and so past the limit", "write require_task=true, too, or max_active instead")
	}
	return nil
}

// Room says whether there is room for one more beside so many grants that live: of
// the role, and of the role and the task. It is asked for counts only of limits
// that there are. ofTask tells which limit leaves none.
func (l Limits) Room(ofRole, perTask func() int) (ofTask bool, denied *invalid.Denied) {
	const remedy = "revoke one, or wait until one ends"
	if l.PerTask > 0 {
		if live := perTask(); live >= l.PerTask {
			return true, invalid.Deny(fmt.Sprintf("the role's live grants for this task: %d, and max_active_per_task is %d", live, l.PerTask), remedy)
		}
	}
	if l.Active > 0 {
		if live := ofRole(); live >= l.Active {
			return false, invalid.Deny(fmt.Sprintf("the role's live grants: %d, and max_active is %d", live, l.Active), remedy)
		}
	}
	return false, nil
}
