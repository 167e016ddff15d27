package revocation

import (
	"regexp"
	"strings"
	"testing"
)

var sessionName = regexp.MustCompile(`\A[A-Za-z0-9_+=,.@-]{2,64}\z`)

func TestNames(t *testing.T) {
	random := newRandom(1)
	long := strings.Repeat("a-very-long-one/", 8)
	for _, test := range []struct{ role, task, readable string }{
		{"upload", "JIRA-1", "upload-JIRA-1"},
		{"upload", "", "upload"},
		{"release binaries", "é:1", "release_binaries-_1"},
		{long, "T-1", "a-very-long-one_a-very-long-one-T-1"},
		{"upload", long, "upload-a-very-long-one_a-very-long-"},
		{long, long, "a-very-long-one_a-a-very-long-one_a"},
	} {
		name := Name{code: randomCode(random, test.role, test.task), readable: readable(test.role, test.task)}
		if name.readable != test.readable {
			t.Errorf("role %q, task %q: %q, want %q", test.role, test.task, name.readable, test.readable)
		}
		for _, text := range []string{name.String(), name.Federated()} {
			if !sessionName.MatchString(text) {
				t.Errorf("%q is no session name", text)
			}
			parsed, err := ParseName(text)
			if err != nil || parsed.Code() != name.Code() || parsed.String() != text {
				t.Errorf("%q reads as %v, %v", text, parsed, err)
			}
		}
		if len(name.Federated()) > 32 {
			t.Errorf("%q has %d characters", name.Federated(), len(name.Federated()))
		}
		if name.Code().Mark() != testMark {
			t.Errorf("%s does not bear the mark", name)
		}
	}
}

// Who may share a base role has another mark; a part depends on all it is made of.
func TestPartsDiffer(t *testing.T) {
	texts := []string{
		NewMark("a", "b").text, NewMark("a", "c").text, NewMark("b", "b").text, NewMark("ab", "").text, NewMark("", "ab").text, NewMark("b", "a").text,
		part("role", "a", 0, markChars), part("role", "a", 1, markChars), part("role", "b", 0, markChars), part("task", "a", 0, markChars),
	}
	seen := map[string]bool{}
	for _, text := range texts {
		if seen[text] || len(text) != markChars {
			t.Errorf("%q comes twice or has the wrong length", text)
		}
		seen[text] = true
	}
}

func FuzzParseName(f *testing.F) {
	f.Add(strings.Repeat("a", codeLength) + "-upload-T-1")
	f.Add(strings.Repeat("a", codeLength))
	f.Add(strings.Repeat("7", codeLength) + "-" + strings.Repeat("b", maxReadable+1))
	f.Add("AROAEXAMPLE:" + strings.Repeat("a", codeLength))
	f.Fuzz(func(t *testing.T, text string) {
		name, err := ParseName(text)
		if err != nil {
			return
		}
		if !sessionName.MatchString(text) || name.String() != text && name.String()+"-" != text {
			t.Errorf("%q reads as %q", text, name)
		}
		if code := name.Code().String(); len(code) != codeLength || strings.Trim(code, alphabet) != "" {
			t.Errorf("code %q", code)
		}
	})
}

func FuzzParsePrefix(f *testing.F) {
	f.Add("abcdefgh")
	f.Add("abcde")
	f.Add("abcdefgh*")
	f.Fuzz(func(t *testing.T, text string) {
		prefix, err := ParsePrefix(text)
		if err == nil && (prefix.String() != text || len(text) < 8 || len(text) > 28 || strings.Trim(text, alphabet) != "") {
			t.Errorf("%q is taken for a prefix", text)
		}
	})
}
