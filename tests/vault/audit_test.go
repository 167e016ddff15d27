package vault

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// entry is what the other Vault has written down of a request.
type entry struct {
	Type string
	Auth struct {
		DisplayName string `json:"display_name"`
		Policies    []string
		Metadata    map[string]string
	}
	Request struct{ Operation, Path string }
	Error   string
}

// audited are the other Vault's answers until now.
func audited(t testing.TB) (entries []entry) {
	t.Helper()
	log, err := os.ReadFile(servers.Other.Audit)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var one entry
		if err := json.Unmarshal(line, &one); err != nil {
			continue // it is being written
		}
		if one.Type == "response" {
			entries = append(entries, one)
		}
	}
	return entries
}
