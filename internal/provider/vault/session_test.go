package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// door is a Vault that gives out tokens, with a clock of its own.
type door struct {
	mu       sync.Mutex
	now      time.Time
	period   time.Duration
	longest  time.Duration // of a token's life in all; 0 for any
	down     bool
	refuses  bool // logins
	attempts int  // of logins
	tokens   map[string]*doorToken
	logins   int
	renewals int
	lookups  int
}

type doorToken struct{ made, ends time.Time }

func newDoor(t *testing.T) (*door, *client) {
	d := &door{now: time.Unix(1_900_000_000, 0), period: time.Minute, tokens: map[string]*doorToken{}}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return d, &client{address: address, http: server.Client()}
}

func (d *door) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *door) pass(time time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(time)
}

func (d *door) admit(name string) string {
	d.tokens[name] = &doorToken{made: d.now, ends: d.now.Add(d.period)}
	return name
}

func (d *door) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		writer.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	name := request.Header.Get("X-Vault-Token")
	token := d.tokens[name]
	if known := token != nil && d.now.Before(token.ends); !known && request.URL.Path != "/v1/auth/approle/login" {
		writer.WriteHeader(http.StatusForbidden)
		return
	}
	answer := map[string]any{}
	switch request.URL.Path {
	case "/v1/auth/approle/login":
		d.attempts++
		if d.refuses {
			writer.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(writer, `{"errors":["invalid role or secret ID"]}`) // likewise
			return
		}
		d.logins++
		name = d.admit("login-" + string(rune('0'+d.logins)))
		answer["auth"] = map[string]any{"client_token": name, "lease_duration": int(d.period.Seconds()), "renewable": true}
	case "/v1/auth/token/renew-self":
		d.renewals++
		token.ends = d.now.Add(d.period)
		if latest := token.made.Add(d.longest); d.longest > 0 && token.ends.After(latest) {
			token.ends = latest
		}
		answer["auth"] = map[string]any{"client_token": name, "lease_duration": int(token.ends.Sub(d.now).Seconds()), "renewable": true}
	case "/v1/auth/token/lookup-self":
		d.lookups++
		answer["data"] = map[string]any{"ttl": int(token.ends.Sub(d.now).Seconds()), "renewable": true, "period": int(d.period.Seconds())}
	}
	_ = json.NewEncoder(writer).Encode(answer) // to a test that has gone
}

func mustGet(t *testing.T, s *session) string {
	t.Helper()
	token, err := s.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A token that was given is renewed after two thirds of its life, once, however many
// ask for it.
func TestATokenIsRenewedInTime(t *testing.T) {
	d, client := newDoor(t)
	s := newSession(client, given(d.admit("engine")), d.clock)
	for range 5 {
		mustGet(t, s)
	}
	if d.lookups != 1 || d.renewals != 1 {
		t.Errorf("at first it was looked at %d times and renewed %d times, want once each", d.lookups, d.renewals)
	}
	for range 4 {
		d.pass(39 * time.Second)
		mustGet(t, s)
		before := d.renewals
		d.pass(2 * time.Second)
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() { mustGet(t, s) })
		}
		all.Wait()
		if d.renewals != before+1 {
			t.Errorf("renewed %d times when it was due, want once", d.renewals-before)
		}
	}
}

// While the Vault does not answer, a token is used as long as it lives, and tried again
// ever sooner.
func TestATokenThatCantBeRenewed(t *testing.T) {
	d, client := newDoor(t)
	s := newSession(client, given(d.admit("engine")), d.clock)
	mustGet(t, s)
	d.pass(41 * time.Second)
	d.down = true
	mustGet(t, s)
	if why := s.current().why; why == nil {
		t.Error("that it could not be renewed is not known")
	}
	if pause := s.current().next.Sub(d.clock()); pause > 5*time.Second {
		t.Errorf("it is tried again in %s, with 19 s to live", pause)
	}
	d.pass(18 * time.Second)
	mustGet(t, s)
	d.down = false
	d.pass(500 * time.Millisecond)
	mustGet(t, s)
	if why := s.current().why; why != nil {
		t.Errorf("it was renewed, and still says %v", why)
	}
	d.pass(2 * time.Minute)
	if token, err := s.get(t.Context()); err == nil {
		t.Errorf("a token that has ended is used: %s", token)
	}
}

