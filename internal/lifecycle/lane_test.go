package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/circuit"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/telemetry"
)

// refusing is what a target's client says where nothing listens.
var refusing error = &url.Error{Op: "Post", URL: "http://127.0.0.1:1", Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}

// throttling is a target that is asked too much.
type throttling struct{ *providertest.Fake }

var errSlowDown = errors.New("slow down")

func (throttling) Throttled(err error) bool { return errors.Is(err, errSlowDown) }

func TestOutcomes(t *testing.T) {
	for _, test := range []struct {
		err     error
		outcome telemetry.Outcome
		verdict circuit.Verdict
	}{
		{nil, telemetry.OK, circuit.Answered},
		{errors.New("minio: AccessDenied"), telemetry.Failed, circuit.Answered},
		{errSlowDown, telemetry.Throttled, circuit.Answered},
		{invalid.Hidden("action", "no", "no"), telemetry.Refused, circuit.Answered},
		{refusing, telemetry.Unreachable, circuit.Unanswered},
		{io.EOF, telemetry.Unreachable, circuit.Unanswered},
		{&net.DNSError{IsNotFound: true}, telemetry.Failed, circuit.Answered}, // without a dial
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, telemetry.Timeout, circuit.Unanswered},
		{context.DeadlineExceeded, telemetry.Timeout, circuit.Unanswered},
		{&url.Error{Err: context.DeadlineExceeded}, telemetry.Timeout, circuit.Unanswered},
		{&url.Error{Err: context.Canceled}, telemetry.HungUp, circuit.Nothing},
		{ErrTooLate, telemetry.TooLate, circuit.Answered},
		{ErrOvertaken, telemetry.Overtaken, circuit.Answered},
		{&UnavailableError{Cause: circuit.ErrBusy}, telemetry.Busy, circuit.Answered},
		{&UnavailableError{Cause: &circuit.DownError{}}, telemetry.Down, circuit.Answered},
	} {
		wrapped := test.err
		if wrapped != nil {
			wrapped = fmt.Errorf("minting: %w", errors.Join(errors.New("and another"), test.err))
		}
		if outcome := outcomeOf(throttling{}, wrapped); outcome != test.outcome {
			t.Errorf("%v: outcome %s, want %s", test.err, outcome, test.outcome)
		}
		if verdict := verdictOf(wrapped); verdict != test.verdict {
			t.Errorf("%v: verdict %d, want %d", test.err, verdict, test.verdict)
		}
	}
}

// counted is what has been counted of a target.
func (w *world) counted(target string, operation telemetry.Operation) string {
	return fmt.Sprint(w.Metrics.Snapshot().Targets[target].Operations[operation])
}

// live is a world whose clock goes on, in a bubble, and whose target is known.
func live(t *testing.T) *world {
	w := newWorld(t)
	w.Now = time.Now
	w.Opened("store", "fake")
	return w
}

// A target that is gone is found out after a few mints; from then on mints are
// refused without a trace in the ledger, with status 503, and so are revokes
// until it is back. Then what is asked for once more succeeds.
func TestATargetGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := live(t)
		var issued []Issued
		for range 20 {
			issued = append(issued, w.issue(time.Hour))
		}
		w.target.OnMint, w.target.OnRevoke = func() error { return refusing }, func() error { return refusing }
		var down *UnavailableError
		tried := 0
		for ; !errors.As(w.issueErr(), &down); tried++ {
		}
		if tried == 0 || tried > 10 || down.Code() != http.StatusServiceUnavailable {
			t.Errorf("refused after %d mints with status %d", tried, down.Code())
		}
		before := len(w.keys())
		for range 10 {
			if err := w.issueErr(); !errors.As(err, &down) {
				t.Errorf("got %v", err)
			}
		}
		if after := len(w.keys()); after != before {
			t.Errorf("%d records of mints that were refused", after-before)
		}
		for _, one := range issued[:10] {
			if err := w.end(one); !errors.As(err, &down) || !Unanswered(err) {
				t.Errorf("got %v", err)
			}
		}
		if unended := len(w.Index.Unended()); unended < 10 {
			t.Errorf("%d are to end, want 10 and what the mints left", unended)
		}

		w.target.OnMint, w.target.OnRevoke = nil, nil
		time.Sleep(time.Minute)
		var all sync.WaitGroup
		for _, one := range issued {
			all.Go(func() {
				if err := w.end(one); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		w.issue(time.Hour)
		if state := w.State("store"); state != (circuit.State{}) {
			t.Errorf("in the end: %+v", state)
		}
	})
}

