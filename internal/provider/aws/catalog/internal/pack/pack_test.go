package pack

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

var service = Service{
	Actions: []Action{{Name: "GetThing", Levels: []string{"Read"}, Uses: []Use{{Type: 0, Required: true, Keys: []int{1}}}, Keys: []int{0}, Dependents: []string{"a:B"}}},
	Types:   []Type{{Name: "thing", Patterns: []string{"arn:${Partition}:a:::thing/${Thing}"}, Keys: []int{0}}},
	Keys:    []Key{{"a:key", "String"}, {"a:other", "Bool"}},
}

func build(t *testing.T) []byte {
	t.Helper()
	builder := NewBuilder([]Source{{"p", "1", "2026-01-01T00:00:00Z", "MIT"}})
	if err := builder.AddService("a", "Service A", service); err != nil {
		t.Fatal(err)
	}
	if err := builder.AddService("b", "Service B", Service{}); err != nil {
		t.Fatal(err)
	}
	if err := builder.AddTable("t.tsv", []byte("x\ty\n")); err != nil {
		t.Fatal(err)
	}
	file, err := builder.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRoundTrip(t *testing.T) {
	file := build(t)
	if !bytes.Equal(file, build(t)) {
		t.Error("the same input gives other bytes")
	}
	archive, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Services) != 2 || archive.Services[1].Title != "Service B" || len(archive.Sources) != 1 {
		t.Errorf("header is %+v", archive.Header)
	}
	if got, err := archive.ReadService(archive.Services[0]); err != nil || !reflect.DeepEqual(got, service) {
		t.Errorf("ReadService = %+v, %v", got, err)
	}
	if got, err := archive.ReadService(archive.Services[1]); err != nil || !reflect.DeepEqual(got, Service{}) {
		t.Errorf("ReadService = %+v, %v", got, err)
	}
	if got, err := archive.Read(archive.Tables[0]); err != nil || string(got) != "x\ty\n" {
		t.Errorf("Read = %q, %v", got, err)
	}
}

func TestDamagedFiles(t *testing.T) {
	file := build(t)
	for _, size := range []int{0, 3, 4, 10} {
		if _, err := Open(file[:size]); err == nil {
			t.Errorf("%d bytes are opened", size)
		}
	}
	wrong := slices.Clone(file)
	for i := 4; i < 20; i++ {
		wrong[i] ^= 0xff
	}
	if _, err := Open(wrong); err == nil {
		t.Error("a damaged header is opened")
	}
	archive, err := Open(file[:len(file)-1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Read(archive.Tables[0]); err == nil {
		t.Error("a section that is cut off is read")
	}
	for _, section := range []Section{{Offset: -1, Size: 1}, {Offset: 0, Size: -1}, {Offset: 1 << 40, Size: 1}} {
		if _, err := archive.Read(section); err == nil {
			t.Errorf("%+v is read", section)
		}
	}
	if _, err := archive.ReadService(Section{Offset: archive.Services[0].Offset, Size: 5}); err == nil {
		t.Error("half a service is read")
	}
}
