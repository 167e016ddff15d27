package strictjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestValue(t *testing.T) {
	for text, want := range map[string]any{
		`{}`:                      map[string]any{},
		`{"a":[1,"b",null,true]}`: map[string]any{"a": []any{json.Number("1"), "b", nil, true}},
		` "x" `:                   "x",
	} {
		got, err := Value(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{``, `{`, `[1,`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":1}}`, `{"a":1} x`, `{} {}`, `{"a" 1}`, `[1 2]`, `nul`, `{1:2}`, strings.Repeat("[", 40) + strings.Repeat("]", 40)} {
		if got, err := Value(text); err == nil {
			t.Errorf("%s was read as %v", text, got)
		}
	}
	for _, text := range []string{`[]`, `"{}"`, `null`} {
		if got, err := Object(text); err == nil {
			t.Errorf("%s was read as object %v", text, got)
		}
	}
}

// FuzzValue: what is read here, encoding/json reads as the same.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{"b":"c"}]}`, `{"a":1,"a":2}`, `[[[[`, `{"\u0061":1,"a":2}`, "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Value(text)
		if err != nil {
			return
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var want any
		if err := decoder.Decode(&want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: read as %v, encoding/json says %v (%v)", text, got, want, err)
		}
	})
}
