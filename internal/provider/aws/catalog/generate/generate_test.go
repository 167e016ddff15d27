package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog/internal/pack"
)

// packed returns an npm package's file with the given files, and a pin that fits.
func packed(t *testing.T, files map[string]string) (pin, []byte) {
	t.Helper()
	var data bytes.Buffer
	compressed := gzip.NewWriter(&data)
	archive := tar.NewWriter(compressed)
	for path, text := range files {
		if err := archive.WriteHeader(&tar.Header{Name: path, Size: int64(len(text)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(data.Bytes())
	return pin{"p", "1.0.0", base64.StdEncoding.EncodeToString(sum[:])}, data.Bytes()
}

// example is a package with one service.
func example() map[string]string {
	return map[string]string{
		"package/package.json":              `{"name":"p","version":"1.0.0","updatedAt":"2026-01-01T00:00:00Z","license":"MIT"}`,
		"package/README.md":                 "text",
		"package/data/services.json":        `["a"]`,
		"package/data/serviceNames.json":    `{"a":"Service A"}`,
		"package/data/conditionKeys/a.json": `{"a:one":{"key":"a:One","type":"String"},"a:two":{"key":"a:Two","type":"Bool"}}`,
		"package/data/resourceTypes/a.json": `{"thing":{"key":"Thing","arn":"arn:x:${Id}, arn:y:${Id}","conditionKeys":["a:Two"]}}`,
		"package/data/actions/a.json": `{"putthing":{"name":"PutThing","accessLevel":"Permissions management, Write","conditionKeys":["A:TWO","a:One"],
			"resourceTypes":[{"name":"Thing","required":false,"conditionKeys":["a:One"],"dependentActions":["b:X"]},{"name":"Thing","required":true,"conditionKeys":["a:Two","a:One"],"dependentActions":["a:Y"]}],
			"dependentActions":["b:X"]}}`,
	}
}

func unpacked(t *testing.T, files map[string]string) (release, error) {
	t.Helper()
	return open(packed(t, files))
}

func TestConversion(t *testing.T) {
	source, err := unpacked(t, example())
	if err != nil {
		t.Fatal(err)
	}
	if want := (pack.Source{Package: "p", Version: "1.0.0", Date: "2026-01-01T00:00:00Z", Licence: "MIT"}); source.source != want {
		t.Errorf("source is %+v, not %+v", source.source, want)
	}
	builder := pack.NewBuilder(nil)
	if err := addServices(builder, source, source); err != nil {
		t.Fatal(err)
	}
	data, err := builder.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := pack.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	service, err := archive.ReadService(archive.Services[0])
	if err != nil {
		t.Fatal(err)
	}
	want := pack.Service{
		Actions: []pack.Action{{
			Name: "PutThing", Levels: []string{"Permissions management", "Write"}, Keys: []int{0, 1},
			Uses: []pack.Use{{Type: 0, Required: true, Keys: []int{0, 1}}}, Dependents: []string{"a:Y", "b:X"},
		}},
		Types: []pack.Type{{Name: "Thing", Patterns: []string{"arn:x:${Id}", "arn:y:${Id}"}, Keys: []int{1}}},
		Keys:  []pack.Key{{Name: "a:One", Type: "String"}, {Name: "a:Two", Type: "Bool"}},
	}
	if !reflect.DeepEqual(service, want) {
		t.Errorf("service is %+v, not %+v", service, want)
	}
}

func TestServiceThatTheOlderReleaseLacks(t *testing.T) {
	source, err := unpacked(t, example())
	if err != nil {
		t.Fatal(err)
	}
	if err := addServices(pack.NewBuilder(nil), source, release{}); err != nil {
		t.Error(err)
	}
}

func TestPackagesThatAreNotTheExpectedOnes(t *testing.T) {
	for path, text := range map[string]string{
		"package/package.json":              `{"name":"p","version":"1.0.1"}`,
		"package/data/services.json":        `{`,
		"package/data/serviceNames.json":    `[]`,
		"package/data/conditionKeys/a.json": `{}`,
		"package/data/resourceTypes/a.json": `{}`,
	} {
		files := example()
		files[path] = text
		source, err := unpacked(t, files)
		if err == nil {
			err = addServices(pack.NewBuilder(nil), source, source)
		}
		if err == nil {
			t.Errorf("%s is %s: no error", path, text)
		}
	}
	pinned, data := packed(t, example())
	pinned.integrity = strings.Repeat("A", len(pinned.integrity))
	if _, err := open(pinned, data); err == nil {
		t.Error("another file than the pinned one is opened")
	}
}

// TestCommittedFile holds that catalog.bin was made from the pinned releases and
// that packing its tables anew changes nothing.
func TestCommittedFile(t *testing.T) {
	t.Chdir("..")
	committed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := pack.Open(committed)
	if err != nil {
		t.Fatal(err)
	}
	for i, pinned := range []pin{reference, dependents} {
		if source := archive.Sources[i]; source.Package != pinned.name || source.Version != pinned.version {
			t.Errorf("source %d is %+v, the pinned one %+v", i, source, pinned)
		}
	}
	var names []string
	for _, section := range archive.Tables {
		names = append(names, section.Name)
	}
	if !slices.Equal(names, tables) {
		t.Errorf("the packed tables are %q, not %q", names, tables)
	}
	builder, err := keepServices()
	if err != nil {
		t.Fatal(err)
	}
	if err := packTables(builder); err != nil {
		t.Fatal(err)
	}
	again, err := builder.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	anew, err := pack.Open(again)
	if err != nil {
		t.Fatal(err)
	}
	for i, section := range archive.Tables {
		was, err := archive.Read(section)
		if err != nil {
			t.Fatal(err)
		}
		if is, err := anew.Read(anew.Tables[i]); err != nil || !bytes.Equal(was, is) {
			t.Errorf("%s differs from the packed one: %v", filepath.Join(folder, section.Name), err)
		}
	}
	for i, section := range archive.Services {
		was, err := archive.Read(section)
		if err != nil {
			t.Fatal(err)
		}
		if is, err := anew.Read(anew.Services[i]); err != nil || !bytes.Equal(was, is) {
			t.Errorf("service %s changes when it is packed again: %v", section.Name, err)
		}
	}
}
