package docs

import (
	"reflect"
	"strings"
	"testing"
)

const page = "# A page\n\n<!-- scene: it is Friday -->\n```console\n" +
	"$ echo one \\\n    two\none two\nalice$ cat <<END\n> $ three\n> END\n\n$ three\n\n$ false\nError: …\n```\n" +
	"```json\n{\"a\": 1}\n```\n```sh\nX=1\necho $X\n```\n"

func TestParse(t *testing.T) {
	t.Parallel()
	steps, err := parse(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{line: 3, scene: "it is Friday"},
		{line: 5, script: "echo one \\\n    two", output: []string{"one two"}},
		{line: 8, person: "alice", script: "cat <<END\n$ three\nEND"},
		{line: 12, script: "three"},
		{line: 14, script: "false", output: []string{"Error: …"}},
		{line: 20, script: "X=1\necho $X\n"},
	}
	if !reflect.DeepEqual(steps, want) {
		t.Errorf("steps\n%+v, want\n%+v", steps, want)
	}
	if steps[1].fails() || !steps[4].fails() {
		t.Error("not the one that shows an error is to fail")
	}
	for name, page := range map[string]string{
		"no prompt":        "```console\nvault read x\n```\n",
		"no command":       "```sh\n\n```\n",
		"not closed":       "```sh\nls\n",
		"not run":          "```\n$ vault read x\n```\n",
		"not run, as text": "```text\nvault read x\n```\n",
	} {
		if _, err := parse(page); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestDiffers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		shown, printed string
		same           bool
	}{
		"the same":         {"a\nb", "a\nb", true},
		"another line":     {"a\nb", "a\nc", false},
		"a line more":      {"a", "a\nb", false},
		"a line less":      {"a\nb", "a", false},
		"a part":           {"key  …  end", "key  anything  end", true},
		"another part":     {"key  …  end", "key  anything", false},
		"part of no line":  {"a…b", "a\nb", false},
		"any lines":        {"a\n…\nb", "a\n1\n2\nb", true},
		"any lines, none":  {"a\n…\nb", "a\nb", true},
		"any lines, first": {"…\nb", "1\n2\nb", true},
		"any lines, last":  {"a\n…", "b\n1", false},
		"no pattern":       {"a.c", "abc", false},
	} {
		if difference := differs(strings.Split(test.shown, "\n"), strings.Split(test.printed, "\n")); (difference == "") != test.same {
			t.Errorf("%s: %q", name, difference)
		}
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	stage := Stage{
		Environment: []string{"VAULT_ADDR=here"},
		People:      map[string][]string{"alice": {"VAULT_TOKEN=it's hers", "VAULT_ADDR=there"}},
	}
	folder, variables := t.TempDir(), t.TempDir()+"/variables"
	for _, test := range []struct {
		step   step
		want   string
		failed bool
	}{
		{step{script: "ID=$(printf 'a b')"}, "", false},
		{step{person: "alice", script: `echo "$ID $VAULT_TOKEN"`}, "a b it's hers", false},
		{step{script: `echo "[$VAULT_TOKEN]" $ID`}, "[] a b", false},
		{step{person: "alice", script: `echo $VAULT_ADDR`}, "there", false},
		{step{script: `echo $VAULT_ADDR`}, "here", false},
		{step{script: "echo gone >&2; false"}, "gone", true},
		{step{script: "false | cat"}, "", true},
		{step{script: "false\necho on"}, "", true},
		{step{script: `echo "$ID" >file; cat file`}, "a b", false},
	} {
		printed, failed := stage.run(t, test.step, folder, variables)
		if got := strings.Join(printed, "\n"); got != test.want || failed != test.failed {
			t.Errorf("%s: %q, failed: %t", test.step.script, got, failed)
		}
	}
}

// A stage and its page have to fit.
func TestStageKnows(t *testing.T) {
	t.Parallel()
	steps, err := parse(page)
	if err != nil {
		t.Fatal(err)
	}
	people, scenes := map[string][]string{"alice": nil}, map[string]func(*testing.T){"it is Friday": nil}
	if err := (Stage{People: people, Scenes: scenes}).knows(steps); err != nil {
		t.Error(err)
	}
	for name, stage := range map[string]Stage{
		"no scene":       {People: people},
		"no person":      {Scenes: scenes},
		"a scene beside": {People: people, Scenes: map[string]func(*testing.T){"it is Friday": nil, "it is Monday": nil}},
	} {
		if err := stage.knows(steps); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
