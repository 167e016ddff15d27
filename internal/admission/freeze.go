package admission

import (
	"fmt"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// Subject is what can be frozen: one role, one target, or all.
type Subject struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name,omitempty"` // empty for FreezeAll
}

// Kind of a subject.
type Kind string

const (
	FreezeAll    Kind = "all"
	FreezeRole   Kind = "role"
	FreezeTarget Kind = "target"
)

func (s Subject) String() string {
	if s.Kind == FreezeAll {
		return "everything"
	}
	return fmt.Sprintf("%s %q", s.Kind, s.Name)
}

// Freeze refuses every mint of its subject. Once it has been lifted, it is kept as
// a record.
type Freeze struct {
	ID      string  `json:"id"`
	Subject Subject `json:"subject"`
	// System tells which system a frozen target was, see ledger.Grant: other targets that
	// are the same system are frozen with it. It is empty where that is not known.
	System string             `json:"system,omitempty"`
	By     approval.Decision  `json:"by"`
	Lifted *approval.Decision `json:"lifted,omitempty"`
}

// Freezes are those that are in force, by subject.
type Freezes map[Subject]Freeze

// Refuse is why nothing is minted or renewed of a role on a target, which is a system,
// nil if something may be. The widest freeze is named.
func (f Freezes) Refuse(role, target, system string) error {
	for _, subject := range []Subject{{Kind: FreezeAll}, {FreezeTarget, target}, {FreezeRole, role}} {
		if frozen, found := f[subject]; found {
			return invalid.Deny(
				fmt.Sprintf("%s is frozen since %s: %s", subject, frozen.By.At.UTC().Format(time.RFC3339), frozen.By.Reason),
				"nothing is minted until it is unfrozen")
		}
	}
	for subject, frozen := range f {
		if subject.Kind == FreezeTarget && system != "" && frozen.System == system {
			return invalid.Deny(
				fmt.Sprintf("target %q is the same system as %s, which is frozen since %s: %s", target, subject, frozen.By.At.UTC().Format(time.RFC3339), frozen.By.Reason),
				"nothing is minted until it is unfrozen")
		}
	}
	return nil
}
