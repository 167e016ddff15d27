package postgresql

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/invalid"
)

func TestResources(t *testing.T) {
	for _, test := range []struct {
		kind      kind
		text      string
		want      resource
		canonical string
	}{
		{relation, "ledger.entries", resource{schema: "ledger", name: "entries"}, "ledger.entries"},
		{relation, "Ledger.ENTRIES", resource{schema: "ledger", name: "entries"}, "ledger.entries"},
		{relation, `"Ledger".entries`, resource{schema: "Ledger", name: "entries"}, `"Ledger".entries`},
		{relation, `"a""b"."c.d"`, resource{schema: `a"b`, name: "c.d"}, `"a""b"."c.d"`},
		{relation, "ledger.entries(b, a)", resource{schema: "ledger", name: "entries", columns: []string{"a", "b"}}, "ledger.entries(a,b)"},
		{relation, `ledger.entries("Odd Name",x)`, resource{schema: "ledger", name: "entries", columns: []string{"Odd Name", "x"}}, `ledger.entries("Odd Name",x)`},
		{relation, `"lédger".t$1`, resource{schema: "lédger", name: "t$1"}, `"lédger".t$1`},
		{routine, "ledger.post(integer, text)", resource{schema: "ledger", name: "post", arguments: "(integer, text)"}, "ledger.post(integer, text)"},
		{routine, "ledger.post()", resource{schema: "ledger", name: "post", arguments: "()"}, "ledger.post()"},
		{routine, `ledger.post(numeric(10,2)[], "My Schema"."T")`, resource{schema: "ledger", name: "post", arguments: `(numeric(10,2)[], "My Schema"."T")`}, `ledger.post(numeric(10,2)[], "My Schema"."T")`},
		{sequence, "ledger.entries_id_seq", resource{schema: "ledger", name: "entries_id_seq"}, "ledger.entries_id_seq"},
		{database, "shop", resource{database: "shop"}, "shop"},
		{database, `"My Shop"`, resource{database: "My Shop"}, `"My Shop"`},
	} {
		got, err := parseResource("resource", test.kind, test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if got.schema != test.want.schema || got.name != test.want.name || got.arguments != test.want.arguments || got.database != test.want.database || !slices.Equal(got.columns, test.want.columns) {
			t.Errorf("%s: got %+v", test.text, got)
		}
		if got.String() != test.canonical {
			t.Errorf("%s: canonical %s, want %s", test.text, got, test.canonical)
		}
	}
}

func TestResourcesThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	for _, test := range []struct {
		kind kind
		text string
	}{
		{relation, ""}, {relation, "entries"}, {relation, "ledger."}, {relation, ".entries"}, {relation, "ledger.*"}, {relation, "*"},
		{relation, "shop.ledger.entries"}, {relation, "ledger.entries;"}, {relation, "ledger.entries --"}, {relation, "ledger.entries, ledger.other"},
		{relation, `"ledger.entries`}, {relation, `"".entries`}, {relation, `"ledger"x.entries`}, {relation, "ledger.entries()"}, {relation, "ledger.entries(a"},
		{relation, "ledger.entries(a,)"}, {relation, "ledger.entries(a,a)"}, {relation, "ledger.entries(a)(b)"}, {relation, "ledger.entries(*)"},
		{relation, "1edger.entries"}, {relation, "lédger.entries"}, {relation, " ledger.entries"}, {relation, "ledger.entries "},
		{relation, long + ".entries"}, {relation, "ledger." + long}, {relation, "pg_catalog.pg_authid"}, {relation, "PG_CATALOG.pg_authid"},
		{relation, `"pg_catalog".pg_authid`}, {relation, "information_schema.tables"}, {relation, "precision.run_once"}, {routine, "precision.f()"}, {relation, "pg_temp.x"}, {relation, "pg_temp_3.x"}, {relation, "\"a\x01\".b"},
		{routine, "ledger.post"}, {routine, "ledger.post("}, {routine, "ledger.post(integer"}, {routine, "ledger.post(integer))"}, {routine, "ledger.post(1;drop)"},
		{routine, "ledger.post('a')"}, {routine, "post()"}, {routine, "pg_catalog.pg_read_file(text)"}, {routine, `ledger.post(")`},
		{sequence, "ledger.s(a)"}, {sequence, "s"},
		{database, "shop.ledger"}, {database, ""}, {database, "shop "}, {database, long},
	} {
		if got, err := parseResource("resource", test.kind, test.text); !errors.As(err, new(*invalid.Error)) {
			t.Errorf("%q: read as %+v, error %v", test.text, got, err)
		}
	}
}

// What is read can be written and read again, and comes to the same.
func FuzzResource(f *testing.F) {
	for _, seed := range []string{"ledger.entries", `"a""b".c(d,"e f")`, "ledger.post(integer, text[])", "shop", `x.y("(")`} {
		for kind := range form {
			f.Add(int(kind), seed)
		}
	}
	f.Fuzz(func(t *testing.T, number int, text string) {
		kind := kind(number)
		if _, known := form[kind]; !known {
			return
		}
		parsed, err := parseResource("resource", kind, text)
		if err != nil {
			if !errors.As(err, new(*invalid.Error)) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := parseResource("resource", kind, parsed.String())
		if err != nil {
			t.Fatalf("%q, written as %q: %v", text, parsed, err)
		}
		if again.String() != parsed.String() || again.schema != parsed.schema || again.name != parsed.name || again.database != parsed.database || !slices.Equal(again.columns, parsed.columns) {
			t.Fatalf("%q: %+v is read again as %+v", text, parsed, again)
		}
		for _, name := range append([]string{parsed.schema, parsed.name, parsed.database}, parsed.columns...) {
			if len(name) > maxName || strings.ContainsRune(name, 0) {
				t.Fatalf("%q: the name %q", text, name)
			}
		}
	})
}
