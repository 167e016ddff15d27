package scope

import "strings"

// shape is what the value of a variable may hold. A value never holds a
// wildcard, and is never empty, "." or ".." unless the shape says so; it holds
// no "/" and no ":" unless the shape allows them.
type shape uint16

const (
	slash      shape = 1 << iota // "/", but no empty segment
	colon                        // ":"
	oneColon                     // one ":" at most, with something on both sides
	rooted                       // a "/" may come first
	absolute                     // a "/" has to come first
	closed                       // a "/" may come last
	blank                        // may be empty
	bucketName                   // an S3 bucket's name
)

const segment shape = 0

// extent is the length of the longest start of text whose characters the shape
// takes.
func (s shape) extent(text string) int {
	for i := range len(text) {
		switch char := text[i]; {
		case char == '*', char == '?',
			char == '/' && s&slash == 0,
			char == ':' && s&(colon|oneColon) == 0:
			return i
		}
	}
	return len(text)
}

// holds says whether value is one that a variable of this shape may have.
func (s shape) holds(value string) bool {
	switch {
	case value == "":
		return s&blank != 0
	case s.extent(value) < len(value), value == ".", value == "..":
		return false
	case s&bucketName != 0:
		return isBucket(value)
	case s&oneColon != 0:
		before, after, found := strings.Cut(value, ":")
		return !found || before != "" && after != "" && !strings.Contains(after, ":")
	case s&slash == 0:
		return true
	}
	if s&closed != 0 {
		value = strings.TrimSuffix(value, "/")
	}
	return s.path(value)
}

// begins says whether prefix is a start of such a value after which a "*" may
// stand: nothing, or whole segments, at least least of them.
func (s shape) begins(prefix string, least int) bool {
	if prefix == "" {
		return least == 0
	}
	path, found := strings.CutSuffix(prefix, "/")
	return found && s&slash != 0 && s.extent(path) == len(path) && s.path(path)
}

// path says whether no segment is empty, but for what comes before a first "/"
// where the shape has one.
func (s shape) path(value string) bool {
	trimmed := value
	if s&(rooted|absolute) != 0 {
		trimmed = strings.TrimPrefix(value, "/")
	}
	if s&absolute != 0 && trimmed == value {
		return false
	}
	return trimmed != "" && trimmed[0] != '/' && trimmed[len(trimmed)-1] != '/' && !strings.Contains(trimmed, "//")
}

// isBucket says whether name has the shape of a bucket's name.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
func isBucket(name string) bool {
	for i := range len(name) {
		char := name[i]
		alphanumeric := 'a' <= char && char <= 'z' || isDigit(char)
		if !alphanumeric && (char != '.' && char != '-' || i == 0 || i == len(name)-1) {
			return false
		}
	}
	return len(name) >= 3 && len(name) <= 63
}
