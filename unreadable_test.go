package precision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/ledger"
)

// Every answer that misses a grant, since its record is damaged, says which and until when, and its lease revokes it.
func TestADamagedRecordIsSaid(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	minted := e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.do(logical.ReadOperation, "creds/reset/T-2", nil)
	id := minted.Data["grant_id"].(string)
	latest, err := ledger.LatestEnd(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{`{"id":`, `{"version":1,"entry":{"id":"another"}}`, `{}`, ``} {
		e.damage(ledger.Prefix+id[:8]+"/"+id, []byte(damage))
		for _, ask := range []struct {
			operation logical.Operation
			path      string
			data      map[string]any
		}{
			{logical.ReadOperation, "grants", nil},
			{logical.ListOperation, "grants/", nil},
			{logical.ReadOperation, "grants/by-task/T-1", nil},
			{logical.ReadOperation, "tidy-status", nil},
			{logical.UpdateOperation, "end", map[string]any{"all": true, "reason": "INC-7", "dry_run": true}},
			{logical.UpdateOperation, "end", map[string]any{"task": "T-none", "reason": "INC-7"}},
		} {
			answer, err := e.by("", ask.operation, ask.path, ask.data)
			if err != nil || answer.IsError() {
				t.Fatalf("%s: %v, %v", ask.path, answer, err)
			}
			missed := answer.Data["unreadable"].([]map[string]any)
			if len(missed) != 1 || missed[0]["id"] != id || missed[0]["expires_by"] != stamp(latest) || missed[0]["lease_prefix"] != "precision/creds" {
				t.Errorf("%q: %s says %v", damage, ask.path, missed)
			}
			if said := strings.Join(answer.Warnings, " "); !strings.Contains(said, id) || !strings.Contains(said, "vault lease revoke -prefix precision/creds") {
				t.Errorf("%q: %s warns of %q", damage, ask.path, said)
			}
		}
	}
	if got := e.target.Live(); got != 2 {
		t.Fatalf("%d live", got)
	}
	if err := e.revokeLease(minted.Secret); err != nil || e.target.Live() != 1 {
		t.Errorf("its lease comes to %v, %d live", err, e.target.Live())
	}
	healed := e.do(logical.ReadOperation, "grants/"+id, nil).Data
	if healed["state"] != ledger.Revoked || healed["task"] != "T-1" || healed["role"] != "reset" {
		t.Errorf("the record became %v", healed)
	}
	if answer := must(e.by("", logical.ReadOperation, "grants", nil)); len(answer.Warnings) != 0 || len(answer.Data["unreadable"].([]map[string]any)) != 0 {
		t.Errorf("it is still said: %v", answer)
	}
}

// Damage in the record of a freeze keeps its subject frozen, and nothing else; a write or an unfreeze replaces it.
func TestADamagedFreezeFreezesItsSubject(t *testing.T) {
	for _, replaced := range []string{"freeze", "unfreeze"} {
		e := newEngine(t)
		e.do(logical.CreateOperation, "roles/second", map[string]any{"target": "db", "action": "reset", "resource": "one"})
		e.damage(freezeKey(admission.Subject{Kind: admission.FreezeRole, Name: "reset"}), []byte("{"))
		e.damage(frozenPast+"6b0caa6d-faslkzzn", []byte("{"))
		_, err := e.try(logical.ReadOperation, "creds/reset/T-1", nil)
		forbidden(t, err, "can't be read")
		e.do(logical.ReadOperation, "creds/second/T-1", nil)
		read := e.do(logical.ReadOperation, "freeze", nil)
		if !strings.Contains(fmt.Sprint(read.Data["frozen"]), "can't be read") || len(read.Warnings) != 1 {
			t.Errorf("freeze says %v", read)
		}
		e.do(logical.UpdateOperation, replaced, map[string]any{"role": "reset", "reason": "INC-7"})
		_, err = e.try(logical.ReadOperation, "creds/reset/T-1", nil)
		if replaced == "freeze" && !frozen(err) || replaced == "unfreeze" && err != nil {
			t.Errorf("after %s the mint comes to %v", replaced, err)
		}
	}
}

// Damage in one entity's requests stops nobody else's mints and lists, and a new request replaces it.
func TestDamagedRequestsAreOneEntitys(t *testing.T) {
	e := newApprovalEngine(t)
	e.approved("T-1")
	e.approvedBy("carol", "T-1")
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: openRequests + tagOf("carol"), Value: []byte("[{")}); err != nil {
		t.Fatal(err)
	}
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: pastRequests + "6b0caa6d-fpmansl7-k4wjz6od", Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	if err := e.take("T-1"); err != nil {
		t.Error(err)
	}
	if answer, err := e.by("carol", logical.ReadOperation, "creds/two/T-1", nil); err == nil && !answer.IsError() {
		t.Error("a mint was admitted by what can't be read")
	}
	for _, path := range []string{"requests/", "requests/past/"} {
		if answer := must(e.by("bob", logical.ListOperation, path, nil)); len(answer.Warnings) != 1 {
			t.Errorf("%s says %v", path, answer)
		}
	}
	if _, _, err := e.tidyRequests(t.Context(), e.storage, e.grants.Now()); err != nil {
		t.Error(err)
	}
	id := e.approvedBy("carol", "T-2")
	if answer := must(e.by("bob", logical.ListOperation, "requests/", nil)); len(answer.Warnings) != 0 || !slices.Contains(answer.Data["keys"].([]string), id) {
		t.Errorf("after a new request: %v", answer)
	}
}

