package postgresql

import (
	"strings"
	"unicode/utf8"
)

// tokenKind is what kind of token PostgreSQL's scanner would take a piece of SQL for.
type tokenKind int

const (
	tokenWord      tokenKind = iota + 1 // a name without quotes, or a keyword
	tokenName                           // a name in double quotes
	tokenString                         // of whatever kind of quotes
	tokenNumber                         //
	tokenParameter                      // $1
	tokenSymbol                         // one character of an operator or of punctuation
)

// token is a piece of SQL. Comments and spaces are none.
type token struct {
	kind  tokenKind
	text  string // of a word: in lower case; of a name or a string: what is in the quotes, doubled ones as they are
	depth int    // in how many parentheses it is
	start int    // where it begins, in bytes
	end   int    // where the next byte after it is
}

// is says whether a token is a keyword or that symbol.
func (t token) is(text string) bool {
	return (t.kind == tokenWord || t.kind == tokenSymbol) && t.text == text
}

// lexer splits SQL as PostgreSQL's scanner does with standard_conforming_strings on.
// https://www.postgresql.org/docs/15/sql-syntax-lexical.html
type lexer struct {
	text  string
	at    int
	depth int
}

// lex splits a text. The error says what is wrong with it, and no more.
func lex(text string) ([]token, error) {
	switch {
	case strings.HasPrefix(text, "\ufeff"):
		return nil, wrong("it begins with a byte order mark")
	case !utf8.ValidString(text):
		return nil, wrong("it is not UTF-8")
	case strings.ContainsRune(text, 0):
		return nil, wrong("it has a NUL in it, which no text in PostgreSQL can have")
	}
	scan := lexer{text: text}
	var tokens []token
	for {
		next, err := scan.next()
		if err != nil {
			return nil, err
		}
		if next.kind == 0 {
			if scan.depth > 0 {
				return nil, wrong("a parenthesis is not closed")
			}
			return tokens, nil
		}
		tokens = append(tokens, next)
	}
}

// next is the next token; its kind is 0 at the end.
func (l *lexer) next() (token, error) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	start := l.at
	if start == len(l.text) {
		return token{}, nil
	}
	made := token{depth: l.depth, start: start}
	rest := l.text[start:]
	var err error
	switch char := rest[0]; {
	case char == '\'':
		made.kind = tokenString
		made.text, err = l.quoted(0, '\'', false)
	case char == '"':
		made.kind = tokenName
		made.text, err = l.quoted(0, '"', false)
	case prefixed(rest, "e'"):
		made.kind = tokenString
		made.text, err = l.quoted(1, '\'', true)
	case prefixed(rest, "b'"), prefixed(rest, "x'"), prefixed(rest, "n'"):
		made.kind = tokenString
		made.text, err = l.quoted(1, '\'', false)
	case prefixed(rest, "u&'"):
		made.kind = tokenString
		made.text, err = l.quoted(2, '\'', false)
	case prefixed(rest, `u&"`):
		made.kind = tokenName
		made.text, err = l.quoted(2, '"', false)
	case nameStart(char):
		made.kind = tokenWord
		l.at += nameLength(rest)
		made.text = lowerASCII(l.text[start:l.at])
	case digit(char), char == '.' && len(rest) > 1 && digit(rest[1]):
		made.kind = tokenNumber
		l.at += numberLength(rest)
		made.text = l.text[start:l.at]
	case char == '$':
		made.kind, made.text, err = l.dollar()
	case char == '\\':
		return token{}, wrong(`it has a backslash outside of quotes: commands of psql are not SQL`)
	default:
		made.kind, made.text = tokenSymbol, rest[:1]
		l.at++
		switch char {
		case '(':
			l.depth++
		case ')':
			if l.depth == 0 {
				return token{}, wrong("a parenthesis is closed that was not opened")
			}
			l.depth--
			made.depth = l.depth
		}
	}
	made.end = l.at
	return made, err
}

