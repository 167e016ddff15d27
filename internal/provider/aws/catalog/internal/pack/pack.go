// Package pack is the format of catalog.bin, shared by the generator that
// writes it and the package that reads it.
//
// The file is the length of the header (4 bytes, big endian), the header, and
// then the sections back to back. The header and every section are compressed
// on their own (DEFLATE), so that a reader unpacks only what it needs; the
// header says where each section lies.
package pack

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const lengthSize = 4

// Source is a release of a package that the catalogue was made from.
type Source struct {
	Package string `json:"package"`
	Version string `json:"version"`
	Date    string `json:"date"` // RFC 3339, as the package states it
	Licence string `json:"licence"`
}

// Header is the index of the file.
type Header struct {
	Sources  []Source  `json:"sources"`
	Services []Section `json:"services"` // sorted by name
	Tables   []Section `json:"tables"`   // sorted by name
}

// Section says where one section lies.
type Section struct {
	Name   string `json:"name"`            // a service's prefix, a table's file name
	Title  string `json:"title,omitempty"` // a service's name in words
	Offset int    `json:"offset"`          // in bytes, from the end of the header
	Size   int    `json:"size"`            // in bytes, compressed
}

// Service is one service as its section holds it. Numbers refer to positions in
// Types and Keys.
type Service struct {
	Actions []Action `json:"a,omitempty"`
	Types   []Type   `json:"t,omitempty"`
	Keys    []Key    `json:"k,omitempty"`
}

// Action is one action, its name without the service's prefix.
type Action struct {
	Name       string   `json:"n"`
	Levels     []string `json:"l"`
	Uses       []Use    `json:"r,omitempty"`
	Keys       []int    `json:"k,omitempty"`
	Dependents []string `json:"d,omitempty"`
}

// Use is a resource type that an action works on.
type Use struct {
	Type     int   `json:"t"`
	Required bool  `json:"r,omitempty"`
	Keys     []int `json:"k,omitempty"`
}

// Type is a resource type.
type Type struct {
	Name     string   `json:"n"`
	Patterns []string `json:"p"`
	Keys     []int    `json:"k,omitempty"`
}

// Key is a condition key.
type Key struct {
	Name string `json:"n"`
	Type string `json:"t"`
}

// Builder collects sections and writes the file.
type Builder struct {
	header   Header
	sections bytes.Buffer
}

// NewBuilder returns a builder of a file made from the given sources.
func NewBuilder(sources []Source) *Builder {
	return &Builder{header: Header{Sources: sources}}
}

// AddService appends a service. Services are added in the order of their prefixes.
func (b *Builder) AddService(prefix, title string, service Service) error {
	data, err := json.Marshal(service)
	if err != nil {
		return fmt.Errorf("encode service %s: %w", prefix, err)
	}
	section, err := b.add(data)
	if err != nil {
		return err
	}
	section.Name, section.Title = prefix, title
	b.header.Services = append(b.header.Services, section)
	return nil
}

// AddTable appends a table's text. Tables are added in the order of their names.
func (b *Builder) AddTable(name string, text []byte) error {
	section, err := b.add(text)
	if err != nil {
		return err
	}
	section.Name = name
	b.header.Tables = append(b.header.Tables, section)
	return nil
}

func (b *Builder) add(data []byte) (Section, error) {
	packed, err := compress(data)
	if err != nil {
		return Section{}, err
	}
	section := Section{Offset: b.sections.Len(), Size: len(packed)}
	b.sections.Write(packed)
	return section, nil
}

// Bytes returns the file.
func (b *Builder) Bytes() ([]byte, error) {
	data, err := json.Marshal(b.header)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	header, err := compress(data)
	if err != nil {
		return nil, err
	}
	file := binary.BigEndian.AppendUint32(nil, uint32(len(header)))
	return append(append(file, header...), b.sections.Bytes()...), nil
}

// Archive is an opened file. It is safe for concurrent use.
type Archive struct {
	Header
	sections []byte
}

// Open reads the header of a file and keeps the file.
func Open(file []byte) (Archive, error) {
	if len(file) < lengthSize {
		return Archive{}, errors.New("catalogue: no header")
	}
	size := int(binary.BigEndian.Uint32(file))
	if size > len(file)-lengthSize {
		return Archive{}, errors.New("catalogue: cut off in the header")
	}
	archive := Archive{sections: file[lengthSize+size:]}
	data, err := expand(file[lengthSize : lengthSize+size])
	if err != nil {
		return Archive{}, fmt.Errorf("catalogue: header: %w", err)
	}
	if err := json.Unmarshal(data, &archive.Header); err != nil {
		return Archive{}, fmt.Errorf("catalogue: header: %w", err)
	}
	return archive, nil
}

// Read returns what a section holds, unpacked.
func (a Archive) Read(section Section) ([]byte, error) {
	if section.Offset < 0 || section.Size < 0 || section.Offset > len(a.sections)-section.Size {
		return nil, fmt.Errorf("catalogue: section %s lies outside the file", section.Name)
	}
	data, err := expand(a.sections[section.Offset : section.Offset+section.Size])
	if err != nil {
		return nil, fmt.Errorf("catalogue: section %s: %w", section.Name, err)
	}
	return data, nil
}

// ReadService returns the service that a section holds.
func (a Archive) ReadService(section Section) (Service, error) {
	data, err := a.Read(section)
	if err != nil {
		return Service{}, err
	}
	var service Service
	if err := json.Unmarshal(data, &service); err != nil {
		return Service{}, fmt.Errorf("catalogue: section %s: %w", section.Name, err)
	}
	return service, nil
}

func compress(data []byte) ([]byte, error) {
	var packed bytes.Buffer
	writer, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if _, err := writer.Write(data); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return packed.Bytes(), nil
}

func expand(packed []byte) ([]byte, error) {
	data, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err != nil {
		return nil, fmt.Errorf("expand: %w", err)
	}
	return data, nil
}
