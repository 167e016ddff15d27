package scope

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/precision-access/vault-plugin-secrets-precision/internal/provider/aws/catalog"
	"github.com/precision-access/vault-plugin-secrets-precision/tests/figures"
)

// known is one ARN pattern of the reference.
type known struct {
	kind    string // service:type
	pattern Pattern
}

// reference lists every ARN pattern of the catalogue.
func reference(t testing.TB) []known {
	t.Helper()
	var all []known
	for _, prefix := range catalog.Services() {
		service, _ := catalog.ServiceByPrefix(prefix)
		for _, kind := range service.ResourceTypes() {
			for _, text := range kind.Patterns {
				pattern, err := ParsePattern(text)
				if err != nil {
					t.Fatalf("%s:%s: %v", prefix, kind.Name, err)
				}
				all = append(all, known{prefix + ":" + kind.Name, pattern})
			}
		}
	}
	return all
}

// specimen is a resource of a pattern, in pieces: the four parts of the frame,
// then a piece for each token.
type specimen struct {
	pattern Pattern
	pieces  []string
}

func specimenOf(pattern Pattern) specimen {
	pieces := []string{"aws", "ec2", "eu-west-1", "123456789012"}
	for i, part := range []string{pattern.frame.Partition, pattern.frame.Service, pattern.frame.Region, pattern.frame.Account} {
		if !strings.HasPrefix(part, "${") && part != "*" {
			pieces[i] = part
		}
	}
	for _, token := range pattern.tokens {
		switch {
		case token.variable == "":
			pieces = append(pieces, token.literal)
		case token.shape&absolute != 0:
			pieces = append(pieces, "/npm")
		default:
			pieces = append(pieces, "name1")
		}
	}
	return specimen{pattern, pieces}
}

// with is the specimen's ARN with another text for one piece.
func (s specimen) with(piece int, text string) ARN {
	pieces := slices.Clone(s.pieces)
	pieces[piece] = text
	return ARN{pieces[0], pieces[1], pieces[2], pieces[3], strings.Join(pieces[4:], "")}
}

func (s specimen) arn() ARN { return s.with(0, s.pieces[0]) }

// Every pattern of the reference takes a resource of its type and nothing that
// an attacker, or a slip, makes of it.
func TestReference(t *testing.T) {
	var patterns, wild, attacks, wildcards int
	for _, known := range reference(t) {
		pattern, resource := known.pattern, specimenOf(known.pattern)
		patterns++
		if err := pattern.Match(resource.arn()); err != nil {
			t.Errorf("%s: %v", known.kind, err)
		}
		if spans, err := pattern.Locate(resource.arn()); err != nil {
			t.Errorf("%s: %v", known.kind, err)
		} else if got := reassemble(pattern, resource.arn(), spans); got != pattern.String() {
			t.Errorf("%s: the spans of %s make %s of %s", known.kind, resource.arn(), got, pattern)
		}
		for _, attack := range attacksOn(resource) {
			attacks++
			err := pattern.Match(attack)
			if err == nil {
				t.Errorf("%s: %s was taken for one of %s", known.kind, attack, pattern)
			}
			checkRefusal(t, err, attack.String())
			if _, locateErr := pattern.Locate(attack); locateErr == nil || err != nil && locateErr.Error() != err.Error() {
				t.Errorf("%s: Locate says %v of %s, Match %v", known.kind, locateErr, attack, err)
			}
			if narrowest, found := pattern.Narrowest(attack); found {
				arn, err := ParseARN(narrowest)
				if err == nil {
					err = pattern.Match(arn)
				}
				if err != nil {
					t.Errorf("%s: %s is proposed, but %v", known.kind, narrowest, err)
				}
			}
		}
		if !pattern.Wildcard() {
			continue
		}
		wild++
		leaf := len(resource.pieces) - 1
		for _, text := range []string{"*", "app/*", "app/1/*", "app*", "*/app", "app/*/x", "**", "app/**", "app//*", "/*", "./*", "../*", "app:*", "${x}/*", "app?/*"} {
			taken := pattern.Match(resource.with(leaf, text)) == nil
			paths := pattern.tokens[len(pattern.tokens)-1].shape.nests()
			want := text == "*" && pattern.least == 0 || paths && (text == "app/*" || text == "app/1/*")
			if taken != want {
				t.Errorf("%s: %s: taken %v, want %v", known.kind, resource.with(leaf, text), taken, want)
			}
			wildcards++
		}
	}
	figures.Log(t, "%d patterns, %d take a wildcard and %d none; %d attacks and %d wildcards tried", patterns, wild, patterns-wild, attacks, wildcards)
	// The numbers are those of the embedded release: a change of a rule shows here.
	if patterns != 2347 || wild != 650 {
		t.Errorf("%d of %d patterns take a wildcard, want 650 of 2347", wild, patterns)
	}
}

