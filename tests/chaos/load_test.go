package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// seed makes the random moments the same each time, as far as a machine can.
const seed = 20260329

// load is what callers do who mint, use and revoke without a pause.
type load struct {
	w    *world
	over atomic.Bool
	all  sync.WaitGroup

	minted, revoked, failed atomic.Int64
	last                    atomic.Value // the error of the last mint that was refused
}

// start lets callers mint and revoke on a mount, half of them on each target.
func (w *world) start(vault *lab.Vault, path string, callers int) *load {
	ctx := w.t.Context()
	l := &load{w: w}
	for caller := range callers {
		role := []string{onStore, onCloud}[caller%2]
		client := clientOf(w.t, vault)
		random := rand.New(rand.NewPCG(seed, uint64(caller)))
		l.all.Go(func() {
			for turn := 0; ctx.Err() == nil && !l.over.Load(); turn++ {
				l.turn(ctx, client, fmt.Sprintf("%s/creds/%s/T-%d-%d", path, role, caller, turn), random)
			}
		})
	}
	return l
}

// turn is a credential's life: of three, two are revoked, and one is left to
// its lease.
func (l *load) turn(ctx context.Context, client *api.Client, path string, random *rand.Rand) {
	const pause = 50 * time.Millisecond // of one who was refused
	minted, err := mint(ctx, client, path)
	if err != nil {
		l.failed.Add(1)
		l.last.Store(err.Error())
		time.Sleep(pause)
		return
	}
	l.minted.Add(1)
	if random.IntN(3) == 0 {
		return
	}
	if err := revoke(ctx, client, minted.LeaseID); err != nil {
		l.failed.Add(1)
		time.Sleep(pause)
		return
	}
	l.revoked.Add(1)
	if l.w.use(ctx, minted) == nil {
		l.w.t.Errorf("Vault says that %s is revoked, and its credential works", minted.LeaseID)
	}
}

// progress waits until callers have minted a few more credentials.
func (l *load) progress(count int64) {
	l.w.t.Helper()
	from := l.minted.Load()
	l.w.eventually("callers mint again", func() error {
		if minted := l.minted.Load() - from; minted < count {
			return fmt.Errorf("%d more were minted, and the last error was: %v", minted, l.last.Load())
		}
		return nil
	})
}

// stop lets callers finish what they do: see TestCallersHangUp for those who don't.
func (l *load) stop() {
	l.over.Store(true)
	l.all.Wait()
}