// A login is followed by another before the longest life is over, when the token is not
// known any more, and when it has ended.
func TestLoggingInAgain(t *testing.T) {
	d, client := newDoor(t)
	d.longest = 90 * time.Second
	s := newSession(client, &appRole{client: client, mount: "approle", role: "r", secret: "s"}, d.clock)
	first := mustGet(t, s)
	d.pass(41 * time.Second)
	if token := mustGet(t, s); token != first || d.renewals != 1 {
		t.Errorf("the first time it is due it becomes %s with %d renewals", token, d.renewals)
	}
	d.pass(34 * time.Second) // two thirds of what was left
	second := mustGet(t, s)
	if second == first || d.logins != 2 {
		t.Errorf("with 15 s to live at most it is %s after %d logins", second, d.logins)
	}
	if s.lost(t.Context(), second) {
		t.Error("a token that the Vault knows is lost")
	}
	d.mu.Lock()
	delete(d.tokens, second)
	d.mu.Unlock()
	if !s.lost(t.Context(), second) {
		t.Error("a token that the Vault does not know is not lost")
	}
	if third := mustGet(t, s); third == second {
		t.Error("a token that is lost is used")
	}
	d.pass(time.Hour)
	if fourth := mustGet(t, s); d.logins != 4 {
		t.Errorf("after an hour there is %s after %d logins", fourth, d.logins)
	}
	static := newSession(client, given("nonsense"), d.clock)
	if static.lost(t.Context(), "nonsense") {
		t.Error("another token is looked for where none can be had")
	}
}

// Tend keeps the token up until it is told to end, and says what it could not do.
func TestTend(t *testing.T) {
	d, client := newDoor(t)
	d.period = 3 * time.Second
	target := &vault{client: client, own: newSession(client, given(d.admit("engine")), d.clock)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- target.Tend(ctx) }()
	renewed := func() int { d.mu.Lock(); defer d.mu.Unlock(); return d.renewals }
	for range 2000 {
		if renewed() >= 3 {
			break
		}
		d.pass(10 * time.Millisecond)
		time.Sleep(10 * time.Millisecond)
	}
	if renewed() < 3 {
		t.Errorf("renewed %d times", renewed())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	d.pass(time.Hour)
	if err := target.Tend(t.Context()); err == nil {
		t.Error("a token that is gone is kept up")
	}
}

// A login that is refused is not tried again and again: Vault would lock the AppRole, for
// all who use it. What has been mended is found out in time.
func TestALoginThatIsRefused(t *testing.T) {
	d, client := newDoor(t)
	d.refuses = true
	s := newSession(client, &appRole{client: client, mount: "approle", role: "r", secret: "s"}, d.clock)
	began := d.clock()
	var times []time.Duration
	for range 6 * 60 { // an hour and a half, in which somebody mints every 15 s
		before := d.attempts
		if _, err := s.get(t.Context()); err == nil {
			t.Fatal("there is a token")
		} else if text := err.Error(); !strings.Contains(text, "logging in was refused") {
			t.Fatalf("it says %q", text)
		}
		if d.attempts > before {
			times = append(times, d.clock().Sub(began))
		}
		d.pass(15 * time.Second)
	}
	for i := range times { // Vault's default: five without a quarter of an hour in between
		if last := min(i+4, len(times)-1); last == i+4 {
			quiet := false
			for j := i; j < last; j++ {
				quiet = quiet || times[j+1]-times[j] > 15*time.Minute
			}
			if !quiet {
				t.Errorf("tried after %s, which locks the AppRole", times[i:last+1])
			}
		}
	}
	if len(times) < 3 || times[1] > time.Minute {
		t.Errorf("tried after %s", times)
	}
	d.refuses = false
	d.pass(lastPause)
	if mustGet(t, s) == "" || s.current().pause != 0 {
		t.Errorf("once it is taken, what is held is %+v", s.current())
	}
}

// A Vault that does not answer is no refusal: it is asked by everybody who needs it.
func TestALoginWithoutAnAnswer(t *testing.T) {
	d, client := newDoor(t)
	d.down = true
	s := newSession(client, &appRole{client: client, mount: "approle", role: "r", secret: "s"}, d.clock)
	if token, err := s.get(t.Context()); err == nil {
		t.Fatalf("there is a token %q", token)
	}
	d.down = false
	mustGet(t, s)
}

// What the target says to the engine's login is nothing that it says of a token.
func TestARefusedLoginProvesNothing(t *testing.T) {
	d, client := newDoor(t)
	d.refuses = true
	target := &vault{client: client, own: newSession(client, &appRole{client: client, mount: "approle", role: "r", secret: "s"}, d.clock)}
	if seen, err := target.Witness(t.Context(), provider.Handle{handleAccessor: "acc"}); err == nil {
		t.Errorf("a token is %v", seen)
	}
	if _, err := target.tokenRoles(t.Context()); err == nil || errors.Is(err, provider.ErrNotPermitted) {
		t.Errorf("listing token roles says %v", err)
	}
}
