package vault

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// knowing is a target that says this of the engine's own token, which may do all that it
// has to.
func knowing(t *testing.T, about map[string]any) provider.Provider {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		answer := map[string]any{"cluster_id": "cluster"}
		switch request.URL.Path {
		case "/v1/auth/token/lookup-self":
			answer = map[string]any{"data": about}
		case "/v1/auth/token/renew-self":
			answer = map[string]any{"auth": map[string]any{"lease_duration": 3600, "renewable": true}}
		case "/v1/sys/capabilities-self":
			answer = map[string]any{"data": rights}
		}
		_ = json.NewEncoder(writer).Encode(answer) // to a test that has gone
	}))
	t.Cleanup(server.Close)
	opened, err := open(provider.Settings{"address": server.URL, "token": "engine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// A token that will stop working some day is warned of, and one that could never make
// another is refused.
func TestTokensThatAreUnfit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		about          map[string]any
		warns, refuses string
	}{
		"a period":         {about: map[string]any{"type": "service", "ttl": 3600, "period": 3600, "renewable": true}},
		"no end":           {about: map[string]any{"type": "service", "ttl": 0}},
		"no period":        {about: map[string]any{"type": "service", "ttl": 3600, "renewable": true}, warns: "can't be renewed for ever"},
		"an end for good":  {about: map[string]any{"type": "service", "ttl": 3600, "period": 3600, "renewable": true, "explicit_max_ttl": 7200}, warns: "can't be renewed for ever"},
		"a number of uses": {about: map[string]any{"type": "service", "ttl": 3600, "period": 3600, "renewable": true, "num_uses": 100}, warns: "good for a number of requests only"},
		"a batch token":    {about: map[string]any{"type": "batch", "ttl": 3600}, refuses: "a batch token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verification, err := knowing(t, test.about).(provider.Verifier).Verify(t.Context())
			if test.refuses != "" {
				if err == nil || !strings.Contains(err.Error(), test.refuses) {
					t.Errorf("it says %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if told := strings.Join(verification.Warnings, "\n"); !strings.Contains(told, test.warns) || (told == "") != (test.warns == "") {
				t.Errorf("it warns %q", told)
			}
		})
	}
}

// The target is known by its certificate, and nothing else: neither what the environment
// names is asked, nor what is older than TLS 1.2.
func TestWhomTheEngineTrusts(t *testing.T) {
	t.Parallel()
	serve := func(longest uint16) *httptest.Server {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(writer, "{}") // likewise
		}))
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: longest}
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are refused
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	good, old := serve(tls.VersionTLS13), serve(tls.VersionTLS11)
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate().Raw}))
	for name, test := range map[string]struct {
		server   *httptest.Server
		settings provider.Settings
		trusted  bool
	}{
		"its authority":           {good, provider.Settings{"ca_cert": authority}, true},
		"another name of its":     {good, provider.Settings{"ca_cert": authority, "tls_server_name": "example.com"}, true},
		"a name that is not its":  {good, provider.Settings{"ca_cert": authority, "tls_server_name": "vault.example.org"}, false},
		"an authority of nobody":  {good, provider.Settings{}, false},
		"an old protocol version": {old, provider.Settings{"ca_cert": authority}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.settings["address"], test.settings["token"] = test.server.URL, "engine"
			opened, err := open(test.settings, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := opened.(*vault).call(t.Context(), http.MethodGet, "sys/mounts", nil, new(struct{})); (err == nil) != test.trusted {
				t.Errorf("asking it: %v", err)
			}
		})
	}
	transport, err := newTransport(provider.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if transport.Proxy != nil {
		t.Error("a proxy of the environment is asked")
	}
}
