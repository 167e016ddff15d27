package kubernetes

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
)

// Labels are what Kubernetes takes, and none by which the engine, or Kubernetes, knows
// its own.
func TestLabels(t *testing.T) {
	many := map[string]any{}
	for i := range maxLabels + 1 {
		many[fmt.Sprintf("label-%d", i)] = "x"
	}
	long := strings.Repeat("a", 64)
	for name, test := range map[string]struct {
		labels map[string]any
		taken  bool
	}{
		"plain":                  {map[string]any{"team": "web", "ticket": "CHG-1", "empty": "", "Case": "A_b.c"}, true},
		"with a domain":          {map[string]any{"example.com/team": "web", "app.kubernetes.io/part-of": "shop"}, true},
		"the longest":            {map[string]any{long[1:]: long[1:]}, true},
		"too many":               {many, false},
		"a mark of the engine":   {map[string]any{markGrant: "x"}, false},
		"a mark to come":         {map[string]any{markPrefix + "later": "x"}, false},
		"who manages it":         {map[string]any{managedBy: "x"}, false},
		"a domain of Kubernetes": {map[string]any{"kubernetes.io/metadata.name": "x"}, false},
		"a part of it":           {map[string]any{"rbac.authorization.k8s.io/aggregate-to-admin": "true"}, false},
		"without a key":          {map[string]any{"": "x"}, false},
		"two slashes":            {map[string]any{"a/b/c": "x"}, false},
		"a long key":             {map[string]any{long: "x"}, false},
		"a spaced key":           {map[string]any{"a b": "x"}, false},
		"a key's new line":       {map[string]any{"a\n": "x"}, false},
		"a long value":           {map[string]any{"a": long}, false},
		"a slash":                {map[string]any{"a": "b/c"}, false},
		"a dash first":           {map[string]any{"a": "-b"}, false},
		"a new line":             {map[string]any{"a": "b\n"}, false},
		"a zero":                 {map[string]any{"a": "b\x00"}, false},
		"no ASCII":               {map[string]any{"a": "ä"}, false},
		"a place left":           {map[string]any{"a": "{{task}}"}, false},
	} {
		read, err := parseLabels(provider.Settings{fieldLabels: test.labels})
		if (err == nil) != test.taken || (err != nil && !errors.As(err, new(*invalid.Error))) {
			t.Errorf("%s: %v", name, err)
		}
		if test.taken && len(read) != len(test.labels) {
			t.Errorf("%s: read as %v", name, read)
		}
	}
}

// Whatever a policy says, an object's marks are the grant's.
func TestLabelsLeaveMarks(t *testing.T) {
	handle := provider.Handle{handleName: "precision-1", markGrant: "1", markMount: "m"}
	made := labelled(metaOf(handle, "prod"), map[string]string{markGrant: "2", markLedger: "3", managedBy: "x", "team": "web"})
	if made.Labels[markGrant] != "1" || made.Labels[managedBy] != engineName || made.Labels["team"] != "web" || made.Labels[markLedger] != "" {
		t.Errorf("the labels are %v", made.Labels)
	}
}