// skip passes over spaces and comments.
func (l *lexer) skip() error {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch {
		case space(rest[0]):
			l.at++
		case strings.HasPrefix(rest, "--"):
			l.at += lineLength(rest)
		case strings.HasPrefix(rest, "/*"):
			if err := l.comment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// comment passes over a comment in /* and */, with those that are in it.
func (l *lexer) comment() error {
	for depth := 0; l.at < len(l.text); {
		switch rest := l.text[l.at:]; {
		case strings.HasPrefix(rest, "/*"):
			depth++
			l.at += 2
		case strings.HasPrefix(rest, "*/"):
			l.at += 2
			if depth--; depth == 0 {
				return nil
			}
		default:
			l.at++
		}
	}
	return wrong("it has an unterminated comment")
}

// quoted takes what is between quotes, after a prefix of some bytes. A string goes on
// with the next one if a line ends between the two.
func (l *lexer) quoted(prefix int, quote byte, escapes bool) (string, error) {
	l.at += prefix + 1
	var inside strings.Builder
	for start := l.at; l.at < len(l.text); {
		switch char := l.text[l.at]; {
		case char == '\\' && escapes && l.at+1 < len(l.text):
			l.at += 2
		case char != quote:
			l.at++
		case l.at+1 < len(l.text) && l.text[l.at+1] == quote:
			l.at += 2
		default:
			inside.WriteString(l.text[start:l.at])
			l.at++
			more := continued(l.text[l.at:])
			if quote != '\'' || more == 0 {
				return inside.String(), nil
			}
			l.at += more
			start = l.at
		}
	}
	return "", wrong("it has an unterminated quote")
}

// continued is how far it is into the next string if that goes on with this one; 0 if
// it does not: between the two is a line's end, and nothing but spaces and comments
// that end with their line.
func continued(rest string) int {
	line := false
	for at := 0; at < len(rest); {
		switch {
		case rest[at] == '\n' || rest[at] == '\r':
			line = true
			at++
		case space(rest[at]):
			at++
		case strings.HasPrefix(rest[at:], "--"):
			at += lineLength(rest[at:])
		case rest[at] == '\'' && line:
			return at + 1
		default:
			return 0
		}
	}
	return 0
}

// dollar takes a parameter, or a string in dollar quotes.
func (l *lexer) dollar() (tokenKind, string, error) {
	rest := l.text[l.at:]
	if len(rest) > 1 && digit(rest[1]) {
		length := 1
		for length < len(rest) && digit(rest[length]) {
			length++
		}
		l.at += length
		return tokenParameter, rest[:length], nil
	}
	length := 1
	for length < len(rest) && (nameStart(rest[length]) || digit(rest[length])) {
		length++
	}
	if length == len(rest) || rest[length] != '$' {
		return 0, "", wrong("it has a $ that begins neither a parameter nor a quote")
	}
	tag := rest[:length+1]
	inside, _, closed := strings.Cut(rest[len(tag):], tag)
	if !closed {
		return 0, "", wrong("the quote " + tag + " is unterminated")
	}
	l.at += 2*len(tag) + len(inside)
	return tokenString, inside, nil
}

func lineLength(rest string) int {
	if end := strings.IndexAny(rest, "\r\n"); end >= 0 {
		return end
	}
	return len(rest)
}

// prefixed says whether a text begins with something in lower or upper case.
func prefixed(text, prefix string) bool {
	return len(text) >= len(prefix) && lowerASCII(text[:len(prefix)]) == prefix
}

// lowerASCII is how names without quotes are folded.
func lowerASCII(text string) string {
	return strings.Map(func(char rune) rune {
		if 'A' <= char && char <= 'Z' {
			return char + 'a' - 'A'
		}
		return char
	}, text)
}

func space(char byte) bool { return strings.IndexByte(" \t\n\r\f\v", char) >= 0 }

func digit(char byte) bool { return '0' <= char && char <= '9' }

func nameStart(char byte) bool {
	return 'a' <= char && char <= 'z' || 'A' <= char && char <= 'Z' || char == '_' || char >= 0x80
}

func nameLength(rest string) int {
	length := 1
	for length < len(rest) && (nameStart(rest[length]) || digit(rest[length]) || rest[length] == '$') {
		length++
	}
	return length
}

// numberLength is generous: what is no number is for the server to refuse.
func numberLength(rest string) int {
	length := 1
	for length < len(rest) {
		char := rest[length]
		sign := (char == '+' || char == '-') && (rest[length-1] == 'e' || rest[length-1] == 'E') && length+1 < len(rest) && digit(rest[length+1])
		if !digit(char) && char != '.' && !nameStart(char) && !sign {
			break
		}
		if char == '.' && length+1 < len(rest) && rest[length+1] == '.' {
			break // 1..2 is two numbers in a loop of plpgsql
		}
		length++
	}
	return length
}
