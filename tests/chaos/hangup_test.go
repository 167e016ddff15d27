package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Callers hang up at random moments of 2,000 mints. What they never got is ended
// at once; what crosses with the answer is swept.
func TestCallersHangUp(t *testing.T) {
	t.Parallel()
	const (
		mints   = 2000
		callers = 32
		ttl     = 20 * time.Second
	)
	w := newWorld(t, lab.Options{Moto: true})
	w.mount(w.Vault, mounted, ttl.String())
	var turn, answered, hungUp atomic.Int64
	var mu sync.Mutex
	// How long a mint takes at present: who hangs up does so within twice that. Each
	// fourth has patience, and tells.
	typical := map[string]time.Duration{}
	var all sync.WaitGroup
	for caller := range callers {
		client := clientOf(t, w.Vault)
		random := rand.New(rand.NewPCG(seed, uint64(caller)))
		all.Go(func() {
			for i := turn.Add(1); i <= mints; i = turn.Add(1) {
				role := []string{onStore, onCloud}[i%2]
				mu.Lock()
				patience := time.Duration(random.Float64() * 2 * float64(typical[role]))
				mu.Unlock()
				patient := patience == 0 || i%8 < 2
				if patient {
					patience = time.Hour
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				started := time.Now()
				path := fmt.Sprintf("%s/creds/%s/T-%d", mounted, role, i)
				_, err := mint(ctx, client, path)
				for patient && busy(err) {
					time.Sleep(time.Second)
					_, err = mint(ctx, client, path)
				}
				cancel()
				switch {
				case patient && err != nil:
					t.Errorf("one who had patience got no credential: %v", err)
				case patient:
					answered.Add(1)
					mu.Lock()
					typical[role] = (3*typical[role] + time.Since(started)) / 4
					mu.Unlock()
				case err != nil:
					hungUp.Add(1)
				default:
					answered.Add(1)
				}
			}
		})
	}
	all.Wait()
	users, err := w.usersLeft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	crossed := 0
	held, err := leases(t.Context(), w.Vault.Client, mounted+"/creds/"+onCloud+"/")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range users {
		if !slices.ContainsFunc(held, func(lease string) bool { return strings.Contains(lease, "/"+task+"/") }) {
			crossed++
		}
	}
	if hungUp.Load() < mints/10 {
		t.Errorf("only %d callers hung up", hungUp.Load())
	}
	w.eventually("nothing is alive", func() error { return w.alive(w.Vault, mounted) })
	// Where Vault has written a lease for a caller who hangs up just then, it gives
	// up, and neither deletes what it has written nor looks at it before it is
	// unsealed again. Its credential is dead by then.
	w.Vault.Stop()
	if err := w.Vault.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is left", func() error { return w.left(w.Vault, mounted) })
	grants, err := w.ledger(w.Vault, mounted)
	if err != nil {
		t.Fatal(err)
	}
	figures.Log(t, "mints: %d; answered: %d, hung up on: %d; users without a lease just afterwards: %d; in the ledger: %s; left behind: 0",
		mints, answered.Load(), hungUp.Load(), crossed, endings(grants))
}

// busy says whether a mint may succeed when it is tried again: the target has too much to do.
func busy(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusServiceUnavailable
}
