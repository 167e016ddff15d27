package precision

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/registry"
)

// Pairs come as an object, or as key=value from the command line.
func TestPairs(t *testing.T) {
	for text, want := range map[string]bool{
		`{"a":"b"}`: true, `{}`: true, `"a=b"`: true, `["a=b","c=d=e"]`: true, `"a="`: true,
		`{"a":7}`: false, `{"a":["b"]}`: false, `"a"`: false, `["a=b","a=c"]`: false, `[1]`: false, `"=b"`: false, `7`: false, `true`: false,
	} {
		var raw any
		if err := json.Unmarshal([]byte(text), &raw); err != nil {
			t.Fatal(err)
		}
		if err := checkType("tags", &framework.FieldSchema{Type: framework.TypeKVPairs}, raw); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A number comes as text from the command line, as a float from Vault's API.
func TestWholeNumbers(t *testing.T) {
	for raw, want := range map[any]bool{
		"5": true, json.Number("5"): true, 5: true, 5.0: true, 1e6: true, -1.0: true, "0": true,
		"": false, "1.5": false, 1.5: false, "010": false, "1e3": false, 1e12: false, "x": false, true: false, " 5": false,
	} {
		if err := checkType("number", &framework.FieldSchema{Type: framework.TypeInt}, raw); (err == nil) != want {
			t.Errorf("%v (%T): %v", raw, raw, err)
		}
	}
}

// Every field that a target or a role may have can be written: its type is one that
// the guard knows.
func TestFieldsOfAllTypes(t *testing.T) {
	t.Parallel()
	for _, of := range registry.Types() {
		for _, fields := range []map[string]*framework.FieldSchema{of.Config, of.Role} {
			for field, schema := range fields {
				err := checkType(field, schema, "1")
				if mendable := new(invalid.Error); err != nil && !errors.As(err, &mendable) {
					t.Errorf("%s: %v", of.Name, err)
				}
			}
		}
	}
}
