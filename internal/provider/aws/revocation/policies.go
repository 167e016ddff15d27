package revocation

import (
	"context"
	"fmt"
	"time"
)

// Policies are the policies of one base role that this package writes: one inline
// policy, and managed ones in numbered slots from 1 on. Calls come one at a time.
// Deleting or detaching what is not there succeeds. An error may mean that the
// call has been carried out all the same.
type Policies interface {
	// Read says what is there and how much room there is.
	Read(ctx context.Context) (Observed, error)
	PutInline(ctx context.Context, document string) error
	DeleteInline(ctx context.Context) error
	// Create makes the slot's policy without attaching it. Where it exists, as after
	// a read that was out of date, it is updated.
	Create(ctx context.Context, slot int, document string) error
	// Update gives the slot's policy a new default version, and makes room for it
	// among the five that IAM keeps.
	Update(ctx context.Context, slot int, document string) error
	Attach(ctx context.Context, slot int) error
	Detach(ctx context.Context, slot int) error
	// Delete deletes a detached policy with all its versions.
	Delete(ctx context.Context, slot int) error
}

// Observed is what Read found.
type Observed struct {
	Inline  string // the document; empty where there is no such policy
	Managed map[int]Managed
	Room    Room
	// At is what AWS's clock said when it answered; zero where that is not known.
	At time.Time
}

// Managed is a managed policy that exists.
type Managed struct {
	Document string // the default version
	Attached bool
}

// Room is what the base role's other policies leave for those of this package,
// what these already take included.
type Room struct {
	// Inline is the number of characters of the inline policy, white space not
	// counted: of all inline policies together a role may have 10,240, a user 2,048.
	Inline int
	// Managed is the number of managed policies that may be attached.
	Managed int
}

// document is the number of characters that a slot's document may have.
func (r Room) document(slot int) int {
	if slot == inline {
		return r.Inline
	}
	return ManagedRoom
}

// any says whether a single revocation fits.
func (r Room) any() bool {
	return r.Managed > 0 || entryRoom(r.Inline) >= entrySize(Prefix{text: alphabet[:shortest]})
}

// maxManaged is more than the managed policies that AWS attaches to one role.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const maxManaged = 40

// layout is what was found, in this package's terms.
func (o Observed) layout() (layout, error) {
	found := layout{}
	if len(o.Managed) > maxManaged || o.Room.Managed > maxManaged {
		return nil, fmt.Errorf("revocation: %d managed policies and room for %d are more than a role has", len(o.Managed), o.Room.Managed)
	}
	add := func(slot int, document string, attached bool) {
		entries, stamp, err := parseDocument(document)
		if err != nil {
			entries = suspects(document)
		}
		found[slot] = policy{entries: entries, attached: attached, foreign: err != nil, stamp: stamp}
	}
	if o.Inline != "" {
		add(inline, o.Inline, true)
	}
	for slot, managed := range o.Managed {
		if slot <= inline {
			return nil, fmt.Errorf("revocation: no managed policy has slot %d", slot)
		}
		add(slot, managed.Document, managed.Attached)
	}
	return found, nil
}
