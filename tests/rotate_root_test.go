package tests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	precision "github.com/precision-access/vault-plugin-secrets-precision"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/lab"
)

// keys are those of a user, which has to be there.
func keys(t *testing.T, user string) []string {
	t.Helper()
	known, err := servers.Cloud.Keys(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func TestRotateRoot(t *testing.T) {
	m := newMount(t)
	engine, err := servers.Cloud.AddEngine(t.Context(), m.path)
	if err != nil {
		t.Fatal(err)
	}
	m.write("config/own", with(m.cloudConfig(), map[string]any{"access_key": engine.Access, "secret_key": engine.Secret}))
	m.write("roles/own", map[string]any{"target": "own", "action": putObject, "resource": uploads})
	old := m.mint("own/JIRA-1")
	for before := engine.Access; ; {
		answer := m.write("rotate-root/own", nil)
		after, _ := answer.Data["access_key"].(string)
		if after == "" || after == before || len(answer.Data) != 1 || len(answer.Warnings) != 0 {
			t.Errorf("answer %v, warnings %v", answer.Data, answer.Warnings)
		}
		if left := keys(t, m.path); !slices.Equal(left, []string{after}) {
			t.Errorf("keys %v, want %s alone", left, after)
		}
		read := m.read("config/own").Data
		if read["access_key"] != after || read["secret_key"] != nil || read["account_id"] != lab.Account {
			t.Errorf("the target reads as %v", read)
		}
		allowed(t, "a user minted after the rotation", m.mint("own/JIRA-2").inCloud(t.Context()))
		if before != engine.Access {
			break // the second time
		}
		before = after
	}
	if err := m.Sys().RevokeWithOptionsWithContext(t.Context(), revokeNow(old.LeaseID)); err != nil {
		t.Fatalf("a lease from before the rotation: %v", err)
	}
	denied(t, "its user", old.inCloud(t.Context()))
}

// The engine works as a role; what is rotated is the key that assumes it.
func TestRotateRootBelowARole(t *testing.T) {
	m := newMount(t)
	key, role, err := servers.Cloud.AddDelegate(t.Context(), m.path, "customer-7")
	if err != nil {
		t.Fatal(err)
	}
	m.write("config/delegated", with(m.cloudConfig(), map[string]any{
		"access_key": key.Access, "secret_key": key.Secret, "assume_role_arn": role, "assume_role_external_id": "customer-7",
	}))
	m.write("roles/delegated", map[string]any{"target": "delegated", "action": putObject, "resource": uploads})
	after := m.write("rotate-root/delegated", nil).Data["access_key"]
	if left := keys(t, m.path); after == key.Access || !slices.Equal(left, []string{fmt.Sprint(after)}) {
		t.Errorf("keys %v, want %v alone", left, after)
	}
	if read := m.read("config/delegated").Data; read["assume_role_arn"] != role {
		t.Errorf("the target reads as %v", read)
	}
	allowed(t, "a user", m.mint("delegated/JIRA-1").inCloud(t.Context()))
}

func TestRotateRootRefuses(t *testing.T) {
	m := newMount(t)
	engine, err := servers.Cloud.AddEngine(t.Context(), m.path)
	if err != nil {
		t.Fatal(err)
	}
	config := with(m.cloudConfig(), map[string]any{"access_key": engine.Access, "secret_key": engine.Secret})
	m.write("config/own", config)
	m.write("config/chain", with(m.cloudConfig(), map[string]any{"access_key": nil, "secret_key": nil}))
	refuses := func(target string, parts ...string) {
		t.Helper()
		says(t, refusal(t, m.tryWrite("rotate-root/"+target, nil)), parts...)
	}
	refuses("nowhere", "no such target is configured")
	refuses("a..b", "invalid target")
	refuses("store", "a target of type minio has no way to replace its own root credential")
	refuses("chain", "it has no key of its own to rotate")
	says(t, refusal(t, m.tryWrite("rotate-root/own", map[string]any{"force": true})), `field "force"`)
	for _, action := range []string{"ListAccessKeys", "CreateAccessKey"} {
		servers.Cloud.Refuse(action)
		refuses("own", "AWS does not let its user", "manage its own keys", "iam:CreateAccessKey")
		servers.Cloud.Refuse("")
	}
	if left := keys(t, m.path); !slices.Equal(left, []string{engine.Access}) {
		t.Errorf("keys %v, want the old one alone", left)
	}
	if err := servers.Cloud.AddKey(t.Context(), m.path); err != nil {
		t.Fatal(err)
	}
	refuses("own", "has 2 access keys, and no room for a new one", "delete the key that this engine does not use")
	if left := keys(t, m.path); len(left) != 2 {
		t.Errorf("keys %v, want both", left)
	}
}

// crashingStorage is gone, and the target with it, once it has taken a number of
// writes.
type crashingStorage struct {
	logical.InmemStorage
	writes int // left; negative: as many as come
	taken  bool
	gone   func()
}

var errGone = errors.New("vault is gone")

func (s *crashingStorage) change(do func() error) error {
	if s.writes != 0 {
		s.writes--
		return do()
	}
	s.gone()
	if s.taken {
		s.taken = false
		if err := do(); err != nil {
			return err
		}
	}
	return errGone
}

func (s *crashingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.change(func() error { return s.InmemStorage.Put(ctx, entry) })
}

func (s *crashingStorage) Delete(ctx context.Context, key string) error {
	return s.change(func() error { return s.InmemStorage.Delete(ctx, key) })
}

func (s *crashingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if s.writes == 0 {
		return nil, errGone
	}
	return s.InmemStorage.Get(ctx, key)
}

// rotating is an engine in this process, with a target of its own user.
type rotating struct {
	t       *testing.T
	backend logical.Backend
	storage *crashingStorage
	faults  *providertest.Faults
	user    string
}

func newRotating(t *testing.T) *rotating {
	r := &rotating{t: t, storage: &crashingStorage{writes: -1}, faults: providertest.NewFaults(t, servers.Cloud.API), user: strings.ToLower(t.Name())}
	r.storage.gone = func() { r.faults.LoseFrom(0, false) }
	engine, err := servers.Cloud.AddEngine(t.Context(), r.user)
	if err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.do(logical.CreateOperation, "config/own", map[string]any{
		"type": "aws", "region": lab.Region, "iam_endpoint": r.faults.URL, "sts_endpoint": r.faults.URL,
		"access_key": engine.Access, "secret_key": engine.Secret, "max_retries": 0,
	})
	r.do(logical.CreateOperation, "roles/own", map[string]any{"target": "own", "action": putObject, "resource": uploads, "ttl": "1h"})
	return r
}

// restart is what a plugin does whose Vault has crashed.
func (r *rotating) restart() {
	r.t.Helper()
	r.faults.Heal()
	r.storage.writes, r.storage.taken = -1, false
	var err error
	r.backend, err = precision.Factory(r.t.Context(), &logical.BackendConfig{
		Logger: hclog.NewNullLogger(), StorageView: r.storage, BackendUUID: r.user,
		System: &logical.StaticSystemView{
			DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: time.Hour,
			ReplicationStateVal: consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled,
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rotating) try(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	response, err := r.backend.HandleRequest(r.t.Context(), &logical.Request{Operation: operation, Path: path, Data: data, Storage: r.storage})
	if err == nil && response != nil && response.IsError() {
		err = response.Error()
	}
	return response, err
}

func (r *rotating) do(operation logical.Operation, path string, data map[string]any) *logical.Response {
	r.t.Helper()
	response, err := r.try(operation, path, data)
	if err != nil {
		r.t.Fatalf("%s %s: %v", operation, path, err)
	}
	return response
}

// works demands that the engine's key works, and that it is the only one of its
// user or one of most.
func (r *rotating) works(when string, most int) {
	r.t.Helper()
	minted, err := r.try(logical.ReadOperation, "creds/own/JIRA-1", nil)
	if err != nil {
		r.t.Fatalf("%s: a mint: %v", when, err)
	}
	if _, err := r.backend.HandleRequest(r.t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "creds/own/JIRA-1", Secret: minted.Secret, Storage: r.storage}); err != nil {
		r.t.Errorf("%s: a revoke: %v", when, err)
	}
	configured := r.do(logical.ReadOperation, "config/own", nil).Data["access_key"]
	if left := keys(r.t, r.user); len(left) > most || !slices.Contains(left, fmt.Sprint(configured)) {
		r.t.Errorf("%s: keys %v, at most %d and among them %v", when, left, most, configured)
	}
}

// settle has the notes read that a rotation has left, as Vault does each minute.
func (r *rotating) settle(when string) {
	r.t.Helper()
	if _, err := r.try(logical.RollbackOperation, "", map[string]any{"immediate": true}); err != nil {
		r.t.Errorf("%s: %v", when, err)
	}
	if left, err := framework.ListWAL(r.t.Context(), r.storage); err != nil || len(left) != 0 {
		r.t.Errorf("%s: notes %v are left, %v", when, left, err)
	}
}

// Vault dies at any write of a rotation, the write taken or not: the target
// works, there is at most one key too many, and that goes.
func TestRotateRootCrashes(t *testing.T) {
	r := newRotating(t)
	for _, taken := range []bool{false, true} {
		for writes := 0; ; writes++ {
			when := fmt.Sprintf("taken %v, after %d writes", taken, writes)
			r.storage.writes, r.storage.taken = writes, taken
			_, err := r.try(logical.UpdateOperation, "rotate-root/own", nil)
			over := r.storage.writes > 0
			if err != nil && over {
				t.Fatalf("%s: %v", when, err)
			}
			r.restart()
			r.works(when, 2)
			r.settle(when)
			r.works(when+", settled", 1)
			if over {
				break
			}
		}
	}
}

// The target is lost at any call of a rotation, the call executed or not.
func TestRotateRootLosesItsTarget(t *testing.T) {
	r := newRotating(t)
	for _, executed := range []bool{false, true} {
		for call := 0; ; call++ {
			when := fmt.Sprintf("executed %v, call %d", executed, call)
			r.faults.LoseFrom(call, executed)
			_, err := r.try(logical.UpdateOperation, "rotate-root/own", nil)
			made := r.faults.Heal()
			if err != nil && made <= call {
				t.Fatalf("%s: %v", when, err)
			}
			r.works(when, 2)
			r.settle(when)
			r.works(when+", settled", 1)
			if made <= call {
				break
			}
		}
	}
}
