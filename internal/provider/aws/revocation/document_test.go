package revocation

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"
)

var testStamp = Stamp{Epoch: 12, Writer: "abcdef27"}

func TestDocument(t *testing.T) {
	prefixes := []Prefix{{"abcdefgh"}, {"abcdefgikk"}}
	const want = `{"Version":"2012-10-17","Statement":[{"Sid":"e0000000012wabcdef27","Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"aws:userid":["*:abcdefgh*","*:abcdefgikk*"]}}}]}`
	text := testStamp.document(prefixes)
	if text != want {
		t.Errorf("got %s", text)
	}
	if !json.Valid([]byte(text)) {
		t.Error("not JSON")
	}
	if size(prefixes) != entryRoom(len(text)) {
		t.Errorf("%d characters of prefixes, counted %d", entryRoom(len(text)), size(prefixes))
	}
	if _, stamp, err := parseDocument(text); err != nil || stamp != testStamp {
		t.Errorf("the stamp is read as %+v, %v", stamp, err)
	}
	if _, stamp, err := parseDocument(Document(prefixes)); err != nil || stamp != (Stamp{}) {
		t.Errorf("no stamp is read as %+v, %v", stamp, err)
	}
}

// A pattern hits the sessions of its prefix, of a role or federated, and nothing
// else.
func TestPatterns(t *testing.T) {
	random := newRandom(2)
	code, other := randomCode(random, "upload", "T-1"), randomCode(random, "upload", "T-2")
	name, stranger := Name{code: code, readable: "upload-T-1"}, Name{code: other, readable: code.text}
	pattern := "*:" + code.text[:taskEnd] + "*"
	for userid, want := range map[string]bool{
		"AROADBQP57FF2AEXAMPLE:" + name.String():     true,
		"123456789012:" + name.Federated():           true,
		"AROADBQP57FF2AEXAMPLE:" + stranger.String(): false,
		"AROADBQP57FF2AEXAMPLE:x" + name.String():    false,
		"AIDADBQP57FF2AEXAMPLE":                      false,
	} {
		if got, err := path.Match(pattern, userid); err != nil || got != want {
			t.Errorf("%s matches %s: %v, %v", pattern, userid, got, err)
		}
	}
}

func TestParseDocument(t *testing.T) {
	good := Document([]Prefix{{"abcdefgh"}, {"abcdefgikk"}})
	spaced := strings.NewReplacer(":[", ": [\n\t", ",", " , ").Replace(good)
	for _, text := range []string{good, spaced} {
		if prefixes, err := ParseDocument(text); err != nil || !slices.Equal(prefixes, []Prefix{{"abcdefgh"}, {"abcdefgikk"}}) {
			t.Errorf("%s: %v, %v", text, prefixes, err)
		}
	}
	for name, text := range map[string]string{
		"empty":             "",
		"no JSON":           good[1:],
		"two documents":     good + good,
		"trailing brace":    good + "}",
		"old version":       strings.Replace(good, "2012-10-17", "2008-10-17", 1),
		"allows":            strings.Replace(good, "Deny", "Allow", 1),
		"one action":        strings.Replace(good, `"Action":"*"`, `"Action":"s3:*"`, 1),
		"one resource":      strings.Replace(good, `"Resource":"*"`, `"Resource":"arn:aws:s3:::b"`, 1),
		"no resource":       strings.Replace(good, `"Resource":"*",`, ``, 1),
		"not action":        strings.Replace(good, `"Action"`, `"NotAction"`, 1),
		"other operator":    strings.Replace(good, "StringLike", "StringNotLike", 1),
		"other key":         strings.Replace(good, "aws:userid", "aws:username", 1),
		"second condition":  strings.Replace(good, `"Condition":{`, `"Condition":{"Bool":{"aws:SecureTransport":["true"]},`, 1),
		"second key":        strings.Replace(good, `"StringLike":{`, `"StringLike":{"aws:username":["a"],`, 1),
		"second statement":  strings.Replace(good, `"Statement":[`, `"Statement":[{},`, 1),
		"no statement":      `{"Version":"2012-10-17","Statement":[]}`,
		"no patterns":       Document(nil),
		"strange Sid":       strings.Replace(good, `"Effect"`, `"Sid":"Mine","Effect"`, 1),
		"pattern too short": strings.Replace(good, "*:abcdefgh*", "*:abcdefg*", 1),
		"pattern too wide":  strings.Replace(good, "*:abcdefgh*", "**", 1),
		"bare star":         strings.Replace(good, "*:abcdefgh*", "*", 1),
		"no star":           strings.Replace(good, "*:abcdefgh*", "*:abcdefgh", 1),
	} {
		if prefixes, err := ParseDocument(text); err == nil {
			t.Errorf("%s: taken for %v", name, prefixes)
		}
	}
	if got := suspects(strings.Replace(good, "Deny", "Allow", 1)); len(got) != 2 {
		t.Errorf("suspects %v", got)
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add(Document([]Prefix{{"abcdefgh"}, {"abcdefgikk"}}))
	f.Add(Document(nil))
	f.Add(testStamp.document([]Prefix{{"abcdefgh"}}))
	f.Add(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		prefixes, err := ParseDocument(text)
		if err != nil {
			return
		}
		again, err := ParseDocument(Document(prefixes))
		if err != nil || !slices.Equal(prefixes, again) {
			t.Errorf("%q reads as %v, written again as %v, %v", text, prefixes, again, err)
		}
	})
}
