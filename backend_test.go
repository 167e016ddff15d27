package precision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/lifecycle"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// A patch adds to an object and takes from it; what it does not name stays.
func TestAPatchMergesObjects(t *testing.T) {
	e := newEngine(t)
	type object = map[string]any
	conditions := func() string {
		return fmt.Sprint(e.do(logical.ReadOperation, "roles/reset", nil).Data["conditions"])
	}
	e.do(logical.UpdateOperation, "roles/reset", object{"conditions": object{"StringEquals": object{"a:b": "1", "a:c": json.Number("2")}}})
	for _, step := range []struct {
		operation logical.Operation
		given     any
		want      string
	}{
		{logical.PatchOperation, object{"Bool": object{"a:d": true}}, "map[Bool:map[a:d:true] StringEquals:map[a:b:1 a:c:2]]"},
		{logical.PatchOperation, object{"StringEquals": object{"a:b": "3"}}, "map[Bool:map[a:d:true] StringEquals:map[a:b:3 a:c:2]]"},
		{logical.PatchOperation, `{"StringEquals": {"a:c": null}}`, "map[Bool:map[a:d:true] StringEquals:map[a:b:3]]"},
		{logical.PatchOperation, object{"Bool": nil}, "map[StringEquals:map[a:b:3]]"},
		{logical.UpdateOperation, object{"Bool": object{"a:d": true}}, "map[Bool:map[a:d:true]]"},
		{logical.PatchOperation, nil, "<nil>"},
	} {
		e.do(step.operation, "roles/reset", object{"conditions": step.given})
		if got := conditions(); got != step.want {
			t.Errorf("after %s of %v the conditions are %s, want %s", step.operation, step.given, got, step.want)
		}
	}
	if response, err := e.try(logical.PatchOperation, "roles/reset", object{"conditions": object{"Bool": object{"a:d": nil}}}); err != nil || !response.IsError() {
		t.Errorf("an operator without keys: %v %v", response, err)
	}
}

func TestAMintWritesOnceAndARevokeOnce(t *testing.T) {
	e := newEngine(t)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil) // fills the caches
	for range 3 {
		e.storage.reads.Store(0)
		e.storage.writes.Store(0)
		minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
		if reads, writes := e.storage.reads.Load(), e.storage.writes.Load(); reads != 0 || writes != 1 {
			t.Errorf("a mint makes %d reads and %d writes, want 0 and 1", reads, writes)
		}
		e.storage.reads.Store(0)
		e.storage.writes.Store(0)
		if err := e.revokeLease(minted.Secret); err != nil {
			t.Fatal(err)
		}
		if reads, writes := e.storage.reads.Load(), e.storage.writes.Load(); reads != 0 || writes != 1 {
			t.Errorf("a revoke makes %d reads and %d writes, want 0 and 1", reads, writes)
		}
	}
}