// Opening a target anew, as a write of its configuration does, forgets that it
// did not answer.
func TestATargetThatIsOpenedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := live(t)
		gone := func() error { return refusing }
		w.target.OnMint, w.target.OnRevoke = gone, gone
		for range 10 {
			_ = w.issueErr()
		}
		if !w.State("store").Down {
			t.Error("a target that is gone is not given up")
		}
		w.target.OnMint, w.target.OnRevoke = nil, nil
		w.Opened("store", "fake")
		w.issue(time.Hour)
	})
}

// What the target answers, even that it is asked too much, keeps it from no one.
func TestRefusalsOfTheTargetDoNotCloseIt(t *testing.T) {
	w := newWorld(t)
	w.Opened("store", "fake")
	order := w.order(time.Hour)
	order.Provider = throttling{w.target}
	for _, err := range []error{errSlowDown, errors.New("no")} {
		w.target.OnMint = func() error { return err }
		for range 100 {
			if _, got := w.Issue(t.Context(), w.storage, order); !errors.Is(got, err) {
				t.Fatalf("got %v, want %v", got, err)
			}
		}
	}
	if got := w.counted("store", telemetry.Mint); got != "map[failed:100 throttled:100]" {
		t.Errorf("counted %s", got)
	}
}

// hung is a target that takes calls and never answers.
type hung struct{ *providertest.Fake }

func (hung) Mint(ctx context.Context, _ provider.Handle, _ provider.Policy, _ time.Time) (provider.Credential, error) {
	<-ctx.Done()
	return provider.Credential{}, ctx.Err()
}

func (hung) Revoke(ctx context.Context, _ provider.Handle) error {
	<-ctx.Done()
	return ctx.Err()
}

// A target that hangs, with more callers and ends than there is room for on it,
// takes nothing from another: not a slot, not a turn.
func TestATargetThatHangsHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := live(t)
		w.Opened("dead", "fake")
		var all sync.WaitGroup
		var answered atomic.Int32
		dead := w.order(time.Hour)
		dead.Provider, dead.Target = hung{w.target}, "dead"
		for range 64 {
			all.Go(func() {
				if _, err := w.Issue(t.Context(), w.storage, dead); err == nil {
					t.Error("a target that hangs has minted")
				}
				answered.Add(1)
			})
		}
		for range 2 * maxEnds {
			all.Go(func() {
				order := EndOrder{Provider: hung{w.target}, ID: ledger.NewID(time.Now().Add(time.Hour)), Target: "dead", Handle: provider.Handle{"fake_grant": "x"}}
				if err := w.End(t.Context(), w.storage, order); err == nil {
					t.Error("a target that hangs has revoked")
				}
				answered.Add(1)
			})
		}
		synctest.Wait()
		started := time.Now()
		for range 100 {
			if err := w.end(w.issue(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if answered.Load() != 0 || time.Since(started) != 0 {
			t.Errorf("while 100 credentials were minted and ended, %d callers of the dead target had an answer, and %s went by", answered.Load(), time.Since(started))
		}
		all.Wait()
		time.Sleep(10 * time.Minute) // until nothing goes on behind
		synctest.Wait()
		if !w.State("dead").Down || len(w.actors) != 0 || len(w.lane("dead").slots) != 0 {
			t.Errorf("in the end: %+v, %d under way", w.State("dead"), len(w.actors))
		}
		if got := w.counted("store", telemetry.Mint); got != "map[ok:100]" {
			t.Errorf("of the other were counted %s", got)
		}
	})
}

