package revocation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var testMark = NewMark("0b5c7a52-7d7c-4a31-b50e-7c4b8f3f2b11", "ledger-1")

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 20261124)) }

// randomID is what a grant's id ends in.
func randomID(r *rand.Rand) string {
	id := make([]byte, idChars)
	for i := range id {
		id[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(id)
}

// randomCode is a code as Draw makes it where nothing is denied.
func randomCode(r *rand.Rand, role, task string) Code {
	return Code{testMark.text + part("role", role, 0, roleChars) + part("task", task, 0, taskChars) + randomID(r)}
}

var errAWS = errors.New("AWS says no")

// fakeIAM is a base role's policies with IAM's limits.
type fakeIAM struct {
	own     int           // characters that the role's own inline policies take
	others  int           // managed policies of others that are attached
	latency time.Duration // of each call
	silent  bool          // it does not tell its time
	// fault, if set, decides the fate of the n-th call from 1 on.
	fault func(n int, call string) (carriedOut bool, err error)
	// written, if set, is called after each call that changed something.
	written func()

	mu      sync.Mutex
	busy    bool
	inline  string
	managed map[int]Managed
	calls   int
	writes  []string
	broken  error // what no caller may do
}

func (f *fakeIAM) do(ctx context.Context, call string, slot int, change func() error) error {
	f.mu.Lock()
	if f.busy {
		f.broken = errors.New("two calls at a time")
	}
	f.busy = true
	f.calls++
	n := f.calls
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.busy = false; f.mu.Unlock() }()
	if f.latency > 0 {
		select {
		case <-time.After(f.latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	carriedOut, err := true, error(nil)
	if f.fault != nil {
		carriedOut, err = f.fault(n, call)
	}
	if !carriedOut {
		return err
	}
	if call == "Read" {
		return errors.Join(err, change())
	}
	f.mu.Lock()
	refused := change()
	f.writes = append(f.writes, fmt.Sprintf("%s %d", call, slot))
	f.mu.Unlock()
	if refused != nil {
		return refused
	}
	if f.written != nil {
		f.written()
	}
	return err
}

func (f *fakeIAM) Read(ctx context.Context) (Observed, error) {
	var seen Observed
	err := f.do(ctx, "Read", 0, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		seen = Observed{Inline: f.inline, Managed: map[int]Managed{}, Room: Room{Inline: 10240 - f.own, Managed: 10 - f.others}}
		for slot, managed := range f.managed {
			seen.Managed[slot] = managed
		}
		if !f.silent {
			seen.At = time.Now()
		}
		return nil
	})
	return seen, err
}

func (f *fakeIAM) PutInline(ctx context.Context, document string) error {
	return f.do(ctx, "PutInline", 0, func() error {
		if len(document) > 10240-f.own {
			return fmt.Errorf("%w: %d characters inline", errAWS, len(document))
		}
		f.inline = document
		return nil
	})
}

func (f *fakeIAM) DeleteInline(ctx context.Context) error {
	return f.do(ctx, "DeleteInline", 0, func() error { f.inline = ""; return nil })
}

func (f *fakeIAM) Create(ctx context.Context, slot int, document string) error {
	return f.do(ctx, "Create", slot, func() error { return f.setDocument(slot, document) })
}

func (f *fakeIAM) Update(ctx context.Context, slot int, document string) error {
	return f.do(ctx, "Update", slot, func() error {
		if _, found := f.managed[slot]; !found {
			return fmt.Errorf("%w: no policy %d", errAWS, slot)
		}
		return f.setDocument(slot, document)
	})
}

func (f *fakeIAM) setDocument(slot int, document string) error {
	if len(document) > 6144 {
		return fmt.Errorf("%w: %d characters", errAWS, len(document))
	}
	if f.managed == nil {
		f.managed = map[int]Managed{}
	}
	f.managed[slot] = Managed{Document: document, Attached: f.managed[slot].Attached}
	return nil
}

func (f *fakeIAM) Attach(ctx context.Context, slot int) error {
	return f.do(ctx, "Attach", slot, func() error {
		attached := f.others
		for other, managed := range f.managed {
			if managed.Attached && other != slot {
				attached++
			}
		}
		if _, found := f.managed[slot]; !found || attached >= 10 {
			return fmt.Errorf("%w: policy %d, %d attached", errAWS, slot, attached)
		}
		f.managed[slot] = Managed{Document: f.managed[slot].Document, Attached: true}
		return nil
	})
}

func (f *fakeIAM) Detach(ctx context.Context, slot int) error {
	return f.do(ctx, "Detach", slot, func() error {
		if managed, found := f.managed[slot]; found {
			f.managed[slot] = Managed{Document: managed.Document}
		}
		return nil
	})
}

func (f *fakeIAM) Delete(ctx context.Context, slot int) error {
	return f.do(ctx, "Delete", slot, func() error {
		if f.managed[slot].Attached {
			return fmt.Errorf("%w: policy %d is attached", errAWS, slot)
		}
		delete(f.managed, slot)
		return nil
	})
}

var fakePattern = regexp.MustCompile(`"\*:([^"]*)\*"`)

// inForce are the prefixes that IAM denies, read without this package's parser.
func (f *fakeIAM) inForce() prefixSet {
	f.mu.Lock()
	defer f.mu.Unlock()
	documents := []string{f.inline}
	for _, managed := range f.managed {
		if managed.Attached {
			documents = append(documents, managed.Document)
		}
	}
	set := prefixSet{}
	for _, found := range fakePattern.FindAllStringSubmatch(strings.Join(documents, "\n"), -1) {
		set[Prefix{found[1]}] = struct{}{}
	}
	return set
}

// policies is how many policies there are.
func (f *fakeIAM) policies() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := len(f.managed)
	if f.inline != "" {
		count++
	}
	return count
}

func (f *fakeIAM) writeCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.writes)
}

// check fails the test where the calls broke IAM's rules.
func (f *fakeIAM) check(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		t.Error(f.broken)
	}
}
