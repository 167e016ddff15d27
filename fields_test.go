package precision

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
)

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