// A damaged role or target refuses its own mints, and a write replaces it.
func TestADamagedDefinitionIsReplacedByAWrite(t *testing.T) {
	e := newEngine(t)
	e.initialize()
	e.do(logical.CreateOperation, "roles/second", map[string]any{"target": "db", "action": "reset", "resource": "one"})
	e.do(logical.CreateOperation, "config/other", map[string]any{"type": "fake"})
	e.damage(rolePrefix+"reset", []byte(`{"target":`))
	if _, err := e.try(logical.ReadOperation, "creds/reset/T-1", nil); err == nil {
		t.Error("a damaged role mints")
	}
	e.do(logical.ReadOperation, "creds/second/T-1", nil)
	if answer := e.do(logical.DeleteOperation, "config/other", nil); answer == nil || !strings.Contains(strings.Join(answer.Warnings, ""), "reset") {
		t.Errorf("a target is deleted with %v", answer)
	}
	e.do(logical.UpdateOperation, "roles/reset", map[string]any{"target": "db", "action": "reset", "resource": "one"})
	e.do(logical.ReadOperation, "creds/reset/T-1", nil)
	e.damage(configPrefix+"db", []byte(`{"type":`))
	if _, err := e.try(logical.ReadOperation, "creds/reset/T-2", nil); err == nil {
		t.Error("a damaged target mints")
	}
	e.do(logical.UpdateOperation, "config/db", map[string]any{"type": "fake"})
	e.do(logical.ReadOperation, "creds/reset/T-2", nil)
	e.damage(tidyConfigKey, []byte(`{"retention":`))
	e.do(logical.UpdateOperation, "tidy-config", map[string]any{"retention": "2h"})
	if got := e.do(logical.ReadOperation, "tidy-config", nil).Data; got["retention"] != int64(7200) || got["orphan_interval"] != int64(3600) {
		t.Errorf("tidy-config is %v", got)
	}
}

// A grant whose record can't be read takes up its role's limits until it has expired, where its role is still there to
// be read, and no other role's. It stays in the answers after that: the clock may be ahead.
func TestADamagedRecordCountsInLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t)
		for role, on := range map[string]string{"one": "refuse", "replaced": "replace"} {
			e.do(logical.CreateOperation, "roles/"+role, map[string]any{
				"target": "db", "action": "reset", "resource": "one", "ttl": "10m", "max_active": 1, "on_limit": on,
			})
		}
		first := e.do(logical.ReadOperation, "creds/one/T-1", nil)
		second := e.do(logical.ReadOperation, "creds/replaced/T-1", nil)
		for _, minted := range []*logical.Response{first, second} {
			id := minted.Data["grant_id"].(string)
			key := ledger.Prefix + id[:8] + "/" + id
			entry, err := e.storage.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			e.damage(key, entry.Value[:len(entry.Value)-2]) // cut off
		}
		defer e.Cleanup(context.Background())
		for _, role := range []string{"one", "replaced"} {
			_, err := e.try(logical.ReadOperation, "creds/"+role+"/T-2", nil)
			forbidden(t, err, "max_active is 1")
		}
		e.do(logical.ReadOperation, "creds/reset/T-1", nil)
		time.Sleep(25 * time.Minute) // past the latest expiry
		e.do(logical.ReadOperation, "creds/one/T-2", nil)
		if got := e.do(logical.ReadOperation, "grants", nil).Data["unreadable"].([]map[string]any); len(got) != 2 {
			t.Errorf("past the expiry, answers say %v", got)
		}
	})
}