// A mint that has waited for its turn in vain leaves a record that says so, and
// nothing to be ended.
func TestAMintThatFoundNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := live(t)
		w.target.OnMint = func() error { time.Sleep(20 * time.Second); return nil }
		var all sync.WaitGroup
		var busy atomic.Int32
		const callers = 64
		for range callers {
			all.Go(func() {
				_, err := w.Issue(t.Context(), w.storage, w.order(time.Hour))
				switch down := (*UnavailableError)(nil); {
				case err == nil:
				case errors.As(err, &down) && errors.Is(err, circuit.ErrBusy):
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if live := w.Index.Count(ledger.Query{}, time.Now()); busy.Load() == 0 || live != callers-int(busy.Load()) || w.target.Live() != live || len(w.Index.Unended()) != 0 {
			t.Errorf("%d were refused, %d grants and %d credentials live", busy.Load(), live, w.target.Live())
		}
		if got, want := w.counted("store", telemetry.Mint), fmt.Sprintf("map[busy:%d ok:%d]", busy.Load(), callers-busy.Load()); got != want {
			t.Errorf("counted %s, want %s", got, want)
		}
	})
}

// How a mint came out is counted once, and how often an end was tried.
func TestWhatIsCounted(t *testing.T) {
	w := newWorld(t)
	w.Opened("store", "fake")
	issued := w.issue(time.Hour)
	w.target.OnRevoke = func() error { return refusing }
	_ = w.end(issued)
	w.target.OnRevoke = nil
	for range 2 { // the second finds it done
		if err := w.end(issued); err != nil {
			t.Error(err)
		}
	}
	ctx, hangUp := context.WithCancel(t.Context())
	w.target.OnMint = func() error { hangUp(); return nil }
	_, _ = w.Issue(ctx, w.storage, w.order(time.Hour))
	w.target.OnMint = func() error { w.clock = w.clock.Add(time.Minute); return nil }
	_, _ = w.Issue(t.Context(), w.storage, w.order(time.Second))
	w.target.OnMint = nil
	order := w.order(time.Hour)
	order.Limit = func(ledger.Counts) error { return invalid.Hidden("role", "full", "wait") }
	w.Start(w.storage, writes)
	_, _ = w.Issue(t.Context(), w.storage, order)
	if got := w.counted("store", telemetry.Mint); got != "map[hung_up:1 ok:1 refused:1 too_late:1]" {
		t.Errorf("mints: %s", got)
	}
	if got := w.counted("store", telemetry.Revoke); got != "map[ok:3 unreachable:1]" {
		t.Errorf("revokes: %s", got)
	}
	seconds := w.Metrics.Snapshot().Targets["store"].Seconds
	if mint, revoke := seconds[telemetry.Mint], seconds[telemetry.Revoke]; mint.Count != 3 || mint.Sum != 60 || revoke.Count != 4 {
		t.Errorf("the target took %v for mints and %v for revokes", mint, revoke)
	}
}

func (w *world) issueErr() error {
	_, err := w.Issue(w.t.Context(), w.storage, w.order(time.Hour))
	return err
}

// keys are the ledger's records.
func (w *world) keys() []string {
	w.t.Helper()
	keys, err := logical.CollectKeysWithPrefix(w.t.Context(), w.storage, ledger.Prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

// unready can't prepare a mint, since its target does not answer.
type unready struct {
	*providertest.Fake
	asked int
}

func (u *unready) Prepare(context.Context, provider.Grant) (provider.Handle, error) {
	u.asked++
	return nil, fmt.Errorf("reading the base: %w", context.DeadlineExceeded)
}

// A target that does not answer while mints are prepared is spared as well.
func TestATargetThatHangsBeforeTheMint(t *testing.T) {
	w := newWorld(t)
	order := w.order(time.Minute)
	target := &unready{Fake: w.target}
	order.Provider = target
	var down *UnavailableError
	for range 20 {
		if _, err := w.Issue(t.Context(), w.storage, order); errors.As(err, &down) {
			break
		}
	}
	if down == nil || target.asked >= 20 {
		t.Fatalf("the target was asked %d times and is not spared", target.asked)
	}
	asked := target.asked
	if _, err := w.Issue(t.Context(), w.storage, order); !errors.As(err, &down) || target.asked != asked {
		t.Errorf("got %v, and the target was asked %d times more", err, target.asked-asked)
	}
}
