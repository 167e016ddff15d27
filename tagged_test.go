package precision

import (
	"maps"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/providertest"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
)

// labelling is a fake target that marks its credentials with a role's labels.
type labelling struct {
	*providertest.Fake
	labels *[]map[string]string // of each scope that was compiled
}

func (l labelling) Compile(granted scope.Scope, bounds provider.Bounds) (provider.Policy, error) {
	labels := bounds.Options.Pairs("labels")
	for _, value := range labels {
		if strings.Contains(value, "!") {
			return "", invalid.Field("labels", value, "not a label", "leave the ! out")
		}
	}
	*l.labels = append(*l.labels, maps.Clone(labels))
	return l.Fake.Compile(granted, bounds)
}

// Labels take parameters, the task and the caller's identity, as a resource does; the
// target checks what they become before anything is minted.
func TestTagsAreFilledIn(t *testing.T) {
	fake := &providertest.Fake{}
	var labels []map[string]string
	kind := fake.Type()
	kind.Role = map[string]*framework.FieldSchema{"labels": {Type: framework.TypeKVPairs, Description: "Labels.", DisplayAttrs: &framework.DisplayAttributes{Name: "Labels"}}}
	kind.Tagged = []string{"labels"}
	kind.Open = func(provider.Settings, provider.Facts) (provider.Provider, error) {
		return labelling{fake, &labels}, nil
	}
	e := newEngineOn(t, fake, kind)
	e.do(logical.CreateOperation, "roles/labelled", map[string]any{
		"target": "db", "action": "reset", "resource": "one",
		"labels": map[string]any{"ticket": "{{task}}", "team": "team-{{team}}"}, "parameters": map[string]any{"team": `[a-z!]+`},
	})
	if read := provider.Settings(e.do(logical.ReadOperation, "roles/labelled", nil).Data).Pairs("labels"); read["team"] != "team-{{team}}" {
		t.Errorf("the role reads as %v", read)
	}
	e.do(logical.ReadOperation, "creds/labelled/T-1", map[string]any{"team": "a"})
	if got := labels[len(labels)-1]; got["ticket"] != "T-1" || got["team"] != "team-a" {
		t.Errorf("the labels are %v", got)
	}
	for path, values := range map[string]map[string]any{"creds/labelled/T-1": {"team": "a!"}, "creds/labelled": {"team": "a"}, "creds/labelled/T-2": {}} {
		if response, err := e.try(logical.ReadOperation, path, values); err != nil || !response.IsError() {
			t.Errorf("%s %v was not refused: %v %v", path, values, response, err)
		}
	}
	if live := fake.Live(); live != 1 {
		t.Errorf("%d live, want 1", live)
	}
	for name, label := range map[string]string{"unknown": "{{other}}", "unclosed": "{{task"} {
		response, err := e.try(logical.CreateOperation, "roles/bad", map[string]any{"target": "db", "action": "reset", "resource": "one", "labels": map[string]any{"x": label}})
		if err != nil || !response.IsError() {
			t.Errorf("%s: was not refused: %v %v", name, response, err)
		}
	}
}
