package chaos

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// Limits hold while a leader steps down and another dies, under 64 callers who read
// through every node: no more sessions live at the store than may, those among them
// whose answer was lost.
func TestLimitsAcrossFailover(t *testing.T) {
	const (
		callers           = 64
		refusing, newest  = "refusing", "newest"
		mayRefuse, mayNew = 4, 3
		pause             = 100 * time.Millisecond // so that the nodes have time to vote
	)
	w := newWorld(t, lab.Options{Nodes: 3})
	leader, err := lab.Leader(t.Context(), w.Nodes...)
	if err != nil {
		t.Fatal(err)
	}
	w.mount(leader, mounted, "30m")
	role := func(prefix string, most int, onLimit string) map[string]any {
		return map[string]any{"target": "store", "action": putObject, "resource": "arn:aws:s3:::releases/" + prefix + "/*", "ttl": "30m", "max_active": most, "on_limit": onLimit}
	}
	w.write(leader, mounted+"/roles/"+refusing, role(refusing, mayRefuse, "refuse"))
	w.write(leader, mounted+"/roles/"+newest, role(newest, mayNew, "replace"))

	var minted, full, failed atomic.Int64
	var over atomic.Bool
	var all sync.WaitGroup
	for caller := range callers {
		client, name := clientOf(t, w.Nodes[caller%3]), []string{refusing, newest}[caller/3%2]
		all.Go(func() {
			for turn := 0; !over.Load(); turn++ {
				_, err := mint(t.Context(), client, fmt.Sprintf("%s/creds/%s/T-%d-%d", mounted, name, caller, turn))
				var answer *api.ResponseError
				switch {
				case err == nil:
					minted.Add(1)
				case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden:
					full.Add(1)
					time.Sleep(pause)
				default: // nobody leads, or not yet
					failed.Add(1)
					time.Sleep(pause)
				}
			}
		})
	}
	defer func() { over.Store(true); all.Wait() }()
	progress := func() {
		t.Helper()
		fromMinted, fromFull := minted.Load(), full.Load()
		w.eventually("callers are answered", func() error {
			if minted.Load() < fromMinted+20 || full.Load() < fromFull+100 {
				return fmt.Errorf("%d more were minted, and %d refused", minted.Load()-fromMinted, full.Load()-fromFull)
			}
			return nil
		})
		// Nobody ends a session of this role, so that they can be counted one by one.
		if live := w.working(refusing); live > mayRefuse {
			t.Errorf("%d sessions live at the store, of %d that may", live, mayRefuse)
		}
	}
	progress()
	w.eventually("the leader steps down", func() error { // on a busy machine another may lead by now
		if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil {
			return err
		}
		return leader.StepDown(t.Context())
	})
	if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil { // the same again, it may be
		t.Fatal(err)
	}
	progress()
	leader.Kill()
	progress()
	if err := leader.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	progress()
	over.Store(true)
	all.Wait()

	if leader, err = lab.Leader(t.Context(), w.Nodes...); err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]int{refusing: mayRefuse, newest: mayNew} {
		answer, err := leader.Client.Logical().ReadWithContext(t.Context(), mounted+"/grants/by-role/"+name)
		if err != nil {
			t.Fatal(err)
		}
		known, live := fmt.Sprint(answer.Data["live"]), w.working(name)
		if live > most || live == 0 || known != fmt.Sprint(most) {
			t.Errorf("%s: %d sessions live at the store and %s in the ledger, of %d that may", name, live, known, most)
		}
		figures.Log(t, "%s: may live: %d; live at the store: %d, in the ledger: %s", name, most, live, known)
	}
	figures.Log(t, "1 leader stepped down and 1 was killed under %d callers; minted: %d, refused at the limit: %d, failed meanwhile: %d", callers, minted.Load(), full.Load(), failed.Load())
}

// working counts the sessions, of all that were ever opened, that may write below a
// prefix.
func (w *world) working(prefix string) int {
	w.t.Helper()
	w.mu.Lock()
	opened := maps.Clone(w.sessions)
	w.mu.Unlock()
	live := 0
	for _, key := range opened {
		switch err := w.use(w.t.Context(), credential{key: key, object: prefix + "/1.tgz"}); {
		case err == nil:
			live++
		case !refused(err):
			w.t.Errorf("a session neither works nor is refused: %v", err)
		}
	}
	return live
}
