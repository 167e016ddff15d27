package iampolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// node is a JSON value as it was written: members keep their order, numbers
// their text.
type node struct {
	kind    kind
	text    string // of a string, number or boolean
	names   []string
	members map[string]node
	list    []node
}

type kind int

const (
	isNull kind = iota
	isString
	isLiteral // number or boolean
	isObject
	isList
)

func (k kind) String() string {
	return [...]string{"null", "a string", "a number or boolean", "an object", "a list"}[k]
}

// readJSON reads text more strictly than encoding/json: a name may stand once
// in an object, and nothing nests deeper than maxDepth. What AWS would take for
// one of two values, or could take differently, is refused.
func readJSON(text string) (node, error) {
	if !utf8.ValidString(text) {
		return node{}, errors.New("it is no valid UTF-8")
	}
	if !json.Valid([]byte(text)) {
		var value any
		return node{}, fmt.Errorf("it is no JSON: %w", json.Unmarshal([]byte(text), &value))
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	read, err := readNode(decoder, 1)
	if err != nil {
		return node{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return node{}, errors.New("there is more than one JSON value")
	}
	return read, nil
}

func readNode(decoder *json.Decoder, depth int) (node, error) {
	if depth > maxDepth {
		return node{}, fmt.Errorf("it nests deeper than %d levels", maxDepth)
	}
	token, err := decoder.Token()
	if err != nil {
		return node{}, err
	}
	switch token := token.(type) {
	case nil:
		return node{}, nil
	case bool:
		return node{kind: isLiteral, text: fmt.Sprint(token)}, nil
	case json.Number:
		return node{kind: isLiteral, text: token.String()}, nil
	case string:
		// The decoder writes this for half a surrogate pair.
		if strings.ContainsRune(token, utf8.RuneError) {
			return node{}, errors.New("a string holds a character that is no Unicode")
		}
		return node{kind: isString, text: token}, nil
	case json.Delim:
		if token == '{' {
			return readObject(decoder, depth)
		}
		return readList(decoder, depth)
	default:
		return node{}, fmt.Errorf("unknown JSON token %v", token)
	}
}

func readObject(decoder *json.Decoder, depth int) (node, error) {
	object := node{kind: isObject, members: map[string]node{}}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return node{}, err
		}
		name, _ := token.(string)
		if _, twice := object.members[name]; twice {
			return node{}, fmt.Errorf("%q stands twice in one object", name)
		}
		member, err := readNode(decoder, depth+1)
		if err != nil {
			return node{}, err
		}
		object.names = append(object.names, name)
		object.members[name] = member
	}
	_, err := decoder.Token()
	return object, err
}

func readList(decoder *json.Decoder, depth int) (node, error) {
	list := node{kind: isList}
	for decoder.More() {
		element, err := readNode(decoder, depth+1)
		if err != nil {
			return node{}, err
		}
		list.list = append(list.list, element)
	}
	_, err := decoder.Token()
	return list, err
}

// MarshalJSON writes the value back in its own order.
func (n node) MarshalJSON() ([]byte, error) {
	var text bytes.Buffer
	switch n.kind {
	case isString:
		short, err := compact(n.text)
		return []byte(short), err
	case isLiteral:
		return []byte(n.text), nil
	case isObject:
		text.WriteByte('{')
		for i, name := range n.names {
			if i > 0 {
				text.WriteByte(',')
			}
			key, err := compact(name)
			if err != nil {
				return nil, err
			}
			value, err := n.members[name].MarshalJSON()
			if err != nil {
				return nil, err
			}
			text.WriteString(key)
			text.WriteByte(':')
			text.Write(value)
		}
		text.WriteByte('}')
	case isList:
		text.WriteByte('[')
		for i, element := range n.list {
			if i > 0 {
				text.WriteByte(',')
			}
			value, err := element.MarshalJSON()
			if err != nil {
				return nil, err
			}
			text.Write(value)
		}
		text.WriteByte(']')
	default:
		text.WriteString("null")
	}
	return text.Bytes(), nil
}