// Leases outlive their role, and a target's provider that has been opened anew.
func TestRevokeAfterTheRoleIsGone(t *testing.T) {
	e := newEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.do(logical.DeleteOperation, "roles/reset", nil)
	e.backend = e.open(e.System())
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
	if live := e.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

func TestRevokeFailsAndIsTriedAgain(t *testing.T) {
	e := newEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.target.OnRevoke = func() error { return errors.New("the target broke") }
	if err := e.revokeLease(minted.Secret); err == nil {
		t.Error("a revoke succeeded although its target broke")
	}
	e.target.OnRevoke = nil
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
	if live := e.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

func TestALeaseThatNamesNothingIsNotRevoked(t *testing.T) {
	e := newEngine(t)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	for _, internal := range []map[string]any{
		{},
		{"grant_id": "x", "target": "db"},
		{"grant_id": 5, "target": "db", "handle": map[string]any{"fake_grant": "x"}},
		{"grant_id": "../config/db", "target": "db", "handle": map[string]any{"fake_grant": "x"}},
		{"grant_id": ledger.NewID(time.Now()), "target": "nowhere", "handle": map[string]any{"fake_grant": "x"}},
	} {
		internal["secret_type"] = secretType
		if err := e.revokeLease(&logical.Secret{InternalData: internal}); err == nil {
			t.Errorf("a lease of %v was revoked", internal)
		}
	}
}

// On a standby the first write is refused, before anything is minted, with the
// error that makes Vault forward the request.
func TestStandbyForwards(t *testing.T) {
	e := newEngine(t)
	e.do(logical.ReadOperation, "creds/reset", nil)
	live := e.target.Live()
	e.storage.readOnly.Store(true)
	for path, operation := range map[string]logical.Operation{
		"creds/reset/T-1": logical.ReadOperation, "roles/reset": logical.DeleteOperation, "config/new": logical.CreateOperation,
	} {
		data := map[string]any{}
		if operation == logical.CreateOperation {
			data["type"] = "fake"
		}
		if _, err := e.try(operation, path, data); err != logical.ErrReadOnly { //nolint:errorlint // Vault compares it so
			t.Errorf("%s %s: got %v, want a bare logical.ErrReadOnly", operation, path, err)
		}
	}
	if e.target.Live() != live {
		t.Error("a standby minted a credential")
	}
}

// A write that failed may have been taken: the next mint looks again.
func TestAFailedWriteIsNotForgotten(t *testing.T) {
	e := newEngine(t)
	e.do(logical.ReadOperation, "creds/reset", nil)
	e.storage.breaks.Store(true)
	if _, err := e.try(logical.UpdateOperation, "roles/reset", map[string]any{"resource": "two"}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
	e.storage.breaks.Store(false)
	if resource := e.do(logical.ReadOperation, "creds/reset", nil).Data["resource"]; resource != "two" {
		t.Errorf("resource %v after a write that storage has taken, want two", resource)
	}
}

// What another node has written is used once Vault says that it has changed.
func TestInvalidate(t *testing.T) {
	e := newEngine(t)
	other := e.open(e.System())
	e.do(logical.ReadOperation, "creds/reset", nil)
	first := e.backend
	e.backend = other
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"resource": "two"})
	e.backend = first
	first.InvalidateKey(t.Context(), "roles/reset")
	if resource := e.do(logical.ReadOperation, "creds/reset", nil).Data["resource"]; resource != "two" {
		t.Errorf("resource %v after the invalidation, want two", resource)
	}
	if err := e.storage.Delete(t.Context(), "config/db"); err != nil {
		t.Fatal(err)
	}
	first.InvalidateKey(t.Context(), "config/db")
	if response, err := e.try(logical.ReadOperation, "creds/reset", nil); err != nil || !response.IsError() {
		t.Errorf("a credential of a deleted target was minted: %v %v", response, err)
	}
}

// slow compiles the resource "slow" when it is let to.
type slow struct {
	*providertest.Fake
	reached func() // once
	free    chan struct{}
}

func (s slow) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	if granted.Resource() == "slow" {
		s.reached()
		<-s.free
	}
	return s.Fake.Compile(granted, bounds)
}

// A role that takes long to try holds up no mint.
func TestARoleIsTriedBesideMints(t *testing.T) {
	e := newEngine(t)
	reached := make(chan struct{})
	target := slow{e.target, sync.OnceFunc(func() { close(reached) }), make(chan struct{})}
	kind := e.target.Type()
	kind.Open = func(provider.Settings, provider.Facts) (provider.Provider, error) { return target, nil }
	opened, err := newBackend(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: e.System(), StorageView: e.storage, BackendUUID: "uuid"}, []provider.Type{kind}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	e.backend = opened
	var writes sync.WaitGroup
	writes.Go(func() {
		if response, err := e.try(logical.CreateOperation, "roles/slow", map[string]any{"target": "db", "action": "reset", "resource": "slow"}); err != nil || response.IsError() {
			t.Errorf("the role was not written: %v, %v", response, err)
		}
	})
	<-reached
	e.do(logical.ReadOperation, "creds/reset/T-1", nil) // while the role is being tried
	close(target.free)
	writes.Wait()
	if response := e.do(logical.ReadOperation, "roles/slow", nil); response == nil {
		t.Error("the role is not there")
	}
}

// When Vault is gone its system view answers with zeros.
func TestVaultSaysNothing(t *testing.T) {
	e := newEngine(t)
	e.backend = e.open(&logical.StaticSystemView{})
	if _, err := e.try(logical.ReadOperation, "creds/reset", nil); err == nil {
		t.Error("a credential was minted for a time that nobody set")
	}
	if live := e.target.Live(); live != 0 {
		t.Errorf("%d credentials live", live)
	}
}