// attacksOn lists ARNs that are near the specimen and none of its pattern's.
func attacksOn(s specimen) []ARN {
	var all []ARN
	add := func(piece int, texts ...string) {
		for _, text := range texts {
			if text != s.pieces[piece] {
				all = append(all, s.with(piece, text))
			}
		}
	}
	pattern := s.pattern
	add(0, "", "*", "aws*", "?ws", "AWS", "aws-other", "${aws:PrincipalOrgID}")
	add(1, "", "*", "s3*", "?3", "S3", "s3:x", "${x}")
	if pattern.frame.Service != "${Vendor}" {
		add(1, "nosuchservice")
	}
	add(2, "*", "eu-*", "eu-west-?", "EU-WEST-1", "eu-west-1a", "eu", "cn-north-1", "us-gov-west-1", "${aws:RequestedRegion}")
	if pattern.frame.Region != "*" {
		add(2, "", "global")
	}
	add(3, "*", "1234567890*", "12345678901?", "12345678901", "1234567890123", "root", "${aws:PrincipalAccount}")
	for _, other := range []string{"", "aws"} {
		if !slices.Contains(pattern.owners, other) && (pattern.frame.Account != "*" || other != "") {
			add(3, other)
		}
	}
	if pattern.frame.Region == "" {
		add(2, "eu-west-1")
	}
	if pattern.frame.Account == "" {
		add(3, "123456789012")
	}
	for i, token := range pattern.tokens {
		piece, last := 4+i, i == len(pattern.tokens)-1
		var later shape // what follows may take up what is put in here
		for _, token := range pattern.tokens[i+1:] {
			later |= token.shape
		}
		if token.variable == "" {
			add(piece, "", "*", "?", token.literal+"*", "*"+token.literal, token.literal[:len(token.literal)-1]+"?")
			if letter := strings.IndexFunc(token.literal, unicode.IsLetter); letter >= 0 {
				add(piece, token.literal[:letter]+"_"+token.literal[letter+1:])
				if later&(slash|colon|oneColon) == 0 {
					add(piece, token.literal+token.literal)
				}
			}
			if strings.ContainsAny(token.literal, "/:") && later&(colon|rooted) == 0 {
				add(piece, token.literal+"/", token.literal+":")
			}
			continue
		}
		add(piece, "name*", "*name", "na*me", "na?me", "?", "**", ".", "..", "name/../other", "name/./other",
			"${aws:username}", "na${x}me", "na\nme", "name\x00", "na\u0100me", "na\uff0ame", "*/name", "name/*/x", "name:*:x", "name*/", "name*:")
		if !last || !pattern.wild || pattern.least > 0 {
			add(piece, "*")
		}
		if !last || !pattern.wild || !token.shape.nests() {
			add(piece, "name/*", "name:*")
		}
		if token.shape&blank == 0 {
			add(piece, "")
		}
		if (token.shape|later)&slash == 0 {
			add(piece, "na/me")
		}
		if token.shape&absolute == 0 {
			add(piece, "../name")
			if later&absolute == 0 {
				add(piece, "name/..")
			}
		}
		if token.shape&(colon|oneColon) == 0 {
			add(piece, "na:me")
		}
		if token.shape&colon == 0 {
			add(piece, "n:a:me")
		}
		if token.shape&slash == 0 {
			add(piece, ":name", "name:", "na::me")
		}
		if token.shape&(rooted|absolute) == 0 {
			add(piece, "/name")
		}
		if token.shape&closed == 0 {
			add(piece, "name/")
		}
		add(piece, "name//other", "//name", "name//")
		if token.shape&bucketName != 0 {
			add(piece, "Name", "na", "name-", ".name", strings.Repeat("n", 64))
		}
	}
	first, final := 4, len(s.pieces)-1
	add(first, "other:"+s.pieces[first])
	if !slices.ContainsFunc(pattern.tokens, func(token token) bool { return token.shape&slash != 0 }) {
		add(first, "other/"+s.pieces[first])
	}
	for _, more := range []struct {
		text  string
		needs shape
	}{{"/more", slash}, {":more", colon | oneColon}, {"*", 0}, {"?", 0}, {"/*/more", 0}} {
		if tail := pattern.tokens[len(pattern.tokens)-1].shape; tail&more.needs == 0 {
			add(final, s.pieces[final]+more.text)
		}
	}
	return all
}

