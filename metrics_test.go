package precision

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// operations is what a target's metrics say has been done.
func (e *engine) operations(target string) string {
	e.t.Helper()
	targets := e.do(logical.ReadOperation, "metrics", nil).Data["targets"].(map[string]any)
	one, _ := targets[target].(map[string]any)
	return fmt.Sprint(one["operations"])
}

func TestMetricsOfATarget(t *testing.T) {
	e := newEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"creds/reset/T-2": {"ttl": "20h", "unknown": "x"}, "creds/nobody/T-1": nil, "creds/..": nil,
	} {
		if response, err := e.try(logical.ReadOperation, path, data); err == nil && !response.IsError() {
			t.Errorf("%s was minted", path)
		}
	}
	if got, want := e.operations("db"), "map[mint:map[ok:1 refused:1] revoke:map[ok:1]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake"})
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	if got, want := e.operations("db"), "map[mint:map[ok:2 refused:1] revoke:map[ok:1]]"; got != want {
		t.Errorf("after the target was written: %s, want %s", got, want)
	}
	e.do(logical.DeleteOperation, "config/db", map[string]any{"force": true})
	if got := e.operations("db"); got != "<nil>" {
		t.Errorf("of a deleted target is left %s", got)
	}
}

// A target that does not answer says so to callers, with a status that means
// "later" to Vault and its clients, and to who reads the metrics; to write its
// configuration is to try it again.
func TestATargetThatDoesNotAnswer(t *testing.T) {
	e := newEngine(t)
	gone := func() error { return &url.Error{Op: "Post", URL: "http://127.0.0.1:1", Err: errors.New("refused")} }
	e.target.OnMint, e.target.OnRevoke = gone, gone
	var err error
	for range 10 {
		_, err = e.try(logical.ReadOperation, "creds/reset/T-1", nil)
	}
	coded, is := err.(logical.HTTPCodedError) //nolint:errorlint // the plugin's connection to Vault asks so
	if !is || coded.Code() != http.StatusServiceUnavailable || !strings.Contains(err.Error(), `target "db" is not asked now: the target has not answered since`) {
		t.Errorf("got %v", err)
	}
	targets := e.do(logical.ReadOperation, "metrics", nil).Data["targets"].(map[string]any)
	if present := targets["db"].(map[string]any)["present"].(map[string]any); present["answers"] != false || present["unanswered_since"] == nil {
		t.Errorf("the metrics say %v", present)
	}
	e.target.OnMint, e.target.OnRevoke = nil, nil
	e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake"})
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
}

func TestTheFormatOfMetrics(t *testing.T) {
	e := newEngine(t)
	answer := e.do(logical.ReadOperation, "metrics", map[string]any{"format": "prometheus"})
	if text := string(answer.Data[logical.HTTPRawBody].([]byte)); !strings.Contains(text, "# TYPE precision_operations_total counter") {
		t.Errorf("got %s", text)
	}
	for _, format := range []any{"xml", "JSON", ""} {
		response, err := e.try(logical.ReadOperation, "metrics", map[string]any{"format": format})
		if refused := err == nil && response.IsError(); refused != (format != "") {
			t.Errorf("format %q: %v %v", format, response, err)
		}
	}
}