func TestLifetime(t *testing.T) {
	const hour = time.Hour
	for _, test := range []struct {
		ttl, maxTTL, requested, mountDefault, mountMax time.Duration
		want                                           time.Duration
		warned, refused                                bool
	}{
		{0, 0, 0, hour, 24 * hour, hour, false, false},
		{0, 0, 0, 48 * hour, 24 * hour, 24 * hour, false, false},
		{0, 30 * time.Minute, 0, hour, 24 * hour, 30 * time.Minute, false, false},
		{10 * time.Minute, 0, 0, hour, 24 * hour, 10 * time.Minute, false, false},
		{48 * hour, 0, 0, hour, 24 * hour, 24 * hour, true, false},
		{0, 0, 2 * hour, hour, 24 * hour, 2 * hour, false, false},
		{0, 0, 48 * hour, hour, 24 * hour, 24 * hour, true, false},
		{0, 72 * hour, 48 * hour, hour, 24 * hour, 24 * hour, true, false},
		{10 * time.Minute, 30 * time.Minute, 30 * time.Minute, hour, 24 * hour, 30 * time.Minute, false, false},
		{10 * time.Minute, 30 * time.Minute, 30*time.Minute + time.Second, hour, 24 * hour, 0, false, true},
	} {
		got, warnings, err := role{TTL: test.ttl, MaxTTL: test.maxTTL}.lifetime(test.requested, &logical.StaticSystemView{DefaultLeaseTTLVal: test.mountDefault, MaxLeaseTTLVal: test.mountMax})
		if got != test.want || (len(warnings) > 0) != test.warned || (err != nil) != test.refused {
			t.Errorf("%+v: got %s, %v, %v", test, got, warnings, err)
		}
	}
}

// Readers and writers of the same role and target at once; the race detector
// looks on.
func TestReadersAndWritersAtOnce(t *testing.T) {
	e := newEngine(t)
	var all sync.WaitGroup
	for caller := range 8 {
		all.Go(func() {
			for i := range 50 {
				operation, path, data := logical.Operation(logical.ReadOperation), "creds/reset/T-1", map[string]any(nil)
				switch {
				case caller == 0:
					operation, path, data = logical.UpdateOperation, "roles/reset", map[string]any{"resource": fmt.Sprint(i)}
				case caller == 1:
					operation, path, data = logical.UpdateOperation, "config/db", map[string]any{"type": "fake"}
				}
				response, err := e.try(operation, path, data)
				if err != nil || (response != nil && response.IsError()) {
					t.Errorf("%s %s: %v %v", operation, path, response, err)
				}
			}
		})
	}
	all.Wait()
	if live := e.target.Live(); live != 300 {
		t.Errorf("%d credentials live, want 300", live)
	}
}

func TestASensitiveFieldIsNotReadBack(t *testing.T) {
	e := newEngine(t)
	if answer := fmt.Sprint(e.do(logical.ReadOperation, "config/db", nil).Data); strings.Contains(answer, "hunter2") {
		t.Errorf("the target reads as %s", answer)
	}
}

// Every path explains itself, to people and to generators of clients.
func TestEveryPathIsDocumented(t *testing.T) {
	b, err := newBackend(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), BackendUUID: "uuid"}, registry.Types(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range b.Paths {
		if path.HelpSynopsis == "" || path.HelpDescription == "" {
			t.Errorf("%s has no help", path.Pattern)
		}
		if path.DisplayAttrs == nil || path.DisplayAttrs.OperationPrefix != operationPrefix || path.DisplayAttrs.OperationSuffix == "" {
			t.Errorf("%s has no OpenAPI display attributes", path.Pattern)
		}
		for name, field := range path.Fields {
			if field.Description == "" || field.DisplayAttrs == nil || field.DisplayAttrs.Name == "" {
				t.Errorf("%s: field %s has no description or display name", path.Pattern, name)
			}
			if strings.Contains(name, "secret") && field.Type == framework.TypeString && !isSensitive(field) {
				t.Errorf("%s: field %s is not sensitive", path.Pattern, name)
			}
		}
		for operation, handler := range path.Operations {
			if handler.Properties().Summary == "" {
				t.Errorf("%s: %s has no summary", path.Pattern, operation)
			}
		}
	}
}

// FuzzGuard: whatever data a request carries, only strings that are durations
// of a second or more get through, and nothing that the path does not know.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{`{"ttl":"5m"}`, `{"ttl":["5m","6m"]}`, `{"ttl":1e99}`, `{"ttl":"-1"}`, `{"ttl":null}`, `{"role":"x"}`, `{"ttl":"18446744073709551616"}`, `{"ttl":"0.5s"}`, `{"\u0000":1}`} {
		f.Add(seed)
	}
	b, err := newBackend(f.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: logical.TestSystemView()}, registry.Types(), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	path := b.Route("creds/upload/T-1")
	f.Fuzz(func(t *testing.T, text string) {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var data map[string]any
		if decoder.Decode(&data) != nil {
			return
		}
		if guard(path, b.captured[path], &logical.Request{Operation: logical.ReadOperation, Data: data}) != nil {
			return
		}
		for name := range data {
			if name != "ttl" {
				t.Fatalf("field %q got through", name)
			}
			fields := &framework.FieldData{Raw: data, Schema: path.Fields}
			if ttl, ok := fields.GetOk("ttl"); !ok || ttl.(int) < 1 {
				t.Fatalf("%q is a ttl of %v s", text, ttl)
			}
		}
	})
}

