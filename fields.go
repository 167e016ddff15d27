package precision

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/admission/approval"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/scope"
	"github.com/precision-access/vault-plugin-secrets-precision/internal/strictjson"
)

// Longest names, in characters. A task may be longer than a role: it is often
// made of several ids.
const (
	maxName = 64
	maxTask = scope.MaxTask
)

var nameShape = regexp.MustCompile(`\A[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\z`)

// checkName admits what is one path segment for Vault, and a word of plain
// letters for every target. Vault refuses the lease of a path with "..", after
// the credential has been minted.
func checkName(field, value string, longest int) error {
	const remedy = "use letters, digits, \"_\", \"-\" and \".\", with a letter, digit or \"_\" at both ends and no \"..\""
	switch {
	case len(value) > longest:
		return invalid.Field(field, value, fmt.Sprintf("longer than %d characters", longest), "shorten it")
	case !nameShape.MatchString(value) || strings.Contains(value, ".."):
		return invalid.Field(field, value, "it has characters or a form that a name can't have", remedy)
	}
	return nil
}

// nameIn reads the name of a role or target from a path.
func nameIn(data *framework.FieldData, field string) (string, error) {
	name := data.Get(field).(string)
	return name, checkName(field, name, maxName)
}

// reasonIn reads why something is done.
func reasonIn(data *framework.FieldData) (string, error) {
	reason := strings.TrimSpace(data.Get("reason").(string))
	return reason, approval.CheckReason(reason)
}

// maxDuration is longer than a credential for one task can have to live, and as
// long as a session may be on MinIO. The ledger's retention is bounded by it, too.
const maxDuration = 365 * 24 * time.Hour

// checkDuration reads a duration as Vault does. The framework would turn 500ms
// into 0, and 0 into "not set".
func checkDuration(field string, raw any) error {
	const remedy = "give whole seconds, as in 90s, 10m or 600"
	text := fmt.Sprint(raw)
	duration, err := parseutil.ParseDurationSecond(raw)
	switch {
	case text == "" || err != nil || len(text) > 20:
		return invalid.Field(field, text, "not a duration", remedy)
	case duration < time.Second || duration%time.Second != 0:
		return invalid.Field(field, text, "not one second or more, in whole seconds", remedy)
	case duration > maxDuration:
		return invalid.Field(field, text, "longer than 8760h", "give 8760h or less")
	}
	return nil
}

// guard checks a request's data before the framework reads it. A field that
// the path does not know is an error: the framework would drop it with a
// warning, and a misspelt restriction must never be dropped. An object that is
// given as JSON text, as the command line does, becomes one.
func guard(path *framework.Path, captured []string, req *logical.Request) error {
	for _, name := range slices.Sorted(maps.Keys(req.Data)) {
		schema, known := path.Fields[name]
		if !known && path.TakesArbitraryInput {
			if _, ok := req.Data[name].(string); !ok {
				return notA("a string", invalid.Clip(name), req.Data[name])
			}
			continue // a parameter of the role, which the role knows
		}
		if !known {
			return invalid.Hidden(fmt.Sprintf("field %q", invalid.Clip(name)), "this path has no such field", "it takes "+invalid.OneOf(bodyFields(path, captured)))
		}
		if slices.Contains(captured, name) {
			return invalid.Hidden(fmt.Sprintf("field %q", name), "it is part of the path", "leave it out of the data")
		}
		if !schema.Query && slices.Contains([]logical.Operation{logical.ReadOperation, logical.ListOperation, logical.DeleteOperation}, req.Operation) {
			return invalid.Hidden(fmt.Sprintf("field %q", name), fmt.Sprintf("a %s does not take it", req.Operation), "leave it out")
		}
		raw := req.Data[name]
		if raw == nil && req.Operation == logical.PatchOperation {
			continue // unsets the field
		}
		if text, ok := raw.(string); ok && schema.Type == framework.TypeMap {
			object, err := strictjson.Object(text)
			if err != nil {
				return invalid.Field(name, text, "not a JSON object: "+err.Error(), "write it as JSON, or as "+name+"=@file.json")
			}
			req.Data[name], raw = object, object
		}
		if err := checkType(name, schema, raw); err != nil {
			return err
		}
	}
	return nil
}

