package precision

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// A mount that was tuned a moment ago gives shorter leases: no credential that was ordered before outlives its own.
func TestATunedMountIsAskedAnew(t *testing.T) {
	e := newEngine(t)
	system := &logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour,
		ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
	}
	e.backend = e.open(system)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil) // the answer is kept from now on
	before := e.target.Live()
	system.MaxLeaseTTLVal = time.Minute
	_, err := e.try(logical.ReadOperation, "creds/reset/T-1", nil)
	coded, able := err.(logical.HTTPCodedError) //nolint:errorlint // Vault compares it so
	if !able || coded.Code() != http.StatusServiceUnavailable {
		t.Errorf("got %v, want status 503", err)
	}
	if live := e.target.Live(); live != before {
		t.Errorf("%d credentials live, want %d: one outlives its lease", live, before)
	}
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	if minted.Secret.TTL > time.Minute || e.target.Live() != before+1 {
		t.Errorf("the next lease is %s", minted.Secret.TTL)
	}
}
