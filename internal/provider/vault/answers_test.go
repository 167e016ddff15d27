package vault

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// answering is a target that gives every request the same answer.
func answering(t *testing.T, status int, text string) *vault {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		writer.WriteHeader(status)
		_, _ = io.WriteString(writer, text) // to a test that has gone
	}))
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := &client{address: address, http: server.Client()}
	own := newSession(client, given("engine"), time.Now)
	own.hold(held{lease: lease{token: "engine"}, next: time.Now().Add(time.Hour)})
	return &vault{client: client, own: own}
}

// What the record says of a token is what Vault has said of it, and nothing is made of
// what something in between has answered.
func TestWhatAnAnswerProves(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		text   string
		uses   string
		want   map[string]string // nil for nothing
	}{
		"live":                     {200, `{"data":{"accessor":"acc","num_uses":2}}`, "3", map[string]string{"token": "live", "uses": "3", "uses_left": "2"}},
		"about to be forgotten":    {200, `{"data":{"accessor":"acc","num_uses":-1}}`, "3", map[string]string{"token": "used up", "uses": "3", "uses_left": "0"}},
		"any number":               {200, `{"data":{"accessor":"acc","num_uses":0}}`, "", map[string]string{"token": "live"}},
		"gone":                     {403, `{"errors":["invalid accessor"]}`, "", nil},
		"unknown":                  {400, `{"errors":["invalid accessor"]}`, "1", map[string]string{"token": "gone", "uses": "1"}},
		"nothing":                  {200, `{}`, "1", nil},
		"another token":            {200, `{"data":{"accessor":"other","num_uses":1}}`, "1", nil},
		"plain text to a TLS port": {400, "Client sent an HTTP request to an HTTPS server.", "1", nil},
		"a balancer's default":     {404, "404 page not found", "1", nil},
		"a balancer's page":        {200, "<html>welcome</html>", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handle := provider.Handle{handleAccessor: "acc"}
			if test.uses != "" {
				handle[handleUses] = test.uses
			}
			seen, err := answering(t, test.status, test.text).Witness(t.Context(), handle)
			if !maps.Equal(seen, test.want) || (err == nil) != (test.want != nil) {
				t.Errorf("%v, %v; want %v", seen, err, test.want)
			}
		})
	}
}

// An engine that has started anew since the mint does not know the accessor either, and
// somebody may well hold the token.
func TestATokenWithoutItsAccessor(t *testing.T) {
	t.Parallel()
	seen, err := answering(t, 500, "").Witness(t.Context(), provider.Handle{handleTokenRole: "x"})
	if err != nil || !strings.HasPrefix(seen["token"], "not known: ") || strings.Contains(seen["token"], "nobody") || strings.Contains(seen["token"], "lost:") {
		t.Errorf("%v, %v", seen, err)
	}
}

// A token is dead when Vault has said so: it answers a revoke that it has carried out
// with no content.
func TestOnlyVaultsOwnAnswerEndsAToken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		text   string
		dead   bool
	}{
		"done":              {204, "", true},
		"with warnings":     {200, `{"warnings":["x"]}`, true},
		"queued":            {202, `{"warnings":["queued"]}`, false},
		"a balancer's page": {200, "<html>welcome</html>", false},
		"an empty page":     {200, "", false},
		"refused":           {403, `{"errors":["permission denied"]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := answering(t, test.status, test.text).Revoke(t.Context(), provider.Handle{handleTokenRole: "precision-x", handleAccessor: "acc"})
			if (err == nil) != test.dead {
				t.Errorf("revoking says %v", err)
			}
		})
	}
}
