package sweep

import (
	"maps"
	"slices"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Status is what the sweeper does, and what each of its steps did last. A step
// that has not been taken yet has no time.
type Status struct {
	Step    string // of a sweep that is under way; empty between sweeps
	Begun   time.Time
	End     EndStep
	Remove  RemoveStep
	Pack    PackStep
	Retire  RetireStep
	Tidy    TidyStep
	Orphans OrphanStep
	// Again counts the grants whose end has failed, and that are tried again.
	Again int
	// Unreachable counts, by target, those of them whose target is not
	// configured any more, or is another system now.
	Unreachable map[string]int
	// Blocked are the disabled credentials whose clean-up others' objects stop, at most
	// maxBlocked of them, by grant.
	Blocked []Blocked
	// Access says, by target, why the engine's own access there can't be kept up.
	Access map[string]string
}

// Blocked is a disabled credential whose clean-up something of others stops, see
// provider.CleanupBlocked.
type Blocked struct{ Grant, Target, Reason, Remedy string }

// EndStep ended what was due.
type EndStep struct {
	At            time.Time
	Ended, Failed int // grants
}

// RemoveStep removed what had been installed at targets and nothing needs any more.
type RemoveStep struct {
	At      time.Time
	Removed int
	Staying map[string]int // by target, what could not be removed
	Problem string         // the last one, or why nothing is removed
}

// PackStep moved finished grants into the history.
type PackStep struct {
	At              time.Time
	Grants, Damaged int
	Problem         string
}

// RetireStep forgot what is older than the retention.
type RetireStep struct {
	At      time.Time
	Deleted int // segments of the history, and damaged records
	Problem string
}

// TidyStep tidied up requests and freezes.
type TidyStep struct {
	At time.Time
	Tidied
	Problem string
}

// Tidied is what a TidyStep did.
type Tidied struct {
	Moved   int // requests, to the past
	Deleted int // requests and freezes
}

// OrphanStep looked for what the ledger does not know at the targets.
type OrphanStep struct {
	At      time.Time
	Problem string
	Targets []TargetStep
}

// TargetStep is what was found at a target.
type TargetStep struct {
	Target  string
	Listed  bool // what bears a mark can be listed there at all
	Foreign int  // objects below the mount's path with another ledger's mark, or none
	Ended   int  // objects that were ended
	Orphans []Orphan
	Problem string
}

// Orphan is an object that bears the mark of this mount and ledger, and whose
// grant the ledger does not know.
type Orphan struct {
	Name   string // at the target, as its handle says
	Grant  string // as its mark says
	EndsAt time.Time
	Fate   Fate
}

// Fate is what becomes of an orphan.
type Fate string

const (
	Waits   Fate = "waits for its end"
	IsEnded Fate = "ended"
	Fails   Fate = "could not be ended"
	Stays   Fate = "its mark states no end"
)

const (
	maxOrphans = 100 // that a status names of a target
	maxBlocked = 100 // that a status names
)

// Status returns what the sweeper does, and what it did last.
func (s *Sweeper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Again = len(s.tries)
	status.Access = map[string]string{}
	maps.Copy(status.Access, s.access)
	for _, id := range slices.Sorted(maps.Keys(s.messes)) {
		if blocked := s.messes[id].blocked; blocked != nil && len(status.Blocked) < maxBlocked {
			status.Blocked = append(status.Blocked, *blocked)
		}
	}
	status.Unreachable = map[string]int{}
	for _, target := range s.unreachable {
		status.Unreachable[target]++
	}
	return status
}

// note changes the status.
func (s *Sweeper) note(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

func problem(err error) string {
	if err == nil {
		return ""
	}
	return invalid.Clip(err.Error())
}