// notA says that a value is of the wrong type. The value is not repeated: it may
// be a secret.
func notA(want, name string, raw any) error {
	return invalid.Hidden(name, fmt.Sprintf("it must be %s, not %s", want, kindOf(raw)), "give it once, as "+want)
}

func bodyFields(path *framework.Path, captured []string) []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(path.Fields)), func(name string) bool { return slices.Contains(captured, name) })
	if len(names) == 0 {
		return []string{"no data"}
	}
	return names
}

// checkType refuses what the framework would bend into shape: a list of one
// string, a number as text.
func checkType(name string, schema *framework.FieldSchema, raw any) error {
	wrong := func(want string) error { return notA(want, name, raw) }
	switch schema.Type {
	case framework.TypeString:
		if _, ok := raw.(string); !ok {
			return wrong("a string")
		}
	case framework.TypeBool:
		switch value := raw.(type) {
		case bool:
		case string:
			if value != "true" && value != "false" {
				return invalid.Field(name, value, "neither true nor false", "write true or false")
			}
		default:
			return wrong("true or false")
		}
	case framework.TypeDurationSecond:
		switch raw.(type) {
		case string, json.Number, int, int64, float64:
			return checkDuration(name, raw)
		default:
			return wrong("a duration")
		}
	case framework.TypeInt:
		switch raw.(type) {
		case string, json.Number, int, int64, float64: // Vault hands the last to a plugin
			text := fmt.Sprint(raw)
			if number, ok := raw.(float64); ok {
				text = strconv.FormatFloat(number, 'f', -1, 64)
			}
			if !isWhole(text) {
				return invalid.Field(name, text, "not a whole number", "write it in digits")
			}
		default:
			return wrong("a number")
		}
	case framework.TypeMap:
		if _, ok := raw.(map[string]any); !ok {
			return wrong("an object")
		}
	case framework.TypeStringSlice:
		switch list := raw.(type) {
		case string, []string:
		case []any:
			for _, entry := range list {
				if _, ok := entry.(string); !ok {
					return notA("a list of strings", name, entry)
				}
			}
		default:
			return wrong("a list of strings")
		}
	case framework.TypeKVPairs:
		return checkPairs(name, raw)
	default:
		return fmt.Errorf("field %q has a type that the guard does not know", name)
	}
	return nil
}

// checkPairs admits an object of strings, and what stands for one: key=value, or a list
// of these with no key twice. The framework would take 7 for "7", and the last of two.
func checkPairs(name string, raw any) error {
	var entries []any
	switch pairs := raw.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(pairs)) {
			if _, ok := pairs[key].(string); !ok {
				return notA("an object of strings", name, pairs[key])
			}
		}
		return nil
	case string:
		entries = []any{pairs}
	case []any:
		entries = pairs
	default:
		return notA("an object of strings", name, raw)
	}
	seen := map[string]bool{}
	for _, entry := range entries {
		text, ok := entry.(string)
		if !ok {
			return notA("an object of strings", name, entry)
		}
		key, _, pair := strings.Cut(text, "=")
		if !pair || key == "" {
			return invalid.Field(name, text, "not a key and its value", "write it as key=value")
		}
		if seen[key] {
			return invalid.Field(name, key, "it is there twice", "leave one out")
		}
		seen[key] = true
	}
	return nil
}

// isWhole admits what every parser reads as the same number, of at most nine
// digits.
func isWhole(text string) bool {
	number, err := strconv.Atoi(text)
	return err == nil && len(text) <= 9 && strconv.Itoa(number) == text
}

func kindOf(raw any) string {
	switch raw.(type) {
	case nil:
		return "null"
	case bool:
		return "a truth value"
	case string:
		return "a string"
	case []any, []string:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return "a number"
	}
}
