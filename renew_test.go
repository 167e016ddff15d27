package precision

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

// renew asks for a lease's renewal as Vault does, for so much more time.
func (e *engine) renew(lease *logical.Secret, increment time.Duration) (*logical.Secret, error) {
	renewed := kept(e.t, lease)
	renewed.Increment = increment
	response, err := e.HandleRequest(e.t.Context(), &logical.Request{Operation: logical.RenewOperation, Path: "creds/reset", Secret: renewed, Storage: e.storage})
	if err != nil {
		return nil, err
	}
	return response.Secret, nil
}

func TestRenewALease(t *testing.T) {
	e := newEngine(t)
	if minted := e.do(logical.ReadOperation, "creds/reset", nil); minted.Secret.Renewable {
		t.Error("a lease is renewable whose role did not say so")
	} else if _, err := e.renew(minted.Secret, 0); err == nil {
		t.Error("it was renewed")
	}
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{
		"renewable": true, "ttl": "10m", "max_ttl": "1h", "resource": "{{name}}/{{task}}", "parameters": map[string]any{"name": "[a-z]+"},
	})
	if !e.do(logical.ReadOperation, "roles/reset", nil).Data["renewable"].(bool) {
		t.Error("the role does not read as renewable")
	}
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", map[string]any{"name": "one"})
	if lease := minted.Secret; !lease.Renewable || lease.TTL != 10*time.Minute || lease.MaxTTL != 10*time.Minute {
		t.Errorf("lease %+v", lease.LeaseOptions)
	}
	for _, asked := range [][2]time.Duration{{20 * time.Minute, 20 * time.Minute}, {48 * time.Hour, time.Hour}} { // never back
		increment, want := asked[0], asked[1]
		lease, err := e.renew(minted.Secret, increment)
		if err != nil {
			t.Fatal(err)
		}
		// Ends are whole seconds, and the clock goes on.
		if off := want - lease.TTL; !lease.Renewable || off < 0 || off > 10*time.Second || lease.MaxTTL < lease.TTL || lease.MaxTTL > want+time.Second {
			t.Errorf("asked for %s: lease %+v, want %s", increment, lease.LeaseOptions, want)
		}
	}

	refused := func(says string, change map[string]any) {
		t.Helper()
		e.do(logical.UpdateOperation, "roles/reset", change)
		_, err := e.renew(minted.Secret, 0)
		var mendable *invalid.Error
		if !errors.As(err, &mendable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want a refusal that says %q", change, err, says)
		}
	}
	refused("does not say renewable=true any more", map[string]any{"renewable": false})
	refused("its role has changed", map[string]any{"renewable": true, "resource": "{{name}}/other/{{task}}"})
	refused("invalid name", map[string]any{"resource": "{{name}}/{{task}}", "parameters": map[string]any{"name": "two"}})
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"parameters": map[string]any{"name": "[a-z]+"}, "max_ttl": "30m"})
	if lease, err := e.renew(minted.Secret, 0); err != nil || lease.TTL > time.Hour {
		t.Errorf("lease %v, %v", lease, err) // what it has already it keeps
	}
	e.do(logical.DeleteOperation, "roles/reset", nil)
	if _, err := e.renew(minted.Secret, 0); err == nil || !strings.Contains(err.Error(), "no such role") {
		t.Errorf("got %v for a role that is gone", err)
	}
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
}
