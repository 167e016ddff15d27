package precision

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/revocation"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/stored"
)

// oneMachine is a machine with a target and a role for sessions, that takes no steps by itself.
func oneMachine(t *testing.T) *machine {
	m := &machine{
		t: t, revoked: map[string]machineGrant{}, expiry: map[string]time.Time{}, kinds: map[string]int{},
		target: &machineTarget{
			managed: map[int]revocation.Managed{}, sessions: map[revocation.Code]time.Time{}, logins: map[string]time.Time{},
		},
	}
	vault := &machineVault{
		storage: &logical.InmemStorage{}, leases: map[string]machineGrant{}, known: map[string]machineGrant{},
	}
	m.node = m.boot(vault, 0)
	must(m.node.ask(logical.CreateOperation, "config/cloud", map[string]any{"type": "machine"}))
	must(m.node.ask(logical.CreateOperation, "roles/session-a", map[string]any{
		"target": "cloud", "action": "reset", "resource": "one", "ttl": "1h", "max_ttl": "4h",
	}))
	must(m.node.ask(logical.ReadOperation, "tidy-status", nil)) // which draws the ledger's id, and so its mark
	return m
}

// session mints one, and returns its lease.
func (m *machine) session(task string) machineGrant {
	m.t.Helper()
	answer := must(m.node.ask(logical.ReadOperation, "creds/session-a/"+task, nil))
	data, err := readLease(answer.Secret)
	if err != nil {
		m.t.Fatal(err)
	}
	return machineGrant{id: data.GrantID, role: "session-a", handle: data.Handle, lease: answer.Secret}
}

// spoil replaces all entries below a prefix, and starts the engine again.
func (m *machine) spoil(prefix, value string) {
	m.t.Helper()
	keys, err := logical.CollectKeysWithPrefix(m.t.Context(), m.node.storage, prefix)
	if err != nil || len(keys) == 0 {
		m.t.Fatalf("below %s are %v, %v", prefix, keys, err)
	}
	for _, key := range keys {
		if err := m.node.storage.Put(m.t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
			m.t.Fatal(err)
		}
	}
	m.restart(m.node.machineVault, 0)
}

// A record of what is denied at a target that can't be read stops no revocation, and revives nothing. One that a newer
// plugin wrote stays as it is.
func TestAnUnreadableRecordOfDeniesStopsNoRevocation(t *testing.T) {
	const newer = `{"version":99,"entry":{}}`
	for _, value := range []string{`{"version":1,"entry":{"epo`, newer} {
		synctest.Test(t, func(t *testing.T) {
			m := oneMachine(t)
			defer func() { m.node.stop() }()
			first, second := m.session("T-1"), m.session("T-2")
			if err := m.node.end(first); err != nil {
				t.Fatal(err)
			}
			m.spoil(ledger.OwnPrefix+"base/", value)
			if err := m.node.end(second); err != nil {
				t.Errorf("with the record %s, a revoke comes to %v", value, err)
			}
			time.Sleep(30 * time.Minute)
			must(m.node.ask(logical.UpdateOperation, "tidy", nil))
			synctest.Wait()
			if got := len(m.target.denied()); got != 2 {
				t.Errorf("with the record %s, %d sessions are denied, want 2", value, got)
			}
			keys, err := logical.CollectKeysWithPrefix(t.Context(), m.node.storage, ledger.OwnPrefix+"base/")
			if err != nil || len(keys) != 1 {
				t.Fatal(keys, err)
			}
			entry, err := m.node.storage.Get(t.Context(), keys[0])
			if err != nil || (value == newer) != (string(entry.Value) == newer) {
				t.Errorf("the record %s became %s, %v", value, entry.Value, err)
			}
		})
	}
}

// A finding that the storage was restored is known again after a restart, before anything is done at a target. Where
// its record can't be read, nothing is minted until an operator accepts that.
func TestThatTheStorageIsOlderOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := oneMachine(t)
		defer func() { m.node.stop() }()
		taken := m.node.clone(t)
		if err := m.node.end(m.session("T-1")); err != nil {
			t.Fatal(err)
		}
		m.restart(taken, 0)
		_, err := m.node.ask(logical.ReadOperation, "creds/session-a/T-2", nil)
		if m.node.grants.KnownOlder() == nil {
			t.Fatalf("the restore was not noticed: %v", err)
		}
		m.restart(m.node.machineVault, 0)
		if m.node.grants.KnownOlder() == nil {
			t.Error("after a restart, the restore is not known")
		}
		for value, accepted := range map[string]bool{`{"version":1,"ent`: true, `{"version":99,"entry":{}}`: false} {
			if err := ledger.PutOlder(t.Context(), m.node.storage, &ledger.Older{}); err != nil {
				t.Fatal(err)
			}
			m.spoil(ledger.OwnPrefix+"older", value)
			_, err := m.node.ask(logical.ReadOperation, "creds/session-a/T-2", nil)
			forbidden(t, err, "can't be read")
			status := must(m.node.ask(logical.ReadOperation, "tidy-status", nil)).Data["restored"].(map[string]any)
			if status["suspected"] != true {
				t.Errorf("the status says %v", status)
			}
			_, err = m.node.ask(logical.UpdateOperation, "tidy", map[string]any{"accept_restore": true})
			if (err == nil) != accepted {
				t.Errorf("%s: accepting it comes to %v", value, err)
			}
			if err != nil && !errors.Is(err, stored.ErrNewer) && !strings.Contains(err.Error(), stored.ErrNewer.Error()) {
				t.Error(err)
			}
			_, err = m.node.ask(logical.ReadOperation, "creds/session-a/T-2", nil)
			if (err == nil) != accepted {
				t.Errorf("%s: once it is accepted, a mint comes to %v", value, err)
			}
		}
	})
}
