package precision

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
)

// asking is a provider that asks its target before a grant is in the ledger.
type asking struct {
	*providertest.Fake
	answers chan struct{}
}

func (a asking) Prepare(ctx context.Context, grant provider.Grant) (provider.Handle, error) {
	<-a.answers
	return a.Fake.Prepare(ctx, grant)
}

// besides is an engine that has a target "far", too, which is asked first.
func besides(t *testing.T) (*engine, asking) {
	e := newEngine(t)
	far := asking{Fake: &providertest.Fake{}, answers: make(chan struct{})}
	slow := far.Type()
	slow.Name, slow.Open = "asking", func(provider.Settings, provider.Facts) (provider.Provider, error) { return far, nil }
	opened, err := newBackend(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: e.System(), StorageView: e.storage, BackendUUID: "uuid"},
		[]provider.Type{e.target.Type(), slow}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	e.backend = opened
	t.Cleanup(func() { e.Cleanup(context.Background()) })
	e.do(logical.CreateOperation, "config/far", map[string]any{"type": "asking"})
	e.do(logical.CreateOperation, "roles/far", map[string]any{"target": "far", "action": "reset", "resource": "one", "ttl": "10m"})
	return e, far
}

// A read for which a limit leaves no room does not bother the target.
func TestAFullRoleAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, far := besides(t)
		e.initialize()
		e.do(logical.UpdateOperation, "roles/far", map[string]any{"max_active": 1})
		go func() { far.answers <- struct{}{} }() // once
		e.do(logical.ReadOperation, "creds/far/T-1", nil)
		refused := make(chan error, 1)
		go func() {
			_, err := e.try(logical.ReadOperation, "creds/far/T-2", nil)
			refused <- err
		}()
		synctest.Wait()
		select {
		case err := <-refused:
			forbidden(t, err, "max_active is 1")
		default:
			t.Error("the target is asked for a read that is refused")
			close(far.answers)
		}
	})
}

// While a target does not answer what it is asked before a mint, it can be written
// anew, and the others' mints go on.
func TestATargetThatDoesNotAnswerHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, far := besides(t)
		minted := make(chan error, 1)
		go func() {
			_, err := e.try(logical.ReadOperation, "creds/far/T-1", nil)
			minted <- err
		}()
		synctest.Wait()
		done := 0
		for path, operation := range map[string]logical.Operation{"config/far": logical.UpdateOperation, "creds/reset/T-1": logical.ReadOperation} {
			data := map[string]any{"type": "asking"}
			if operation == logical.ReadOperation {
				data = nil
			}
			go func() {
				if response, err := e.try(operation, path, data); err != nil || response != nil && response.IsError() {
					t.Errorf("%s: %v %v", path, response, err)
				}
				done++
			}()
			synctest.Wait()
		}
		if done != 2 {
			t.Errorf("%d of 2 requests were answered", done)
		}
		close(far.answers)
		if err := <-minted; err != nil || far.Live() != 1 {
			t.Errorf("the mint came to %v, with %d credentials", err, far.Live())
		}
	})
}

// A target that is deleted meanwhile is not minted on.
func TestATargetIsDeletedWhileACredentialIsPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, far := besides(t)
		minted := make(chan error, 1)
		go func() {
			_, err := e.try(logical.ReadOperation, "creds/far/T-1", nil)
			minted <- err
		}()
		synctest.Wait()
		go e.do(logical.DeleteOperation, "config/far", map[string]any{"force": true})
		synctest.Wait()
		close(far.answers)
		if err := <-minted; err == nil || far.Live() != 0 || len(e.grants.Index.Open(ledger.Query{}, time.Now())) != 0 {
			t.Errorf("the mint came to %v, with %d credentials", err, far.Live())
		}
	})
}
