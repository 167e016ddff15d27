package scope

import "strings"

// Span is where in an ARN's text the value of one of its pattern's variables
// stands.
type Span struct {
	Variable   string // its name; "*" where the reference gives none
	Path       bool   // whether its value may hold "/"
	Frame      bool   // whether it says whose the resource is: nothing is filled in there
	Start, End int    // byte offsets into ARN.String()
}

// Locate returns the spans of all variables, region and account included, in
// the order in which they stand. What lies between them is the pattern's own
// text. A trailing "*" belongs to the leaf. The error is Match's.
//
// Where two variables are parted by a text that the first may hold too
// (${Name}-${Id}), the first is the shortest that fits.
func (p Pattern) Locate(arn ARN) ([]Span, error) {
	var ends [maxTokens]int
	if p.match(arn, &ends) != "" {
		return nil, p.Match(arn)
	}
	spans := make([]Span, 0, len(p.tokens)+4)
	at := len("arn:")
	// What a place stands for follows from where it is: the reference calls the
	// account AccountId or VpcOwnerAccount too.
	for _, part := range []struct {
		pattern, value string
		frame          bool
	}{
		{p.frame.Partition, arn.Partition, true}, {p.frame.Service, arn.Service, true}, {p.frame.Region, arn.Region, false}, {p.frame.Account, arn.Account, true},
	} {
		if isVariable(part.pattern) {
			name := strings.TrimSuffix(strings.TrimPrefix(part.pattern, "${"), "}")
			spans = append(spans, Span{Variable: name, Frame: part.frame, Start: at, End: at + len(part.value)})
		}
		at += len(part.value) + len(":")
	}
	start := 0
	for i, token := range p.tokens {
		if token.variable != "" {
			spans = append(spans, Span{Variable: token.variable, Path: token.shape&slash != 0, Start: at + start, End: at + ends[i]})
		}
		start = ends[i]
	}
	if last := len(spans) - 1; strings.HasSuffix(arn.Resource, "*") {
		spans[last].End++
	}
	return spans, nil
}

// mode is how much of a text a pattern has to be matched with.
type mode int

const (
	exact    mode = iota // the whole text is a resource
	upToLeaf             // the text and a "*" are a container's leaves
	reaching             // some resource begins with the text
)

// walk matches text from at on with the tokens from number on. It tries the
// shortest value of a variable first; a value ends where a character can't be
// part of it, so few others are ever tried.
func (p Pattern) walk(text string, how mode, number, at int, ends *[maxTokens]int) bool {
	if number == len(p.tokens) {
		return at == len(text)
	}
	token := &p.tokens[number]
	rest, last := text[at:], number == len(p.tokens)-1
	if token.variable == "" {
		if how == reaching && strings.HasPrefix(token.literal, rest) {
			return true
		}
		if !strings.HasPrefix(rest, token.literal) {
			return false
		}
		ends[number] = at + len(token.literal)
		return p.walk(text, how, number+1, ends[number], ends)
	}
	longest := token.shape.extent(rest)
	switch {
	case how == reaching && longest == len(rest):
		return true
	case last && how == upToLeaf:
		ends[number] = len(text)
		return token.shape.begins(rest, p.least)
	case last:
		ends[number] = len(text)
		return token.shape.holds(rest)
	}
	next := p.tokens[number+1].literal
	for end := 0; end <= longest; end++ {
		skip := strings.Index(rest[end:], next)
		if skip < 0 {
			if how != reaching {
				return false
			}
			skip = 0 // the next token may lie half beyond the text
		}
		if end += skip; end > longest {
			return false
		}
		if token.shape.holds(rest[:end]) {
			ends[number] = at + end
			if p.walk(text, how, number+1, at+end, ends) {
				return true
			}
		}
	}
	return false
}

// Overlaps says whether a "*" at the end of arn also covers a resource of this
// type.
func (p Pattern) Overlaps(arn ARN) bool {
	prefix, wild := strings.CutSuffix(arn.Resource, "*")
	var ends [maxTokens]int
	return wild && p.checkFrame(arn) == "" && p.walk(prefix, reaching, 0, 0, &ends)
}

// Narrowest returns, for an ARN whose wildcard is refused, the narrowest one
// that this pattern takes: what follows the name that the wildcard cut short
// (arn:aws:s3:::bucket/app* gives arn:aws:s3:::bucket/app/*), else everything
// from the last separator on that may be followed by a "*".
func (p Pattern) Narrowest(arn ARN) (string, bool) {
	first := strings.IndexAny(arn.Resource, "*?")
	if !p.wild || first < 0 {
		return "", false
	}
	prefix := arn.Resource[:first]
	leaf := p.tokens[len(p.tokens)-1].shape
	if leaf.nests() && first == len(arn.Resource)-1 {
		arn.Resource = prefix + "/*"
		if p.Fits(arn) {
			return arn.String(), true
		}
	}
	for {
		cut := strings.LastIndexAny(prefix, "/:")
		if cut < 0 {
			return "", false
		}
		arn.Resource, prefix = prefix[:cut+1]+"*", prefix[:cut]
		if p.Fits(arn) {
			return arn.String(), true
		}
	}
}
