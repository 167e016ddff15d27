package scope

import "strings"

// shape is what the value of a variable may hold. A value never holds a
// wildcard, and is never empty, "." or ".." unless the shape says so; it holds
// no "/" and no ":" unless the shape allows them.
type shape uint16

const (
	slash      shape = 1 << iota // "/", but no empty segment
	colon                        // ":"
	oneColon                     // one ":" at most
	rooted                       // a "/" may come first
	absolute                     // a "/" has to come first
	closed                       // a "/" may come last
	blank                        // may be empty
	flat                         // a "/" parts nothing: no "*" may follow it
	bucketName                   // an S3 bucket's name
)

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
	case s&slash == 0:
		return s&(colon|oneColon) == 0 || s.parts(value)
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
	return found && s.nests() && s.extent(path) == len(path) && s.path(path)
}

// parts says whether a name with ":" in it has a text on both sides of each.
func (s shape) parts(value string) bool {
	return value[0] != ':' && value[len(value)-1] != ':' && !strings.Contains(value, "::") &&
		(s&oneColon == 0 || strings.Count(value, ":") < 2)
}

// nests says whether a "/" in a value parts a container from what is in it.
func (s shape) nests() bool { return s&slash != 0 && s&flat == 0 }

// path says whether no segment is empty, "." or "..", but for what comes before
// a first "/" where the shape has one.
func (s shape) path(value string) bool {
	trimmed := value
	if s&(rooted|absolute) != 0 {
		trimmed = strings.TrimPrefix(value, "/")
	}
	if s&absolute != 0 && trimmed == value {
		return false
	}
	for segment := range strings.SplitSeq(trimmed, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
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
