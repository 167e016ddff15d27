package providertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// Fake is a provider whose target is in memory, for faults that no real target
// can be made to have.
type Fake struct {
	// OnMint is called in the middle of a mint, when the credential exists and
	// the answer is not given yet. Its error is the mint's.
	OnMint func() error
	// OnRevoke is called before a credential is ended. Its error is the revoke's.
	OnRevoke func() error
	// OnRenew is called before a credential's end is moved. Its error is the
	// renewal's.
	OnRenew func() error

	mu   sync.Mutex
	live map[string]time.Time // the grants whose credentials work, and their ends
}

const fakeHandle = "fake_grant"

// Type describes the fake to a backend, as type "fake".
func (f *Fake) Type() provider.Type {
	return provider.Type{
		Name: "fake",
		Config: map[string]*framework.FieldSchema{
			"password": {Type: framework.TypeString, Description: "Never read back.", DisplayAttrs: &framework.DisplayAttributes{Name: "Password", Sensitive: true}},
		},
		Open: func(provider.Settings, provider.Facts) (provider.Provider, error) { return f, nil },
	}
}

// Live counts the credentials that work.
func (f *Fake) Live() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.live)
}

// End is when a grant's credential ends by itself; zero for one that does not work.
func (f *Fake) End(grantID string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live[grantID]
}

// Compile implements provider.Provider.
func (f *Fake) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	return provider.Policy(fmt.Sprintf("%s on %s until %s", granted.Action(), granted.Resource(), bounds.ExpiresAt.Format(time.RFC3339))), nil
}

// Prepare implements provider.Provider.
func (f *Fake) Prepare(_ context.Context, grant provider.Grant) (provider.Handle, error) {
	return provider.Handle{fakeHandle: grant.ID}, nil
}

// Mint implements provider.Provider.
func (f *Fake) Mint(ctx context.Context, handle provider.Handle, _ provider.Policy, expiresAt time.Time) (provider.Credential, error) {
	if err := ctx.Err(); err != nil {
		return provider.Credential{}, err
	}
	f.mu.Lock()
	if f.live == nil {
		f.live = map[string]time.Time{}
	}
	f.live[handle[fakeHandle]] = expiresAt
	f.mu.Unlock()
	if f.OnMint != nil {
		if err := f.OnMint(); err != nil {
			return provider.Credential{}, err
		}
	}
	return provider.Credential{Fields: map[string]any{"secret_key": "fake secret"}, Handle: handle}, nil
}

// Revoke implements provider.Provider.
func (f *Fake) Revoke(ctx context.Context, handle provider.Handle) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.OnRevoke != nil {
		if err := f.OnRevoke(); err != nil {
			return err
		}
	}
	if handle[fakeHandle] == "" {
		return errors.New("fake: the handle names no grant")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.live, handle[fakeHandle])
	return nil
}

// Renew implements provider.Renewer.
func (f *Fake) Renew(ctx context.Context, handle provider.Handle, _ provider.Policy, expiresAt time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.OnRenew != nil {
		if err := f.OnRenew(); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, lives := f.live[handle[fakeHandle]]; !lives {
		return errors.New("fake: the credential is gone")
	}
	f.live[handle[fakeHandle]] = expiresAt
	return nil
}