// initialize does what Vault does when it unseals.
func (e *engine) initialize() {
	e.t.Helper()
	if err := e.Initialize(e.t.Context(), &logical.InitializationRequest{Storage: e.storage}); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { e.Cleanup(context.Background()) })
}

// Whether grants live on a target is known from memory, after a restart too.
func TestATargetWithLiveGrantsStays(t *testing.T) {
	e := newEngine(t)
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.do(logical.DeleteOperation, "roles/reset", nil)
	e.backend = e.open(e.System())
	e.initialize()
	response, err := e.try(logical.DeleteOperation, "config/db", nil)
	if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "live grants on it: 1") {
		t.Errorf("a target with a live grant was deleted, or refused otherwise: %v %v", response, err)
	}
	e.storage.records.Store(0)
	if err := e.revokeLease(minted.Secret); err != nil {
		t.Fatal(err)
	}
	e.do(logical.DeleteOperation, "config/db", nil)
	if records := e.storage.records.Load(); records != 0 {
		t.Errorf("%d records of the ledger were read, want none", records)
	}
}

// Without Initialize, as after a plugin's restart, the first who needs to know
// has the ledger read.
func TestTheLedgerIsReadWhenItIsNeeded(t *testing.T) {
	e := newEngine(t)
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.do(logical.DeleteOperation, "roles/reset", nil)
	if response, err := e.try(logical.DeleteOperation, "config/db", nil); err != nil || !response.IsError() {
		t.Errorf("a target with a live grant was deleted: %v %v", response, err)
	}
	e.do(logical.DeleteOperation, "config/db", map[string]any{"force": true})
}

// Local storage is written by the active node of each cluster. Zero is what a
// Vault says that is gone.
func TestWhoMayWrite(t *testing.T) {
	e := newEngine(t)
	for state, want := range map[consts.ReplicationState]string{
		consts.ReplicationUnknown: "false true",
		consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled:                                        "true false",
		consts.ReplicationPerformancePrimary | consts.ReplicationDRPrimary:                                          "true false",
		consts.ReplicationPerformanceSecondary | consts.ReplicationDRDisabled:                                       "true false",
		consts.ReplicationPerformanceDisabled | consts.ReplicationDRSecondary:                                       "false false",
		consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled | consts.ReplicationPerformanceStandby: "false false",
	} {
		able, err := e.open(&logical.StaticSystemView{ReplicationStateVal: state}).writes()
		if got := fmt.Sprint(able, err != nil); got != want {
			t.Errorf("state %d: got %s, want %s", state, got, want)
		}
	}
}

// Vault's minute has what failed ended behind it.
func TestThePeriodicFunctionSweeps(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.target.OnRevoke = func() error { return errors.New("the target broke") }
	if err := e.revokeLease(minted.Secret); err == nil {
		t.Error("a revoke succeeded although its target broke")
	}
	e.target.OnRevoke = nil
	if err := e.grants.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.do(logical.RollbackOperation, "", nil)
	for e.target.Live() > 0 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// What a retry can fix answers with status 503 and says so; everything else does not.
func TestWhatARetryFixesAnswers503(t *testing.T) {
	refusedConnection := fmt.Errorf("minting: %w", &net.OpError{Op: "dial", Err: errors.New("connection refused")})
	for _, err := range []error{
		lifecycle.ErrOvertaken, lifecycle.ErrTooLate, lifecycle.ErrBusy, lifecycle.ErrStillEnding, refusedConnection,
		&lifecycle.UnavailableError{Target: "db", Cause: errors.New("it does not answer")}, fmt.Errorf("busy: %w", provider.ErrUnavailable),
	} {
		_, answered := refuse(err)
		var coded logical.HTTPCodedError
		if !errors.As(answered, &coded) || coded.Code() != http.StatusServiceUnavailable {
			t.Errorf("%v answers %v", err, answered)
		}
	}
	for _, err := range []error{errors.New("the target refused"), &provider.Unconfirmed{Reason: "no right"}} {
		if _, answered := refuse(err); answered != err {
			t.Errorf("%v answers %v", err, answered)
		}
	}
}
