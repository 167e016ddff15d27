package precision

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestTidyConfig(t *testing.T) {
	e := newEngine(t)
	read := func() string {
		t.Helper()
		return fmt.Sprint(e.do(logical.ReadOperation, "tidy-config", nil).Data)
	}
	if got := read(); got != "map[orphan_interval:3600 retention:2592000]" {
		t.Errorf("the defaults are %s", got)
	}
	other := e.open(e.System())
	if _, err := other.sweepSettings(t.Context(), e.storage); err != nil { // fills its cache
		t.Fatal(err)
	}
	e.do(logical.UpdateOperation, "tidy-config", map[string]any{"retention": "2h"})
	e.do(logical.UpdateOperation, "tidy-config", map[string]any{"orphan_interval": "90s"})
	if got := read(); got != "map[orphan_interval:90 retention:7200]" {
		t.Errorf("written, they are %s", got)
	}
	other.InvalidateKey(t.Context(), "tidy-config")
	for _, b := range []*backend{e.backend, other} {
		if settings, err := b.sweepSettings(t.Context(), e.storage); err != nil || settings.Retention != 2*time.Hour || settings.OrphanInterval != 90*time.Second {
			t.Errorf("the sweeper uses %+v: %v", settings, err)
		}
	}
	for field, value := range map[string]any{"retention": "59m", "orphan_interval": "59s", "retntion": "2h"} {
		if response, err := e.try(logical.UpdateOperation, "tidy-config", map[string]any{field: value, "retention_": nil}); err != nil || !response.IsError() {
			t.Errorf("%s=%v is not refused: %v %v", field, value, response, err)
		}
	}
	if response, err := e.try(logical.UpdateOperation, "tidy-config", map[string]any{"retention": "8761h"}); err != nil || !strings.Contains(response.Error().Error(), "8760h or less") {
		t.Errorf("a retention that is too long is refused without a bound: %v %v", response, err)
	}
	if got := read(); got != "map[orphan_interval:90 retention:7200]" {
		t.Errorf("after refusals, they are %s", got)
	}
}

// A grant whose target was deleted by force is counted, and ended once the target
// is there again and somebody asks.
func TestTidyAndItsStatus(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	lease, _ := e.as("ann", "reset/T-1")
	e.target.OnRevoke = func() error { return errors.New("the target broke") }
	if err := e.revokeLease(lease); err == nil {
		t.Error("a revoke succeeded although its target broke")
	}
	e.target.OnRevoke = nil
	e.do(logical.DeleteOperation, "config/db", map[string]any{"force": true})
	status := func(holds func(map[string]any) bool) {
		t.Helper()
		answer := e.do(logical.UpdateOperation, "tidy", nil)
		if answer.Data[logical.HTTPStatusCode] != http.StatusAccepted {
			t.Errorf("tidy answers %v", answer.Data)
		}
		for {
			answer := e.ask(logical.ReadOperation, "tidy-status", nil)
			if holds(answer) {
				return
			}
			if t.Context().Err() != nil {
				t.Fatalf("the status says %v", answer)
			}
			time.Sleep(time.Millisecond)
		}
	}
	status(func(answer map[string]any) bool {
		return fmt.Sprint(answer["unreachable"], answer["retried"]) == "map[db:1] 1"
	})
	e.do(logical.CreateOperation, "config/db", map[string]any{"type": "fake"})
	status(func(answer map[string]any) bool {
		targets := answer["orphans"].(map[string]any)["targets"].(map[string]any)
		db, looked := targets["db"].(map[string]any)
		return fmt.Sprint(answer["unreachable"], answer["retried"], answer["live"]) == "map[] 0 0" && looked && db["listed"] == false
	})
	if live := e.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}
