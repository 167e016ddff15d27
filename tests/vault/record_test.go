package vault

import (
	"net/http"
	"testing"
)

// One list and one read say who has reset what, when, for what, and how it ended.
func TestTheRecordOfAReset(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/record/db", "old")
	m.role("reset", "update", "secret/data/record/db", map[string]any{"uses": 1})
	m.role("many", "update", "secret/data/record/db", map[string]any{"uses": 3})
	m.role("any", "update", "secret/data/record/db", nil)
	for name, test := range map[string]struct {
		role string
		uses int
		want map[string]any
	}{
		"used":                 {"reset", 1, map[string]any{"token": "gone", "uses": "1"}},
		"not used":             {"reset", 0, map[string]any{"token": "live", "uses": "1", "uses_left": "1"}},
		"used once of thrice":  {"many", 1, map[string]any{"token": "live", "uses": "3", "uses_left": "2"}},
		"without a limit":      {"any", 2, map[string]any{"token": "live"}},
		"used up, all of them": {"many", 3, map[string]any{"token": "gone", "uses": "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			task := "INC-" + name[len(name)-1:] + test.role
			made := m.mint(test.role + "/" + task)
			for range test.uses {
				allowed(t, "a reset", made.ask(t.Context(), http.MethodPut, "secret/data/record/db", reset))
			}
			m.revoke(made)
			listed, err := m.Logical().ReadWithDataWithContext(t.Context(), m.path+"/grants/by-task/"+task, map[string][]string{"state": {"all"}})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, item := range listed.Data["grants"].([]any) {
				found = found || item.(map[string]any)["id"] == made.grant()
			}
			if !found {
				t.Errorf("the task's grants don't have %s", made.grant())
			}
			record := m.grantRead(made.grant())
			for field, want := range map[string]any{"state": "revoked", "ending": "lease revoked", "target": "other", "role": test.role, "task": task, "action": "update", "resource": "secret/data/record/db", "display_name": "root"} {
				if record[field] != want {
					t.Errorf("%s is %v, want %v", field, record[field], want)
				}
			}
			if record["issued_at"] == "" || record["ended_at"] == "" {
				t.Errorf("the record has no times: %v", record)
			}
			seen, _ := record["at_end"].(map[string]any)
			if seen["token"] == "used up" && seen["uses_left"] == "0" && test.want["token"] == "gone" {
				return // which is still known of it
			}
			if len(seen) != len(test.want) {
				t.Errorf("at its end the target knew %v, want %v", seen, test.want)
			}
			for field, want := range test.want {
				if seen[field] != want {
					t.Errorf("at its end %s is %v, want %v", field, seen[field], want)
				}
			}
			handle := record["handle"].(map[string]any)
			if handle["accessor"] != made.Data["accessor"] {
				t.Errorf("the record names the accessor %v, want %v", handle["accessor"], made.Data["accessor"])
			}
		})
	}
}

// The target's own log leads from a reset to the grant: metadata and display name of the
// token are in the clear there.
func TestTheTargetsLogNamesTheGrant(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	put(t, "secret/data/logged/db", "old")
	m.role("reset", "update", "secret/data/logged/db", nil)
	made := m.mint("reset/INC-7")
	allowed(t, "a reset", made.ask(t.Context(), http.MethodPut, "secret/data/logged/db", reset))
	found := false
	for _, entry := range audited(t) {
		if entry.Request.Path == "secret/data/logged/db" && entry.Auth.Metadata["grant_id"] == made.grant() {
			found = true
			if entry.Auth.Metadata["task"] != "INC-7" || entry.Auth.Metadata["role"] != "reset" || entry.Auth.DisplayName != "token-precision-reset" {
				t.Errorf("the log names %+v", entry.Auth)
			}
		}
	}
	if !found {
		t.Error("no entry of the other Vault's log names the grant")
	}
	if made.Data["address"] != servers.Other.Address || made.Data["path"] != "secret/data/logged/db" {
		t.Errorf("the answer names %v at %v", made.Data["path"], made.Data["address"])
	}
}
