package iampolicy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// pattern is a text with wildcards and policy variables.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
type pattern struct {
	parts     []part
	variables []reference
}

// part of a pattern: one character, a wildcard, or a variable.
type part struct {
	kind   partKind
	inside bool  // a wildcard that doesn't match ":"
	char   rune  // of a character
	index  int32 // of a variable in the pattern's list
}

// reference is a variable, and what stands for it where it has no value.
type reference struct{ key, fallback string }

type partKind uint8

const (
	character partKind = iota
	anyOne             // ?
	anyMany            // *
	variable           // ${key}
)

// variableText is what stands between "${" and "}": a key, and perhaps a
// default in single quotes.
var variableText = regexp.MustCompile(`\A\s*([^\s,'{}$][^,'{}$]*?)\s*(?:,\s*'([^'{}$]*)')?\s*\z`)

// newPattern reads text. Wildcards are such only where the operator has them,
// variables only where the language's version has them.
func newPattern(text string, wildcards, variables bool) (pattern, error) {
	var read pattern
	for text != "" {
		if variables && strings.HasPrefix(text, "${") {
			name, rest, closed := strings.Cut(text[2:], "}")
			if !closed {
				return pattern{}, errors.New(`a variable "${" that isn't closed`)
			}
			if err := read.add(name); err != nil {
				return pattern{}, err
			}
			text = rest
			continue
		}
		char, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		switch {
		case wildcards && char == '?':
			read.parts = append(read.parts, part{kind: anyOne})
		case wildcards && char == '*':
			read.parts = append(read.parts, part{kind: anyMany})
		default:
			read.parts = append(read.parts, part{char: char})
		}
	}
	return read, nil
}

// add appends what stands between "${" and "}".
func (p *pattern) add(text string) error {
	switch text {
	case "*", "?", "$":
		p.parts = append(p.parts, part{char: rune(text[0])})
		return nil
	}
	match := variableText.FindStringSubmatch(text)
	if match == nil || !strings.Contains(match[1], ":") {
		return fmt.Errorf("%q is no condition key that a variable could name", text)
	}
	p.parts = append(p.parts, part{kind: variable, index: int32(len(p.variables))})
	p.variables = append(p.variables, reference{match[1], match[2]})
	return nil
}

// withinSegments keeps wildcards of an ARN's first five segments from matching
// ":", but for a "*" that ends its segment: that one "can expand to match beyond
// the colon boundaries".
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html
func (p pattern) withinSegments() {
	for i, colons := 0, 0; i < len(p.parts) && colons < 5; i++ {
		last := i+1 == len(p.parts) || p.parts[i+1].isColon()
		p.parts[i].inside = p.parts[i].kind == anyOne || p.parts[i].kind == anyMany && !last
		if p.parts[i].isColon() {
			colons++
		}
	}
}

func (p part) isColon() bool { return p.kind == character && p.char == ':' }

// segments is the number of colons that are written out, plus one.
func (p pattern) segments() int {
	segments := 1
	for _, part := range p.parts {
		if part.isColon() {
			segments++
		}
	}
	return segments
}

// expand puts the request's values in for the variables, as characters: a "*" in
// a value is no wildcard. Without a value there is nothing that the pattern
// could match, and neither is there with more characters than the text has.
func (p pattern) expand(e *evaluation, text string) ([]part, bool) {
	if len(p.variables) == 0 {
		return p.parts, true
	}
	var parts []part
	characters := 0
	for _, next := range p.parts {
		switch next.kind {
		case variable:
			reference := p.variables[next.index]
			value := cmp.Or(e.single(reference.key), reference.fallback)
			if value == "" {
				return nil, false
			}
			for _, char := range value {
				parts = append(parts, part{char: char})
			}
			characters += utf8.RuneCountInString(value)
		case anyMany:
			parts = append(parts, next)
		default:
			parts = append(parts, next)
			characters++
		}
		if characters > len(text) {
			return nil, false
		}
	}
	return parts, true
}

// match says whether the parts, without variables, are all of text. It follows
// all ways through the pattern side by side, so that its effort is bounded by
// the product of the two lengths.
func match(e *evaluation, parts []part, text string) bool {
	if !e.spend((len(parts) + 1) * (len(text) + 1)) {
		return false
	}
	at, next := make([]bool, len(parts)+1), make([]bool, len(parts)+1)
	at[0] = true
	skipStars(parts, at)
	for _, char := range text {
		clear(next)
		alive := false
		for i, part := range parts {
			if !at[i] {
				continue
			}
			switch {
			case part.inside && char == ':':
			case part.kind == anyMany:
				next[i], alive = true, true
			case part.kind == anyOne, part.char == char:
				next[i+1], alive = true, true
			}
		}
		if !alive {
			return false
		}
		skipStars(parts, next)
		at, next = next, at
	}
	return at[len(parts)]
}

// skipStars adds the places that a "*" which stands for nothing leads to.
func skipStars(parts []part, at []bool) {
	for i, part := range parts {
		if at[i] && part.kind == anyMany {
			at[i+1] = true
		}
	}
}

// matches expands the pattern and compares it with text.
func (p pattern) matches(e *evaluation, text string) bool {
	parts, ok := p.expand(e, text)
	return ok && match(e, parts, text)
}

// matchesARN compares segment by segment: "Each of the six colon-delimited
// components of the ARN is checked separately".
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html#Conditions_ARN
func (p pattern) matchesARN(e *evaluation, text string) bool {
	parts, ok := p.expand(e, text)
	if !ok {
		return false
	}
	segments := strings.SplitN(text, ":", arnSegments)
	if len(segments) != arnSegments {
		return false
	}
	for i, segment := range segments {
		end := len(parts)
		if i < arnSegments-1 {
			end = 0
			for end < len(parts) && !parts[end].isColon() {
				end++
			}
			if end == len(parts) {
				return false
			}
		}
		if !match(e, parts[:end], segment) {
			return false
		}
		parts = parts[min(end+1, len(parts)):]
	}
	return true
}

// equalFold compares without case, wildcards being characters.
func (p pattern) equalFold(e *evaluation, text string) bool {
	parts, ok := p.expand(e, text)
	if !ok {
		return false
	}
	var literal strings.Builder
	for _, part := range parts {
		literal.WriteRune(part.char)
	}
	return strings.EqualFold(literal.String(), text)
}
