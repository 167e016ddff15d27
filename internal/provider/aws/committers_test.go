package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// blankLedger knows of no grants.
type blankLedger struct{ life context.Context }

func (l blankLedger) Await(context.Context) error { return nil }

func (l blankLedger) Identity(context.Context) (mount, ledger string, err error) {
	return "mount", "ledger", nil
}

func (l blankLedger) OnBase(context.Context, string) ([]provider.Hanging, error) { return nil, nil }

func (l blankLedger) EndEarly(context.Context, string, func(provider.Handle) bool) error { return nil }

func (l blankLedger) Life() context.Context { return l.life }

func (l blankLedger) Now() time.Time { return time.Now() }

func (l blankLedger) Elapsed() time.Duration { return 0 }

func (l blankLedger) Passive() bool { return false }

func (l blankLedger) FoundDenied(context.Context, string, func(provider.Handle) bool) error {
	return nil
}

func (l blankLedger) Recorded(context.Context, string) ([]byte, error) { return nil, nil }

func (l blankLedger) Record(context.Context, string, []byte) error { return nil }

func (l blankLedger) Older(context.Context, string, uint64, uint64) error { return nil }

// To IAM a role is its name: one that is written with another path is the same
// role, and a second committer would withdraw what the first has denied.
func TestOneRoleHasOneCommitter(t *testing.T) {
	for _, test := range []struct {
		one, other string
		same       bool
	}{
		{testBase, testBase, true},
		{testBase, "arn:aws:iam::123456789012:role/base", true},
		{testBase, "arn:aws:iam::123456789012:role/other/path/base", true},
		{"arn:aws:iam::123456789012:user/base", "arn:aws:iam::123456789012:user/moved/base", true},
		{testBase, "arn:aws:iam::123456789012:user/base", false},
		{testBase, testBase + "-2", false},
	} {
		opened := engineAs(t, engineUser, nil)
		opened.Remember(blankLedger{t.Context()})
		one, err := opened.bases.of(t.Context(), test.one, opened.client)
		if err != nil {
			t.Fatal(err)
		}
		other, err := opened.bases.of(t.Context(), test.other, opened.client)
		if err != nil {
			t.Fatal(err)
		}
		if (one == other) != test.same {
			t.Errorf("%s and %s have one committer: %v, want %v", test.one, test.other, one == other, test.same)
		}
		if got := opened.Base(provider.Handle{handleBase: test.one}) == opened.Base(provider.Handle{handleBase: test.other}); got != test.same {
			t.Errorf("%s and %s are one base to the ledger: %v, want %v", test.one, test.other, got, test.same)
		}
	}
	if base := (&account{}).Base(provider.Handle{handleUser: "somebody"}); base != "" {
		t.Errorf("a user hangs on %q", base)
	}
}

// Somebody waits for a mint: however often calls are tried again, its own is not.
func TestSessionsAreAskedForAFewTimesOnly(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if form, _ := url.ParseQuery(string(text)); form.Get("Action") == "AssumeRole" || form.Get("Action") == "GetFederationToken" {
			asked.Add(1)
		}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`)
	}))
	defer server.Close()
	opened := engineAs(t, engineUser, provider.Settings{"sts_endpoint": server.URL, "iam_endpoint": server.URL, "max_retries": 4})
	for _, kind := range []string{assumedRole, federationToken} {
		asked.Store(0)
		handle := provider.Handle{handleType: kind, handleBase: testBase, handleSession: "aaaaabbbccccddddddddddddddddd"[:28], handleEnd: "2026-11-24T12:30:00Z"}
		if _, err := opened.Mint(t.Context(), handle, "{}", time.Now().Add(time.Hour)); err == nil {
			t.Error("a session was minted of a refusal")
		}
		if asked.Load() != quickAttempts {
			t.Errorf("%s: AWS was asked %d times, want %d", kind, asked.Load(), quickAttempts)
		}
	}
}

// A name that was ended between its drawing and its mint, with others or by
// itself, is none that a session is minted with.
func TestNoSessionIsMintedWithADeniedName(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action := r.FormValue("Action")
		if action == "AssumeRole" {
			asked.Add(1)
		}
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult></%[1]sResult></%[1]sResponse>", action)
	}))
	defer server.Close()
	opened := engineAs(t, engineUser, provider.Settings{"sts_endpoint": server.URL, "iam_endpoint": server.URL})
	opened.Remember(blankLedger{t.Context()})
	expiresAt := time.Now().Add(time.Hour).Truncate(time.Second)
	handle, err := opened.Prepare(t.Context(), provider.Grant{
		ID: "002da961utfd4w3opud7s2r7", Role: "upload", ExpiresAt: expiresAt, Options: provider.Settings{handleType: assumedRole, fieldBaseRole: testBase},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Revoke(t.Context(), handle); err != nil {
		t.Fatal(err)
	}
	var unmade *provider.NotMade
	if _, err := opened.Mint(t.Context(), handle, "{}", expiresAt); !errors.As(err, &unmade) || !errors.Is(err, provider.ErrUnavailable) || asked.Load() != 0 {
		t.Errorf("got %v after %d calls", err, asked.Load())
	}
}
