package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

var errDead = errors.New("vault is gone")

// mortalStorage is gone once it has taken a number of writes.
type mortalStorage struct {
	logical.InmemStorage
	writes atomic.Int64 // left; negative: as many as come
	taken  bool         // the write that fails is taken all the same
}

func (s *mortalStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.writes.Load() != 0 {
		s.writes.Add(-1)
		return s.InmemStorage.Put(ctx, entry)
	}
	if s.taken {
		s.taken = false
		if err := s.InmemStorage.Put(ctx, entry); err != nil {
			return err
		}
	}
	return errDead
}

// Vault dies at any write of a grant's life, the write taken or not, and the
// plugin is started anew: what lives at the target is known, and can be ended.
func TestACrashAtAnyWrite(t *testing.T) {
	for _, committed := range []bool{false, true} {
		for _, taken := range []bool{false, true} {
			for _, fate := range []string{"revoked", "mint fails", "revoke fails"} {
				for writes := 0; ; writes++ {
					name := fmt.Sprintf("committed %v, taken %v, %s, after %d writes", committed, taken, fate, writes)
					if !crash(t, name, committed, taken, fate, writes) {
						break
					}
				}
			}
		}
	}
}

// crash says whether there was one.
func crash(t *testing.T, name string, committed, taken bool, fate string, writes int) bool {
	storage, fake := &mortalStorage{taken: taken}, &providertest.Fake{}
	storage.writes.Store(int64(writes))
	var target provider.Provider = fake
	if committed {
		target = sessions{fake, func() {}}
	}
	broken := errors.New("the target broke")
	switch fate {
	case "mint fails":
		fake.OnMint = func() error { return broken }
	case "revoke fails":
		fake.OnRevoke = func() error { return broken }
	}
	w := newWorld(t)
	order := w.order(time.Hour)
	order.Provider = target
	issued, issueErr := w.Issue(t.Context(), storage, order)
	ended := EndOrder{Provider: target, ID: issued.Grant.ID, Target: "store", Handle: issued.Credential.Handle}
	var endErr error
	if issueErr == nil {
		endErr = w.End(t.Context(), storage, ended)
	}
	dead := errors.Is(issueErr, errDead) || errors.Is(endErr, errDead) || storage.writes.Load() == 0

	storage.writes.Store(-1)
	storage.taken = false
	fake.OnMint, fake.OnRevoke = nil, nil
	w.restart()
	if err := w.Index.Rebuild(t.Context(), storage, hclog.NewNullLogger(), w.Now); err != nil {
		t.Fatal(err)
	}
	known := w.Index.Live(ledger.Query{}, w.clock)
	if fake.Live() > len(known) {
		t.Errorf("%s: %d credentials live, of which the ledger knows %d", name, fake.Live(), len(known))
	}
	if issueErr == nil { // Vault has the lease, and revokes it again
		if err := w.End(t.Context(), storage, ended); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, grant := range w.Index.Live(ledger.Query{}, w.clock) {
		if err := w.End(t.Context(), storage, EndOrder{Provider: target, ID: grant.ID, Handle: grant.Handle, Cause: ledger.Swept, Unasked: true}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if live := w.Index.Live(ledger.Query{}, w.clock); fake.Live() != 0 || len(live) != 0 || len(w.Index.Unended()) != 0 {
		t.Errorf("%s: in the end %d credentials and %d grants live", name, fake.Live(), len(live))
	}
	return dead
}

// Issues and ends side by side, with a rebuild beside them; the race detector
// looks on.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	var before []Issued
	for range 100 {
		before = append(before, w.issue(time.Hour))
	}
	w.restart()
	w.Start(w.storage, writes)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 25 {
				if err := w.end(before[worker*25+i]); err != nil {
					t.Error(err)
				}
				issued, err := w.Issue(t.Context(), w.storage, w.order(time.Hour))
				if err != nil {
					t.Error(err)
					continue
				}
				if i%2 == 0 {
					continue
				}
				var two sync.WaitGroup
				for range 2 { // of one grant
					two.Go(func() {
						if err := w.end(issued); err != nil {
							t.Error(err)
						}
					})
				}
				two.Wait()
			}
		})
	}
	all.Wait()
	if err := w.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if live := w.Index.Count(ledger.Query{}, w.clock); live != 4*13 || w.target.Live() != live {
		t.Errorf("%d grants and %d credentials live, want %d", live, w.target.Live(), 4*13)
	}
}
