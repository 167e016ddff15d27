package revocation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// The policy document around its list of patterns. In a session of a
// role aws:userid is <role id>:<session name>, in one of a federated user
// <account>:<name>: one pattern serves both, and neither part has a colon of its
// own.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
const (
	frameStart = `{"Version":"2012-10-17","Statement":[{`
	frameSid   = `"Sid":"%s",`
	frameRest  = `"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:userid":[`
	frameEnd   = `]}}}]}`

	// frameSize is with a stamp, all of which have the same length.
	frameSize = len(frameStart) + len(frameSid) - len("%s") + len("e") + epochDigits + len("w") + writerChars + len(frameRest) + len(frameEnd)
)

// ManagedRoom is the number of characters that a managed policy may have, white
// space not counted.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
const ManagedRoom = 6144

// Document is the policy that denies everything to sessions with these prefixes, without a stamp.
func Document(prefixes []Prefix) string { return Stamp{}.document(prefixes) }

// document is the policy that denies everything to sessions with these prefixes.
func (s Stamp) document(prefixes []Prefix) string {
	var text strings.Builder
	text.WriteString(frameStart)
	if s != (Stamp{}) {
		fmt.Fprintf(&text, frameSid, s)
	}
	text.WriteString(frameRest)
	for i, prefix := range prefixes {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(`"*:` + prefix.text + `*"`)
	}
	text.WriteString(frameEnd)
	return text.String()
}

// entrySize is what a prefix takes in a document: pattern, quotes and comma.
func entrySize(prefix Prefix) int { return len(prefix.text) + len(`"*:*",`) }

func size(prefixes []Prefix) (total int) {
	for _, prefix := range prefixes {
		total += entrySize(prefix)
	}
	return total
}

// entryRoom is what a document of that many characters leaves for its prefixes;
// the last one has no comma.
func entryRoom(document int) int { return max(document-frameSize+1, 0) }

// ParseDocument reads the prefixes of a Document, sorted. Every other document is
// an error, however similar: one that was changed by hand is to be written anew.
func ParseDocument(text string) ([]Prefix, error) {
	prefixes, _, err := parseDocument(text)
	return prefixes, err
}

// parseDocument is ParseDocument, with the policy's stamp.
func parseDocument(text string) ([]Prefix, Stamp, error) {
	var document struct {
		Version   string
		Statement []struct {
			Sid, Effect, Action, Resource string
			Condition                     map[string]map[string][]string
		}
	}
	refuse := func(err error) ([]Prefix, Stamp, error) { return nil, Stamp{}, err }
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&document); err != nil {
		return refuse(fmt.Errorf("revocation: reading a policy: %w", err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || len(document.Statement) != 1 {
		return refuse(errors.New("revocation: the policy has more than one document or statement"))
	}
	statement := document.Statement[0]
	patterns := statement.Condition["StringLike"]["aws:userid"]
	if document.Version != "2012-10-17" || statement.Effect != "Deny" || statement.Action != "*" || statement.Resource != "*" ||
		len(statement.Condition) != 1 || len(statement.Condition["StringLike"]) != 1 || len(patterns) == 0 {
		return refuse(errors.New("revocation: the policy is not a Deny of sessions alone"))
	}
	stamp, err := parseStamp(statement.Sid)
	if err != nil {
		return refuse(err)
	}
	prefixes := make([]Prefix, len(patterns))
	for i, pattern := range patterns {
		if len(pattern) < len("*:*") || pattern[:2] != "*:" || pattern[len(pattern)-1] != '*' {
			return refuse(fmt.Errorf("revocation: %q is no pattern for sessions", pattern))
		}
		prefix, err := ParsePrefix(pattern[2 : len(pattern)-1])
		if err != nil {
			return refuse(err)
		}
		prefixes[i] = prefix
	}
	slices.SortFunc(prefixes, comparePrefixes)
	return slices.Compact(prefixes), stamp, nil
}

var patternShape = regexp.MustCompile(fmt.Sprintf(`\*:([a-z2-7]{%d,%d})\*`, shortest, codeLength))

// suspects are the prefixes that a document which ParseDocument refuses may deny.
func suspects(text string) []Prefix {
	var prefixes []Prefix
	for _, found := range patternShape.FindAllStringSubmatch(text, -1) {
		prefixes = append(prefixes, Prefix{found[1]})
	}
	slices.SortFunc(prefixes, comparePrefixes)
	return slices.Compact(prefixes)
}