// reassemble writes a pattern's text from an ARN and the spans in it.
func reassemble(pattern Pattern, arn ARN, spans []Span) string {
	var text strings.Builder
	whole, at := arn.String(), 0
	for _, span := range spans {
		text.WriteString(whole[at:span.Start])
		switch {
		case span.Variable == "*":
			text.WriteString("*")
		case strings.Contains(pattern.String(), "${"+span.Variable+"}"):
			text.WriteString("${" + span.Variable + "}")
		default:
			text.WriteString("{" + span.Variable + "}")
		}
		at = span.End
	}
	text.WriteString(whole[at:])
	return text.String()
}

// Each row of the tables is for a variable that the reference has, or that the
// provider adds to it.
func TestTablesAreOfTheReference(t *testing.T) {
	variables := map[slot]bool{
		{"logs:log-group:${LogGroupName}:*", "LogGroupName"}: true, // what policies need, with a fixed end
		{"es:domain/${DomainName}/${Path}", "Path"}:          true, // the paths of a domain
	}
	for _, known := range reference(t) {
		id := known.pattern.frame.Service + ":" + known.pattern.frame.Resource
		variables[slot{id, ""}] = true
		for _, token := range known.pattern.tokens {
			variables[slot{id, token.variable}] = true
		}
	}
	for row := range shapes {
		if !variables[row] {
			t.Errorf("shapes: the reference has no %s in %s", row.variable, row.pattern)
		}
	}
	for id := range owners {
		if !variables[slot{id, ""}] {
			t.Errorf("owners: the reference has no %s", id)
		}
	}
	for id := range principals {
		if !variables[slot{id, ""}] {
			t.Errorf("principals: the reference has no %s", id)
		}
	}
}

// FuzzReference: whatever any pattern takes names its container literally: one
// "*" at most, at the very end, after a "/" or ":" and in the leaf; and the spans
// put it together again.
func FuzzReference(f *testing.F) {
	all := reference(f)
	for i, known := range all {
		if i%40 == 0 {
			f.Add(uint16(i), specimenOf(known.pattern).arn().String())
		}
	}
	number := func(pattern string) uint16 {
		return uint16(slices.IndexFunc(all, func(known known) bool { return known.pattern.String() == pattern }))
	}
	f.Add(number(object), "arn:aws:s3:::releases/app/*")
	f.Add(number(parameter), "arn:aws:ssm:eu-west-1::parameter/a/b/*")
	f.Add(number(index), "arn:aws:dynamodb:eu-west-1:123456789012:table/t/index/*")
	f.Add(number("arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}"), "arn:aws:logs:eu-west-1:123456789012:log-group:/a/b/*")
	f.Fuzz(func(t *testing.T, choice uint16, text string) {
		arn, err := ParseARN(text)
		if err != nil {
			return
		}
		if arn.String() != text {
			t.Fatalf("%q is read as %q", text, arn)
		}
		pattern := all[int(choice)%len(all)].pattern
		spans, err := pattern.Locate(arn)
		if matched := pattern.Match(arn); (err == nil) != (matched == nil) {
			t.Fatalf("%q: Locate says %v, Match %v", text, err, matched)
		}
		if narrowest, found := pattern.Narrowest(arn); found {
			better, parsing := ParseARN(narrowest)
			if parsing != nil || pattern.Match(better) != nil {
				t.Fatalf("%q: %q is proposed for %s and refused", text, narrowest, pattern)
			}
		}
		if err != nil {
			return
		}
		if got := reassemble(pattern, arn, spans); got != pattern.String() {
			t.Fatalf("%q: the spans make %q of %q", text, got, pattern)
		}
		inner, wild := strings.CutSuffix(text, "*")
		if strings.ContainsAny(inner, "*?") || strings.Contains(text, "${") {
			t.Fatalf("%q names more than one container of %s", text, pattern)
		}
		if wild && (!pattern.Wildcard() || !strings.HasSuffix(inner, "/") && !strings.HasSuffix(inner, ":") || spans[len(spans)-1].End != len(text)) {
			t.Fatalf("%q ends in a wildcard that %s has no place for", text, pattern)
		}
		for i, span := range spans {
			value := text[span.Start:span.End]
			if i < len(spans)-1 && strings.Contains(value, "*") || !span.Path && strings.Contains(value, "/") || value == ".." || value == "." {
				t.Fatalf("%q: %q as %s of %s", text, value, span.Variable, pattern)
			}
		}
	})
}
