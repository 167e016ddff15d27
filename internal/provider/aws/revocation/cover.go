package revocation

import (
	"cmp"
	"slices"
)

// Cover is the smallest set of prefixes that covers every revoked code, touches
// no live one, and holds no prefix shorter than a mark and a role part. The
// prefixes are as short as that allows, sorted, and none begins another. A code
// that is both counts as revoked.
func Cover(revoked, live []Code) []Prefix {
	ended := make(map[Code]bool, len(revoked))
	for _, code := range revoked {
		ended[code] = true
	}
	return cover(sorted(revoked), sorted(slices.DeleteFunc(slices.Clone(live), func(code Code) bool { return ended[code] })))
}

func sorted(codes []Code) []Code {
	return slices.SortedFunc(slices.Values(codes), compareCodes)
}

func compareCodes(a, b Code) int      { return cmp.Compare(a.text, b.text) }
func comparePrefixes(a, b Prefix) int { return cmp.Compare(a.text, b.text) }
func common(a, b string) (length int) {
	for length < len(a) && length < len(b) && a[length] == b[length] {
		length++
	}
	return length
}

// cover is Cover of sorted, disjoint codes. In the trie of all names the wanted
// prefixes are the topmost nodes with revoked codes and no live ones below; the
// live code that shares most with a revoked one stands next to it in the order.
func cover(revoked, live []Code) []Prefix {
	var prefixes []Prefix
	next := 0
	for _, code := range revoked {
		for next < len(live) && live[next].text < code.text {
			next++
		}
		length := shortest
		if next > 0 {
			length = max(length, common(code.text, live[next-1].text)+1)
		}
		if next < len(live) {
			length = max(length, common(code.text, live[next].text)+1)
		}
		if prefix := code.prefix(min(length, codeLength)); len(prefixes) == 0 || prefixes[len(prefixes)-1] != prefix {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// touched are the codes that the prefixes cover, both sorted.
func touched(prefixes []Prefix, codes []Code) []Code {
	var all []Code
	for _, prefix := range prefixes {
		all = append(all, below(codes, prefix.text)...)
	}
	return all
}

// below are the sorted codes that begin with prefix.
func below(codes []Code, prefix string) []Code {
	from, _ := slices.BinarySearchFunc(codes, prefix, func(code Code, prefix string) int { return cmp.Compare(code.text, prefix) })
	to := from
	for to < len(codes) && len(prefix) <= len(codes[to].text) && codes[to].text[:len(prefix)] == prefix {
		to++
	}
	return codes[from:to]
}

// prefixSet finds which of its prefixes cover a code.
type prefixSet map[Prefix]struct{}

func newPrefixSet(prefixes ...[]Prefix) prefixSet {
	set := prefixSet{}
	for _, some := range prefixes {
		for _, prefix := range some {
			set[prefix] = struct{}{}
		}
	}
	return set
}

// above finds the shortest prefix of the set that text begins with.
func (s prefixSet) above(text string) (Prefix, bool) {
	for length := shortest; length <= len(text); length++ {
		prefix := Prefix{text[:length]}
		if _, found := s[prefix]; found {
			return prefix, true
		}
	}
	return Prefix{}, false
}

func (s prefixSet) covers(code Code) bool {
	_, found := s.above(code.text)
	return found
}
