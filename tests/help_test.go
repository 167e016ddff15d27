package tests

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestPathHelp(t *testing.T) {
	m := newMount(t)
	for path, says := range map[string][]string{
		"":                    {"one action on one", "creds/"},
		"config":              {"List the targets"},
		"config/x":            {"endpoint (string)", "secret_key (string)", "verify_connection (bool)"},
		"rotate-root/x":       {"target (string)", "Nobody has seen the new"},
		"roles":               {"List the roles"},
		"roles/x":             {"action (string)", "resource (string)", "ttl (duration (sec))", "can't be expressed exactly", "window (string)", "max_active (int)", "bound_cidrs (slice)", "task_pattern"},
		"creds/x":             {"ttl (duration (sec))", "not renewable"},
		"creds/upload/JIRA-1": {"task (string)", "lease revoke -prefix", "key=app/1.tgz"},
		"requests":            {"reason (string)", "task (string)", "requests/<id>/approve"},
		"requests/past":       {"limit (int)", "lapses after approval_ttl"},
		"requests/x":          {"id (string)", "one entity"},
		"requests/x/approve":  {"id (string)", "another entity"},
		"requests/x/deny":     {"reason (string)"},
		"requests/x/cancel":   {"id (string)"},
		"freeze":              {"role (string)", "target (string)", "all (bool)", "reason (string)", "status 403"},
		"unfreeze":            {"reason (string)", "lease revoke -prefix"},
		"preview/x":           {"ttl (duration (sec))", "Nothing", "minted"},
		"preview/x/JIRA-1":    {"task (string)"},
		"check/x":             {"resource_policy (string)", "context (map)", "statement that decides"},
		"catalog":             {"every AWS action"},
		"grants":              {"entity_id (string)", "limit (int)", "never has a secret"},
		"grants/by-task/x":    {"task (string)", "lease revoke -sync -prefix"},
		"grants/x":            {"id (string)"},
		"tidy":                {"sweeper runs each minute"},
		"tidy-status":         {"unreachable", "untidy", "installed"},
		"end":                 {"entity_id (string)", "reason (string)", "dry_run (bool)", "freeze first"},
		"end-status":          {"end_id (string)"},
		"tidy-config":         {"retention (duration (sec))", "orphan_interval (duration (sec))"},
		"catalog/s3":          {"service (string)"},
		"catalog/s3/x":        {"action (string)"},
		"metrics":             {"format (string)", "format=prometheus"},
	} {
		output, err := servers.Vault.Command(t.Context(), "path-help", m.path+"/"+path).CombinedOutput()
		if err != nil {
			t.Errorf("path-help %s: %v\n%s", path, err, output)
		}
		for _, part := range says {
			if !strings.Contains(string(output), part) {
				t.Errorf("path-help %s does not say %q:\n%s", path, part, output)
			}
		}
	}
}

// The OpenAPI document names every operation of the engine once, as its own,
// and marks what is secret.
func TestOpenAPI(t *testing.T) {
	m := newMount(t)
	secret, err := m.Logical().ReadWithContext(t.Context(), "sys/internal/specs/openapi")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(secret.Data["paths"])
	if err != nil {
		t.Fatal(err)
	}
	var paths map[string]map[string]json.RawMessage
	if err := json.Unmarshal(text, &paths); err != nil {
		t.Fatal(err)
	}
	var names []string
	for path, item := range paths {
		if !strings.HasPrefix(path, "/"+m.path+"/") {
			continue
		}
		for _, method := range []string{"get", "post", "delete"} {
			if item[method] == nil {
				continue
			}
			var operation struct{ OperationID string }
			if err := json.Unmarshal(item[method], &operation); err != nil {
				t.Fatal(err)
			}
			names = append(names, operation.OperationID)
		}
	}
	slices.Sort(names)
	want := []string{
		"precision-approve-request", "precision-cancel-request", "precision-check-role", "precision-delete-role", "precision-delete-target",
		"precision-deny-request", "precision-end-grants", "precision-freeze-minting",
		"precision-generate-credentials", "precision-generate-credentials-for-task",
		"precision-generate-credentials-for-task-with-parameters", "precision-generate-credentials-with-parameters",
		"precision-list-catalog-actions", "precision-list-catalog-services",
		"precision-list-grants", "precision-list-grants-by-entity", "precision-list-grants-by-role", "precision-list-grants-by-target", "precision-list-grants-by-task",
		"precision-list-past-requests", "precision-list-requests", "precision-list-roles", "precision-list-targets",
		"precision-open-request", "precision-preview-credentials", "precision-preview-credentials-for-task",
		"precision-read-catalog", "precision-read-catalog-action", "precision-read-catalog-service", "precision-read-end-status",
		"precision-read-freezes",
		"precision-read-grant", "precision-read-grants", "precision-read-grants-by-entity", "precision-read-grants-by-role", "precision-read-grants-by-target", "precision-read-grants-by-task",
		"precision-read-metrics", "precision-read-request", "precision-read-role", "precision-read-target", "precision-read-tidy-config", "precision-read-tidy-status",
		"precision-rotate-root", "precision-tidy-ledger", "precision-unfreeze-minting", "precision-write-role", "precision-write-target", "precision-write-tidy-config",
	}
	if !slices.Equal(names, want) {
		t.Errorf("operations %v, want %v", names, want)
	}
}
