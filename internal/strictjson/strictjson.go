// Package strictjson reads JSON that people write where a mistake must not be
// passed over: a name that stands twice in one object, or anything after the end,
// is an error. encoding/json keeps the last of two and says nothing.
package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how deep values may be nested.
const maxDepth = 32

// Object reads an object. Numbers are json.Number.
func Object(text string) (map[string]any, error) {
	value, err := Value(text)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	return object, nil
}

// Value reads a value of any kind.
func Value(text string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	value, err := read(decoder, maxDepth)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the end")
	}
	return value, nil
}

func read(decoder *json.Decoder, depth int) (any, error) {
	if depth == 0 {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	token, err := decoder.Token()
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case token == json.Delim('{'):
		object := map[string]any{}
		for decoder.More() {
			name, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			text := name.(string) // or the decoder had refused it
			if _, twice := object[text]; twice {
				return nil, fmt.Errorf("%q stands twice in one object", text)
			}
			if object[text], err = read(decoder, depth-1); err != nil {
				return nil, err
			}
		}
		_, err := decoder.Token()
		return object, err
	case token == json.Delim('['):
		list := []any{}
		for decoder.More() {
			entry, err := read(decoder, depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, entry)
		}
		_, err := decoder.Token()
		return list, err
	default:
		return token, nil
	}
}
