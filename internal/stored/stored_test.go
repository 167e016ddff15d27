package stored

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

type inner struct {
	Limit int `json:"limit"`
}

type sample struct {
	Name   string         `json:"name"`
	Inner  inner          `json:"inner,omitzero"`
	Free   map[string]any `json:"free,omitempty"`
	Number any            `json:"number,omitempty"`
}

func TestEntriesAreReadStrictly(t *testing.T) {
	for text, want := range map[string]error{
		`{"name":"a"}`:                                          nil, // as v0.1.0 wrote it
		`{"version":0,"entry":{"name":"a"}}`:                    nil,
		`{"version":1,"entry":{"name":"a"}}`:                    nil,
		`{"version":1,"entry":{"name":"a","free":{"x":{}}}}`:    nil,
		`{"version":2,"entry":{"name":"a"}}`:                    ErrNewer,
		`{"version":2,"entry":7}`:                               ErrNewer,
		`{"version":1,"entry":{"name":"a","bound":true}}`:       ErrNewer,
		`{"version":1,"entry":{"name":"a","inner":{"most":1}}}`: ErrNewer,
		`{"name":"a","bound":true}`:                             ErrNewer,
		`{"version":-1,"entry":{"name":"a"}}`:                   ErrDamaged,
		`{"version":1,"entry":null}`:                            ErrDamaged,
		`{"version":1}`:                                         ErrDamaged,
		`{"version":1,"entry":{"name":7}}`:                      ErrDamaged,
		`{"version":1,"entry":{"name":"a"}} {}`:                 ErrDamaged,
		`{"name":"a"}{`:                                         ErrDamaged,
		`{"name":`:                                              ErrDamaged,
		`null`:                                                  ErrDamaged,
		``:                                                      ErrDamaged,
	} {
		got := sample{Name: "before"}
		err := Decode("roles/a", []byte(text), &got)
		switch {
		case want == nil && (err != nil || got.Name != "a"):
			t.Errorf("%s is read as %+v, %v", text, got, err)
		case want != nil && !errors.Is(err, want):
			t.Errorf("%s: %v, want %v", text, err, want)
		case want != nil && got.Name != "":
			t.Errorf("%s leaves %+v", text, got)
		case want != nil && (!Unreadable(err) || !strings.Contains(err.Error(), "roles/a")):
			t.Errorf("%s: %v does not name the entry", text, err)
		}
	}
}

func TestPutThenGet(t *testing.T) {
	storage := &logical.InmemStorage{}
	want := sample{Name: "a", Inner: inner{Limit: 3}, Number: json.Number("12345678901234567890")}
	if err := Put(t.Context(), storage, "k", want); err != nil {
		t.Fatal(err)
	}
	var got sample
	if found, err := Get(t.Context(), storage, "k", &got); !found || err != nil || got.Name != want.Name || got.Inner != want.Inner || got.Number != want.Number {
		t.Errorf("%+v, %t, %v", got, found, err)
	}
	if found, err := Get(t.Context(), storage, "none", &got); found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
}

// A migration is run for each version between the entry's and the plugin's.
func TestMigrationsRunInOrder(t *testing.T) {
	before := migrations
	defer func() { migrations = before }()
	migrations = append(before[:1:1], func(key string, entry json.RawMessage) (json.RawMessage, error) {
		if !strings.HasPrefix(key, "roles/") {
			return nil, errors.New("another key")
		}
		return json.RawMessage(strings.Replace(string(entry), `"called"`, `"name"`, 1)), nil
	})
	for _, text := range []string{`{"called":"a"}`, `{"version":1,"entry":{"called":"a"}}`, `{"version":2,"entry":{"name":"a"}}`} {
		var got sample
		if err := decode("roles/x", []byte(text), &got, 2); err != nil || got.Name != "a" {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
	}
	if err := decode("config/x", []byte(`{"called":"a"}`), new(sample), 2); !errors.Is(err, ErrDamaged) {
		t.Errorf("a migration that fails: %v", err)
	}
	if len(before) != Version {
		t.Errorf("there are %d migrations to version %d", len(before), Version)
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{`{"name":"a"}`, `{"version":1,"entry":{"name":"a"}}`, `{"version":2,"entry":7}`, `{"version":1,"entry":{"x":1}}`, `[]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got sample
		err := Decode("k", data, &got)
		if err != nil {
			if !Unreadable(err) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		again, err := Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode("k", again, new(sample)); err != nil {
			t.Errorf("%q was read, and not read again: %v", data, err)
		}
	})
}
