// Package stored encodes the entries of a mount's storage. Each carries the version of its form and is decoded
// strictly, so that no version of the plugin drops a restriction that it does not know.
package stored

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/hashicorp/vault/sdk/logical"
)

// Version is the version of the form that this plugin writes, and the newest that it reads. Version 0 is an entry
// without an envelope, as plugin v0.1.0 wrote it.
const Version = 1

var (
	// ErrNewer is returned for an entry that has a newer version, or a field that this plugin does not know.
	ErrNewer = errors.New("written by a newer version of this plugin")
	// ErrDamaged is returned for an entry that can't be decoded.
	ErrDamaged = errors.New("damaged")
)

// envelope is around every entry. Its form never changes, so that every version can tell what is newer.
type envelope struct {
	Version int             `json:"version"`
	Entry   json.RawMessage `json:"entry"`
}

// mark is how each envelope begins, and no entry of version 0.
var mark = []byte(`{"version":`)

// migrations turn an entry of version i into one of version i+1. A key says what an entry is.
var migrations = []func(key string, entry json.RawMessage) (json.RawMessage, error){
	func(_ string, entry json.RawMessage) (json.RawMessage, error) { return entry, nil }, // version 1 adds the envelope
}

// Encode returns the bytes of an entry.
func Encode(value any) ([]byte, error) {
	entry, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{Version: Version, Entry: entry})
}

// Decode reads what Encode of this version or an earlier one returned. The error is ErrNewer or ErrDamaged, and
// into is zero then.
func Decode(key string, data []byte, into any) error {
	return decode(key, data, into, Version)
}

// DecodeAs is Decode of an entry that has no envelope, and a version that was read elsewhere.
func DecodeAs(key string, version int, entry []byte, into any) error {
	reflect.ValueOf(into).Elem().SetZero()
	return migrate(key, version, entry, into, Version)
}

func decode(key string, data []byte, into any, newest int) error {
	reflect.ValueOf(into).Elem().SetZero()
	version, entry := 0, json.RawMessage(data)
	if bytes.HasPrefix(data, mark) {
		var read envelope
		if err := json.Unmarshal(data, &read); err != nil {
			return fmt.Errorf("%s is %w: %w", key, ErrDamaged, err)
		}
		version, entry = read.Version, read.Entry
	}
	return migrate(key, version, entry, into, newest)
}

func migrate(key string, version int, entry json.RawMessage, into any, newest int) error {
	switch {
	case version > newest:
		return fmt.Errorf("%s was %w: its version is %d, and this plugin reads up to %d", key, ErrNewer, version, newest)
	case version < 0:
		return fmt.Errorf("%s is %w: its version is %d", key, ErrDamaged, version)
	}
	for from := version; from < newest; from++ {
		var err error
		if entry, err = migrations[from](key, entry); err != nil {
			return fmt.Errorf("%s is %w: upgrading it from version %d: %w", key, ErrDamaged, from, err)
		}
	}
	return strict(key, entry, into)
}

// strict decodes an entry. A field that is not known is ErrNewer.
func strict(key string, entry json.RawMessage, into any) error {
	if trimmed := bytes.TrimSpace(entry); len(trimmed) == 0 || bytes.Equal(trimmed, []byte("null")) {
		return fmt.Errorf("%s is %w: it is empty", key, ErrDamaged)
	}
	err := unmarshal(entry, into, true)
	if err == nil {
		return nil
	}
	value := reflect.ValueOf(into).Elem()
	value.SetZero()
	if lenient := unmarshal(entry, reflect.New(value.Type()).Interface(), false); lenient != nil {
		return fmt.Errorf("%s is %w: %w", key, ErrDamaged, lenient)
	}
	return fmt.Errorf("%s was %w: %w", key, ErrNewer, err)
}

// unmarshal keeps numbers as they are written, as logical.StorageEntry.DecodeJSON does.
func unmarshal(entry []byte, into any, strict bool) error {
	decoder := json.NewDecoder(bytes.NewReader(entry))
	decoder.UseNumber()
	if strict {
		decoder.DisallowUnknownFields()
	}
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

// Get reads the entry at a key, and says whether there is one. The error is ErrNewer, ErrDamaged or storage's own.
func Get(ctx context.Context, storage logical.Storage, key string, into any) (found bool, err error) {
	entry, err := storage.Get(ctx, key)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	if entry == nil {
		return false, nil
	}
	return true, Decode(key, entry.Value, into)
}

// Put writes an entry in place.
func Put(ctx context.Context, storage logical.Storage, key string, value any) error {
	data, err := Encode(value)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := storage.Put(ctx, &logical.StorageEntry{Key: key, Value: data}); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}

// Unreadable says whether an error of Get or Decode is about the entry, and not about storage.
func Unreadable(err error) bool { return errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) }
